"""Weights of ``ternaus/TernausNet``: UNet11, and UNet16 with either way of upsampling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from r2seg.networks.legacy.renaming import below, encoder_entries, fill, renamed
from r2seg.networks.ternausnet import TernausNet

_VGGS: dict[int, Any] = {8: "vgg11", 13: "vgg16"}  # convolutions
_BLOCKS = ("center", "dec5", "dec4", "dec3", "dec2")


def convert(state_dict: Mapping[str, Tensor]) -> TernausNet:
    """Return the network of a state dict. The original lists its encoder's layers twice, as ``encoder`` and as ``conv1`` ...

    Raises:
        ValueError: Another network, or entries that are missing or do not fit.
    """
    theirs = below(state_dict, "encoder.")
    backbone = _VGGS.get(sum(value.ndim == 4 for value in theirs.values()))
    if backbone is None or not {"center.block.1.weight", "center.block.1.conv.weight"} & set(state_dict):
        raise ValueError("these are not weights of TernausNet: give a state dict of its UNet11 or UNet16")
    deconv = "center.block.0.conv.weight" in state_dict
    layers = {"0.conv": "0", "1": "3"} if deconv else {"1.conv": "1", "2.conv": "4"}
    modules = {
        f"{block}.block.{old}": f"decoder.{index}.{new}"
        for index, block in enumerate(_BLOCKS)
        for old, new in layers.items()
    }
    network = TernausNet(
        2,
        theirs["0.weight"].shape[1],
        state_dict["final.weight"].shape[0],
        backbone=backbone,
        num_filters=state_dict["dec1.conv.weight"].shape[0],
        upsample="deconv" if deconv else "bilinear",
    )
    encoder = encoder_entries(backbone, {f"features.{name}": value for name, value in theirs.items()})
    fill(network, renamed(state_dict, modules | {"dec1.conv": "last.0", "final": "head"}) | encoder, "ternausnet")
    return network
