"""State dicts of the field's original repositories, as networks of this package with the same output.

One module per origin. Each knows the names and the structure of its repository's networks and contains none of their code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from r2seg.networks.base import SegmentationNetwork
from r2seg.networks.legacy import backboned_unet, csail_upernet, leejunhyun, ternausnet
from r2seg.networks.options import choose
from r2seg.networks.weights import plain_state_dict

ORIGINS: dict[str, Callable[..., SegmentationNetwork]] = {
    "leejunhyun": leejunhyun.convert,
    "backboned-unet": backboned_unet.convert,
    "ternausnet": ternausnet.convert,
    "csail-upernet": csail_upernet.convert,
}


def convert_state_dict(state_dict: Mapping[str, Tensor], origin: str, **options: Any) -> SegmentationNetwork:
    """Return the network that an original repository's weights belong to, loaded and in evaluation mode.

    The options are set so that the logits equal the original's in evaluation mode, to 1e-4 relative in float32.

    Args:
        state_dict: What the original saved: bare or as an entry of a checkpoint, with or without DataParallel's prefix.
        origin: A key of ``ORIGINS``.
        options: What the weights alone may not show; ``leejunhyun`` takes ``steps``, the t that R2U_Net was built with.

    Raises:
        ValueError: An unknown origin or option, or weights that are not that origin's.
    """
    return choose("origin", origin, ORIGINS)(plain_state_dict(state_dict), **options).eval()
