"""Networks: pure torch modules behind one contract. They know no config, file or command.

A network is one file and one line in ``NETWORKS``; its constructor's signature is its options' schema.
"""

from __future__ import annotations

import difflib
import inspect
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from r2seg.networks.backboned_unet import BackbonedUNet
from r2seg.networks.base import SHARED_OPTIONS, Encoder, SegmentationNetwork
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
        ValueError: An unknown name or option (the nearest ones are named), or a value that does not fit.
    """
    check_options(name, options)
    return NETWORKS[name](spatial_dims, in_channels, out_channels, **options)


def network_options(name: str) -> dict[str, inspect.Parameter]:
    """Return a network's own options, without building it: its signature less the three arguments all networks share.

    The parameters' annotations are types, not text.

    Raises:
        ValueError: An unknown name; the nearest ones are named.
    """
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}{_nearest(name, NETWORKS)}: there are {', '.join(NETWORKS)}")
    maker = NETWORKS[name].__init__
    hints = get_type_hints(maker)
    parameters = list(inspect.signature(maker).parameters.values())[1:]  # the first is self
    return {
        parameter.name: parameter.replace(annotation=hints.get(parameter.name, Any))
        for parameter in parameters
        if parameter.name not in SHARED_OPTIONS
    }


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse options that a network does not have, or whose values have another type; nothing is built.

    Raises:
        ValueError: The name or an option is unknown, or a value does not fit; the text names what would.
    """
    known = network_options(name)
    for option, value in options.items():
        if option not in known:
            raise ValueError(f"{name} has no option {option!r}{_nearest(option, known)}: it has {', '.join(known)}")
        hint = known[option].annotation
        if not _fits(value, hint):
            guess = _nearest(value, get_args(hint)) if get_origin(hint) is Literal and isinstance(value, str) else ""
            raise ValueError(f"{name}'s option {option} is {value!r}{guess}: give {_describe(hint)}")


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in arguments)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return isinstance(value, list | tuple) and all(_fits(entry, arguments[0]) for entry in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _describe(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(argument) for argument in arguments)
    if origin is Literal:
        return "one of " + ", ".join(str(choice) for choice in arguments)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"a list, each entry {_describe(arguments[0])}"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
    return words.get(hint, getattr(hint, "__name__", str(hint)))


def _nearest(name: str, names: Iterable[str]) -> str:
    lower = {known.lower(): known for known in names}
    near = [lower[match] for match in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)]
    return f" (did you mean {' or '.join(near)}?)" if near else ""
