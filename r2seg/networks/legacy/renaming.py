"""What the modules of several origins need to bring a state dict under our names and read options off it."""

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
    """Return the entries of the layers named, each under its layer's new name; a layer that is absent gives none."""
    found = {}
    for old, new in modules.items():
        found |= {f"{new}.{entry}": value for entry, value in below(state_dict, f"{old}.").items() if "." not in entry}
    return found


def encoder_entries(backbone: str, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the entries of a network's ``encoder``, from tensors under torchvision's names; the classifier is left out."""
    with torch.device("meta"):  # for its names only
        names = TorchvisionEncoder(backbone).torchvision_names()
    return {f"encoder.{ours}": state_dict[name] for ours, name in names.items() if name in state_dict}


def count(state_dict: Mapping[str, Tensor], name: Callable[[int], str]) -> int:
    """Return how many of name(0), name(1), ... there are in a row."""
    index = 0
    while name(index) in state_dict:
        index += 1
    return index


def fill(
    network: SegmentationNetwork, converted: Mapping[str, Tensor], origin: str, *, absent: tuple[str, ...] = ()
) -> None:
    """Load what was converted; only parts named in ``absent`` may be missing.

    Raises:
        ValueError: Entries that are missing or do not fit; they are named as ours.
    """
    try:
        load_weights(network, converted, reset=absent)
    except ValueError as error:
        raise ValueError(f"these are no weights of {origin} as they are known here: {error}") from error
