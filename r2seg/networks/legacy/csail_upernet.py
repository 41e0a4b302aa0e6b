"""Weights of ``CSAILVision/semantic-segmentation-pytorch``: its UPerNet decoders, and their encoders.

The ResNets there have a stem of three convolutions, unlike torchvision's: they are our ``resnet50_deep_stem`` and the like. A
decoder on torchvision's own ResNet-50 or 101 is recognised as well. A decoder alone gets an encoder with random weights.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from torch import Tensor

from r2seg.networks.legacy.renaming import below, count, encoder_entries, fill, renamed, resnet_depths
from r2seg.networks.upernet import UPerNet

logger = logging.getLogger(__name__)

POOL_SIZES = (1, 2, 3, 6)  # the weights do not show them; the original has no others
_RESNETS: dict[tuple[int, ...], str] = {(3, 4, 6, 3): "resnet50", (3, 4, 23, 3): "resnet101"}


def convert(state_dict: Mapping[str, Tensor]) -> UPerNet:
    """Return the network of a state dict: ``encoder.*`` and ``decoder.*`` as in a SegmentationModule, or a decoder's alone.

    The original's files are separate: give {"encoder": ..., "decoder": ...}. Its softmax is not part of the network.

    Raises:
        ValueError: Another encoder or decoder, or entries that are missing or do not fit.
    """
    decoder = below(state_dict, "decoder.") or dict(state_dict)
    # Buffers of its synchronised BatchNorm that only its own training uses.
    decoder = {
        name: value for name, value in decoder.items() if not name.rpartition(".")[2].startswith(("_tmp", "_running"))
    }
    num_pools, num_laterals = (count(decoder, f"{of}.{{}}.0.weight".format) for of in ("ppm_conv", "fpn_in"))
    if (num_pools, num_laterals) != (len(POOL_SIZES), 3) or "conv_last.1.weight" not in decoder:
        raise ValueError(
            f"these weights have {num_pools} ppm_conv and {num_laterals} fpn_in: give a UPerNet decoder of csail-upernet, "
            f"with {len(POOL_SIZES)} and 3"
        )
    theirs = below(state_dict, "encoder.")
    backbone = _backbone(theirs) if theirs else "resnet50"
    absent = () if theirs else ("encoder",)
    if absent:
        logger.warning("these weights are those of a decoder alone: its encoder, a %s, keeps random weights", backbone)
    modules = {"ppm_last_conv": "decoder.deepest", "conv_last.0": "decoder.fuse"}
    modules |= {f"fpn_in.{index}": f"decoder.laterals.{index}" for index in range(num_laterals)}
    modules |= {f"fpn_out.{index}.0": f"decoder.smooths.{index}" for index in range(num_laterals)}
    layers = {f"{old}.{layer}": f"{new}.{layer}" for old, new in modules.items() for layer in (0, 1)}
    for index in range(num_pools):
        layers |= {
            f"ppm_conv.{index}.{layer}": f"decoder.pooling.pools.{index}.{name}"
            for layer, name in enumerate(("conv", "norm"))
        }
    network = UPerNet(
        2,
        theirs["conv1.weight"].shape[1] if theirs else 3,
        decoder["conv_last.1.weight"].shape[0],
        backbone=backbone,
        pyramid_channels=decoder["ppm_last_conv.0.weight"].shape[0],
        pool_channels=decoder["ppm_conv.0.0.weight"].shape[0],
        pool_sizes=list(POOL_SIZES),
    )
    encoder = encoder_entries(backbone, theirs)
    fill(network, renamed(decoder, layers | {"conv_last.1": "head"}) | encoder, "csail-upernet", absent=absent)
    return network


def _backbone(theirs: Mapping[str, Tensor]) -> str:
    name = _RESNETS.get(resnet_depths(theirs))
    if name is None or "layer1.0.conv3.weight" not in theirs:
        raise ValueError(
            "the encoder of these weights is none of csail-upernet's ResNet-50, ResNet-101 and ResNeXt-101: give one of "
            "those, or only the decoder"
        )
    if theirs["layer1.0.conv2.weight"].shape[1] == 4:  # 32 groups of 4 channels
        name = "resnext101_32x4d"
    deep = theirs["conv1.weight"].shape[2:] == (3, 3)
    return f"{name}_deep_stem" if deep else name
