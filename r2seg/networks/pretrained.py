"""Trained weights of torchvision's backbones: fetched once or read from a file, and copied into a trunk.

Cutting a backbone into a trunk is in ``backbones``; weights of whole networks are in ``weights``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlparse

import torch
import torchvision.models
from torch import Tensor

from r2seg.errors import some
from r2seg.networks.backbones import DEEP_STEMS, Trunk
from r2seg.networks.weights import read_state_dict

logger = logging.getLogger(__name__)


def load_pretrained(trunk: Trunk, backbone: str, in_channels: int, file: Path | None = None) -> None:
    """Copy torchvision's weights of a backbone into its trunk.

    Args:
        trunk: Changed in place, and only if everything fits.
        backbone: Torchvision's name of it.
        in_channels: Channels of the image; a stem trained on three is adapted to them.
        file: A state dict of the same model in a file; None takes torchvision's default weights, fetched once.

    Raises:
        ValueError: The weights cannot be fetched or read, or do not fit; what differs is named.
    """
    state = current_names(fetch_weights(backbone) if file is None else read_state_dict(file))
    own, names = trunk.state_dict(), trunk.torchvision_names()
    stem = next(key for key, tensor in own.items() if tensor.ndim == 4)
    values = {key: state[name] for key, name in names.items() if name in state}
    if stem in values and values[stem].shape[1] == 3:
        values[stem] = adapt_stem(values[stem], in_channels)
    misfits = [
        f"{names[key]} {tuple(values[key].shape)} instead of {tuple(tensor.shape)}"
        if key in values
        else f"{names[key]} missing"
        for key, tensor in own.items()
        if not ((key in values and values[key].shape == tensor.shape) or key.endswith("num_batches_tracked"))
    ]
    if misfits:
        raise ValueError(
            f"{file or 'the file of torchvision'} does not fit torchvision's {backbone}: {some(misfits, 3)}: "
            f"give a state dict of torchvision.models.{backbone}"
        )
    with torch.no_grad():  # not load_state_dict: a plain dict lacks the version that MNASNet asks for
        for key, value in values.items():
            own[key].copy_(value)


def fetch_weights(backbone: str) -> dict[str, Tensor]:
    """Return torchvision's default weights of a backbone, from torch's hub folder or, once, from their address.

    Raises:
        ValueError: Torchvision has none, or they cannot be fetched; the text says where to place the file by hand.
    """
    if backbone in DEEP_STEMS:
        raise ValueError(
            f"torchvision has no weights of {backbone}: set pretrained: PATH to a file of CSAIL's, or to false"
        )
    weights = torchvision.models.get_model_weights(backbone).DEFAULT
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(weights.url).path).name
    if not file.exists():
        # A warning, so that it is seen even if no logging is set up: a download must not come as a surprise.
        logger.warning("fetching the ImageNet weights of %s, %s, once into %s", backbone, weights.url, file.parent)
        try:
            weights.get_state_dict(progress=False, check_hash=True, weights_only=True, map_location="cpu")
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"the weights of {backbone} could not be fetched ({error}): download {weights.url} on a machine with network "
                f"access and put the file {file.name} into {file.parent}, or set pretrained: PATH to the file"
            ) from error
    return read_state_dict(file)


def current_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a torchvision state dict under today's names: files of DenseNets are older than the code that renamed norm.1 to norm1."""
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", name): value for name, value in state.items()}


def adapt_stem(weight: Tensor, in_channels: int) -> Tensor:
    """Return the first convolution's weights of a network trained on RGB, for images of another number of channels.

    One channel: summed over RGB, so that a grey image gives the features that three equal channels gave. Others: repeated in
    turn and scaled by 3 / in_channels, so that the sum keeps its size.

    Shape: (K, 3, *kernel) -> (K, in_channels, *kernel).
    """
    if in_channels == 1:
        return weight.sum(1, keepdim=True)
    if in_channels == 3:
        return weight
    return weight[:, [channel % 3 for channel in range(in_channels)]] * (3 / in_channels)
