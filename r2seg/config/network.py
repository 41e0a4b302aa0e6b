"""The ``network`` section against the networks' own signatures, and the network it describes.

The networks (and torch) are imported when a function here is called, not with the module.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from r2seg.config.schema import Config, Network, Problem, shown
from r2seg.errors import UserError, nearest

if TYPE_CHECKING:
    from r2seg.networks.base import SegmentationNetwork

# Keys of ``network`` that the config sets itself and no one may write.
_DERIVED = ("in_channels", "out_channels")


def network_problems(document: Mapping[str, Any]) -> list[Problem]:
    """Mistakes in ``network``, found by the class's own signature; the document may have other mistakes too."""
    section, window = document.get("network", {}), document.get("window")
    name = section.get("name", Network.model_fields["name"].default) if isinstance(section, Mapping) else None
    if not isinstance(name, str):
        return []
    from r2seg.networks import NETWORKS, network_options

    if name not in NETWORKS:
        return [(("network", "name"), f"{name!r} is not a network; {nearest(name, NETWORKS)}")]
    size = _window_size(window.get("size") if isinstance(window, Mapping) else None)
    dims = NETWORKS[name].supported_spatial_dims
    problems: list[Problem] = []
    if size and len(size) not in dims:
        text = f"{size} is {len(size)}-D and {name} is {dims[0]}-D only: give {_WORDS[dims[0]]} numbers"
        problems.append((("window", "size"), text))
    valid = [*Network.model_fields, *network_options(name)]
    options = {str(key): value for key, value in section.items() if key not in Network.model_fields}
    for key, value in options.items():
        if problem := _option_problem(name, key, value, valid, size):
            problems.append((("network", key), problem))
    if problems:
        return problems
    options = {key: value for key, value in options.items() if key not in ("spatial_dims", "pretrained")}
    return _build_problems(name, options, size, dims)


_WORDS = {2: "two", 3: "three"}


def _window_size(size: Any) -> list[int] | None:
    """The document's window size where it is one: two or three whole numbers above 0."""
    valid = isinstance(size, list) and len(size) in _WORDS and all(type(n) is int and n > 0 for n in size)
    return size if valid else None


def _option_problem(name: str, key: str, value: Any, valid: Sequence[str], size: list[int] | None) -> str | None:
    """What is wrong with one key of ``network``; None where nothing is."""
    from r2seg.networks import check_options

    if key == "spatial_dims":
        if type(value) is not int or value not in _WORDS:
            return f"{shown(value)} is not valid; leave it out, it follows from window.size"
        if size and value != len(size):
            return (
                f"{value}, but window.size {size} is {len(size)}-D: give window.size {_WORDS[value]} numbers, "
                f"or set network.spatial_dims: {len(size)}"
            )
        return None
    if key in _DERIVED:
        return "follows from the data and its labels: leave it out"
    if key not in valid:
        return f"{name} has no such option; {nearest(key, valid)}"
    if _not_finite(value):
        return f"{shown(value)}: give a finite number"
    try:
        check_options(name, {key: value})
    except ValueError as error:
        return str(error)
    return None


def _build_problems(
    name: str, options: Mapping[str, Any], size: list[int] | None, dims: Sequence[int]
) -> list[Problem]:
    """What the network itself refuses when it is built with these options, and whether it takes the window."""
    import torch

    from r2seg.networks import build_network

    try:
        with torch.device("meta"):  # costs no memory, and tries every option
            network = build_network(name, spatial_dims=len(size or dims), in_channels=1, out_channels=2, **options)
    except Exception as error:  # torch raises many types for numbers that make no network
        named = next((key for key in options if re.search(rf"\b{re.escape(key)}\b", str(error))), None)
        known = isinstance(error, ValueError | TypeError)
        text = str(error) if known else f"these options make no {name} ({type(error).__name__}: {error})"
        return [(("network", named) if named else ("network",), text)]
    if size and any(given < least for given, least in zip(size, network.least_size, strict=True)):
        text = f"{size} is too small for this {name}, which needs {list(network.least_size)} or more"
        return [(("window", "size"), text)]
    return []


def _not_finite(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_not_finite, value))
    if isinstance(value, Mapping):
        return any(map(_not_finite, value.values()))
    return isinstance(value, float) and not math.isfinite(value)


def with_network_defaults(config: Config) -> Config:
    """The config with every option of its network written out, so that a later version's other defaults do not change it."""
    from r2seg.networks import network_options

    defaults = {key: option.default for key, option in network_options(config.network.name).items()}
    given = config.network.model_dump()
    return config.model_copy(update={"network": Network.model_validate({**given, **defaults, **given})})


def build_configured_network(config: Config, in_channels: int, *, pretrained: bool = False) -> SegmentationNetwork:
    """The network of a config for images of so many channels.

    Args:
        config: Its network, window and labels decide the network.
        in_channels: Channels of a case's image; with ``window.neighbours``, the network has those of each slice that it sees.
        pretrained: Honour the config's ``network.pretrained``. Only training does: a trained run has its own weights.

    Raises:
        UserError: An option or a combination that the network refuses.
    """
    from r2seg.networks import build_network

    options = {key: value for key, value in config.network.options.items() if key != "spatial_dims"}
    if not pretrained:
        options.pop("pretrained", None)
    try:
        return build_network(
            config.network.name,
            spatial_dims=config.spatial_dims,
            in_channels=in_channels * config.window.num_slices,
            out_channels=config.out_channels,
            **options,
        )
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from error
