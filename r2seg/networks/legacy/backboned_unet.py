"""Weights of ``mkisantal/backboned-unet``: ``Unet`` on ResNet, VGG with BatchNorm and DenseNet, in both ways of upsampling."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from r2seg.networks.backboned_unet import BackbonedUNet
from r2seg.networks.legacy.renaming import below, count, encoder_entries, fill, renamed, resnet_depths
from r2seg.networks.pretrained import current_names

NUM_BLOCKS = 5
_BASIC: dict[tuple[int, ...], str] = {(2, 2, 2, 2): "resnet18", (3, 4, 6, 3): "resnet34"}
_BOTTLENECK: dict[tuple[int, ...], str] = {
    (3, 4, 6, 3): "resnet50",
    (3, 4, 23, 3): "resnet101",
    (3, 8, 36, 3): "resnet152",
}
_DENSENETS = {24: "densenet121", 36: "densenet161", 32: "densenet169", 48: "densenet201"}  # layers of the third block
_VGGS = {13: "vgg16_bn", 16: "vgg19_bn"}  # convolutions


def convert(state_dict: Mapping[str, Tensor]) -> BackbonedUNet:
    """Return the network of a state dict, which shows the backbone and the options.

    Raises:
        ValueError: Another backbone, or entries that are missing or do not fit.
    """
    theirs = below(state_dict, "backbone.")
    backbone, path = _backbone(theirs)
    num_blocks = count(state_dict, lambda index: f"upsample_blocks.{index}.conv2.weight")
    if num_blocks != NUM_BLOCKS or "final_conv.weight" not in state_dict:
        raise ValueError(
            f"these weights have {num_blocks} upsample_blocks: give a state dict of backboned-unet's Unet, with "
            f"{NUM_BLOCKS} and a final_conv"
        )
    deconv = "upsample_blocks.0.up.weight" in state_dict
    if deconv:
        layers = {"up": "up.0", "bn1": "up.1", "conv2": "convs.0.0", "bn2": "convs.0.1"}
    else:
        layers = {"conv1": "convs.0.0", "bn1": "convs.0.1", "conv2": "convs.1.0", "bn2": "convs.1.1"}
    modules = {
        f"upsample_blocks.{index}.{old}": f"decoder.{index}.{new}"
        for index in range(NUM_BLOCKS)
        for old, new in layers.items()
    }
    stem = next(value for value in theirs.values() if value.ndim == 4)
    network = BackbonedUNet(
        2,
        stem.shape[1],
        state_dict["final_conv.weight"].shape[0],
        backbone=backbone,
        decoder_channels=[state_dict[f"upsample_blocks.{index}.conv2.weight"].shape[0] for index in range(NUM_BLOCKS)],
        upsample="deconv" if deconv else "bilinear",
        decoder_norm="batch" if "upsample_blocks.0.bn1.weight" in state_dict else "none",
    )
    encoder = encoder_entries(backbone, {f"{path}{name}": value for name, value in current_names(theirs).items()})
    fill(network, renamed(state_dict, modules | {"final_conv": "head"}) | encoder, "backboned-unet")
    return network


def _backbone(theirs: Mapping[str, Tensor]) -> tuple[str, str]:
    """Return torchvision's name of the backbone, and what torchvision's names of its layers begin with."""
    name, path = None, ""
    if "layer1.0.conv1.weight" in theirs:
        name = (_BOTTLENECK if "layer1.0.conv3.weight" in theirs else _BASIC).get(resnet_depths(theirs))
    elif "conv0.weight" in theirs:
        layers = count(current_names(theirs), lambda index: f"denseblock3.denselayer{index + 1}.conv1.weight")
        name, path = _DENSENETS.get(layers), "features."
    elif "0.weight" in theirs:
        name, path = _VGGS.get(sum(value.ndim == 4 for value in theirs.values())), "features."
    if name is None:
        raise ValueError(
            "these weights have no backbone of backboned-unet that is known here: give those of a Unet on ResNet, VGG with "
            "BatchNorm or DenseNet"
        )
    return name, path
