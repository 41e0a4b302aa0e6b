"""What the modules of several origins share: bringing a state dict under our names, and reading options off it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from r2seg.networks.base import SegmentationNetwork
from r2seg.networks.torchvision_encoder import TorchvisionEncoder
from r2seg.networks.weights import load_weights


def below(state_dict: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the entries under a prefix such as "backbone.", without it."""
    return {name.removeprefix(prefix): value for name, value in state_dict.items() if name.startswith(prefix)}


def renamed(state_dict: Mapping[str, Tensor], modules: Mapping[str, str]) -> dict[str, Tensor]:
    """Return the entries of the named layers, each under its layer's new name; a layer may be absent."""
    found: dict[str, Tensor] = {}
    for old, new in modules.items():
        found |= {f"{new}.{entry}": value for entry, value in below(state_dict, f"{old}.").items() if "." not in entry}
    return found


def encoder_entries(backbone: str, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the entries of a network's ``encoder``, from tensors under torchvision's names, without the classifier."""
    with torch.device("meta"):  # for its names only
        names = TorchvisionEncoder(backbone).torchvision_names()
    return {f"encoder.{ours}": state_dict[name] for ours, name in names.items() if name in state_dict}


def count(state_dict: Mapping[str, Tensor], name: Callable[[int], str]) -> int:
    """Return how many of name(0), name(1), ... there are, up to the first that is missing."""
    index = 0
    while name(index) in state_dict:
        index += 1
    return index


def resnet_depths(state_dict: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Return the number of blocks in each of a ResNet's four layers."""
    return tuple(count(state_dict, f"layer{layer}.{{}}.conv1.weight".format) for layer in range(1, 5))


def fill(
    network: SegmentationNetwork, converted: Mapping[str, Tensor], origin: str, *, absent: tuple[str, ...] = ()
) -> None:
    """Load what was converted; only parts named in ``absent`` may be missing.

    Raises:
        ValueError: Entries that are missing or do not fit, under our names.
    """
    try:
        load_weights(network, converted, reset=absent)
    except ValueError as error:
        raise ValueError(f"these are not weights of {origin} as known here: {error}") from error
