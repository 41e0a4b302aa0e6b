"""Activations and normalizations by name, in our form or in MONAI's: a name, or a name with the arguments of torch's layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from torch import nn

from r2seg.networks.options import choose

# A name in any letter case, or MONAI's form: the name and the arguments of torch's layer.
_WithArguments = Sequence[str | Mapping[str, Any]]
Act = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "prelu"] | _WithArguments
Norm = Literal["batch", "instance", "group", "none"] | _WithArguments | None

# Layer, and whether it may overwrite its input: where the gradient follows from the output, the backward pass then keeps one map
# fewer.
_ACTS: dict[str, tuple[type[nn.Module], bool]] = {
    "relu": (nn.ReLU, True),
    "leaky_relu": (nn.LeakyReLU, True),
    "elu": (nn.ELU, True),
    "gelu": (nn.GELU, False),
    "silu": (nn.SiLU, False),
    "prelu": (nn.PReLU, False),
}
_NORMS = ("batch", "instance", "group", "none")


def canonical(value: Any, names: Iterable[str]) -> Any:
    """Return an activation or normalization with its name as it stands in ``names``; other values unchanged.

    Letter case and underscores do not matter, None is "none", and MONAI's form (name, {argument: value}) stays a pair.
    """
    if value is None:
        return "none"
    if isinstance(value, str):
        by_plain = {name.replace("_", ""): name for name in names}
        return by_plain.get(value.lower().replace("_", ""), value)
    if isinstance(value, list | tuple) and len(value) in (1, 2) and isinstance(value[0], str):
        if not all(isinstance(each, Mapping) for each in value[1:]):
            return value
        name = canonical(value[0], names)
        return (name, value[1]) if value[1:] and value[1] else name
    return value


def canonical_act(act: Any) -> Any:
    """Return an activation in the form that the table has, see `canonical`."""
    return act if act is None else canonical(act, _ACTS)


def canonical_norm(norm: Any) -> Any:
    """Return a normalization in the form that the table has, see `canonical`."""
    return canonical(norm, _NORMS)


def norm_name(norm: Norm) -> str:
    """Return the name of a normalization given in any form: "none" if there is none."""
    return _name_and_arguments("norm", canonical_norm(norm))[0]


def _name_and_arguments(option: str, value: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(value, tuple) and len(value) == 2:
        return value[0], dict(value[1])
    if not isinstance(value, str):
        raise ValueError(f"{option} is {value!r}: give a name, or a name and the arguments of its layer")
    return value, {}


def make_act(act: Act, *, inplace: bool = False) -> nn.Module:
    """Return an activation; it works in place if ``inplace`` is set and its gradient allows it.

    Raises:
        ValueError: The name is unknown, or the arguments do not fit.
    """
    name, arguments = _name_and_arguments("act", canonical_act(act))
    layer, may_be_inplace = choose("act", name, _ACTS)
    arguments.pop("inplace", None)  # where it is possible depends on what comes before
    return _fitting(
        "act", name, arguments, lambda: layer(**arguments, **({"inplace": inplace} if may_be_inplace else {}))
    )


def make_norm(spatial_dims: int, channels: int, norm: Norm) -> nn.Module:
    """Return a normalization with learned scale and shift; ``group`` takes at most 8 groups, of two channels or more.

    Raises:
        ValueError: The name is unknown, or the arguments do not fit.
    """
    name, arguments = _name_and_arguments("norm", canonical_norm(norm))
    groups = {"num_groups": math.gcd(channels, min(8, max(1, channels // 2)))}
    makers = {
        "batch": lambda: (nn.BatchNorm2d, nn.BatchNorm3d)[spatial_dims - 2](channels, **arguments),
        "instance": lambda: (nn.InstanceNorm2d, nn.InstanceNorm3d)[spatial_dims - 2](
            channels, **{"affine": True, **arguments}
        ),
        "group": lambda: nn.GroupNorm(num_channels=channels, **{**groups, **arguments}),
        "none": lambda: nn.Identity(),
    }
    return _fitting("norm", name, arguments, choose("norm", name, makers))


def _fitting(option: str, name: str, arguments: Mapping[str, Any], make: Callable[[], nn.Module]) -> nn.Module:
    """Return what ``make`` makes.

    Raises:
        ValueError: The arguments do not fit.
    """
    if not arguments:
        return make()
    try:
        return make()
    except (TypeError, ValueError, ZeroDivisionError, RuntimeError) as error:
        raise ValueError(f"{option} {name} does not take {dict(arguments)}: {error}") from error


def groups_within(norm: Norm, channels: int) -> Norm:
    """Return a normalization whose given number of groups divides the channels."""
    name, arguments = _name_and_arguments("norm", canonical_norm(norm))
    groups = arguments.get("num_groups")
    if name != "group" or not isinstance(groups, int) or groups < 1:
        return norm
    return name, {**arguments, "num_groups": math.gcd(groups, channels)}
