"""Networks: pure torch modules behind one contract. They know no config, file or command.

A network is one file and one line in ``NETWORKS``; its constructor's signature is its options' schema.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from r2seg.networks.act_norm import canonical_act, canonical_norm
from r2seg.networks.backboned_unet import BackbonedUNet
from r2seg.networks.base import Encoder, SegmentationNetwork
from r2seg.networks.options import check_values, choose, own_options
from r2seg.networks.r2unet import AttentionR2UNet, R2UNet, RUNet
from r2seg.networks.ternausnet import TernausNet
from r2seg.networks.unet import AttentionUNet, PlainUNet, ResidualUNet
from r2seg.networks.upernet import UPerNet

NETWORKS: dict[str, type[SegmentationNetwork]] = {
    "PlainUNet": PlainUNet,
    "ResidualUNet": ResidualUNet,
    "AttentionUNet": AttentionUNet,
    "RUNet": RUNet,
    "R2UNet": R2UNet,
    "AttentionR2UNet": AttentionR2UNet,
    "BackbonedUNet": BackbonedUNet,
    "TernausNet": TernausNet,
    "UPerNet": UPerNet,
}

__all__ = [
    "NETWORKS",
    "Encoder",
    "SegmentationNetwork",
    "build_network",
    "check_options",
    "network_options",
    *NETWORKS,
]


def build_network(
    name: str, *, spatial_dims: int, in_channels: int, out_channels: int, **options: Any
) -> SegmentationNetwork:
    """Return a new network by its name.

    Args:
        name: A key of ``NETWORKS``.
        spatial_dims: 2 or 3.
        in_channels: Channels of the image.
        out_channels: Channels of the logits.
        options: The class's own options.

    Raises:
        ValueError: An unknown name or option (the nearest one is named), or a value that does not fit.
    """
    check_options(name, options)
    return NETWORKS[name](spatial_dims, in_channels, out_channels, **options)


def network_options(name: str) -> dict[str, inspect.Parameter]:
    """Return a network's own options, without building it: its signature minus the three arguments all networks share.

    The parameters' annotations are types, not text.

    Raises:
        ValueError: An unknown name; the nearest one is named.
    """
    return own_options(choose("network", name, NETWORKS))


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse options that a network does not have, or whose values have another type; nothing is built.

    Raises:
        ValueError: The name or an option is unknown, or a value does not fit; the text names what would.
    """
    known = {key: _FORMS[key](value) if key in _FORMS else value for key, value in options.items()}
    check_values(name, network_options(name), known)


# Options that have several forms, with the function that gives the one that is checked.
_FORMS = {"act": canonical_act, "norm": canonical_norm, "decoder_norm": canonical_norm}
