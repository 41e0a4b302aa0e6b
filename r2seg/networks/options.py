"""Options of networks: a constructor's signature is their schema, and values are checked against it before anything is built.

How one constructor takes over the options of another, and the choice from a closed set, are here too. Which networks there
are is in the package's ``__init__``.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from r2seg.errors import closest

# What every network is built from; all else are its own options.
SIZES = ("spatial_dims", "in_channels", "out_channels")

Constructor = TypeVar("Constructor", bound=Callable[..., None])


def takes_options_of(*makers: Any) -> Callable[[Constructor], Constructor]:
    """Return a decorator for a constructor that passes its ``**options`` on to other classes: its signature then names them.

    Options are the keyword-only arguments. They come in the order of ``makers``, with the type and default of the first that has
    them, unless the decorated constructor states its own; options that only this one has follow. A ``**options`` of a maker
    itself is left out: what to give there is for the decorated constructor to decide. Only ``__signature__`` and
    ``__annotations__`` are set; a call does what it did.
    """

    def decorate(init: Constructor) -> Constructor:
        own = _typed_parameters(init)
        options: dict[str, inspect.Parameter] = {}
        for maker in makers:
            for parameter in _typed_parameters(maker.__init__):
                if parameter.kind is parameter.KEYWORD_ONLY:
                    options.setdefault(parameter.name, parameter)
        options |= {parameter.name: parameter for parameter in own if parameter.kind is parameter.KEYWORD_ONLY}
        sizes = [parameter for parameter in own if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
        signature = inspect.Signature([*sizes, *options.values()], return_annotation=None)
        typed = [each for each in signature.parameters.values() if each.annotation is not each.empty]
        init.__annotations__ = {**{each.name: each.annotation for each in typed}, "return": None}
        init.__signature__ = signature  # type: ignore[attr-defined]
        return init

    return decorate


def _typed_parameters(function: Callable[..., object]) -> list[inspect.Parameter]:
    """Return a function's parameters with types in place of text as annotations; ``self`` has none."""
    hints = get_type_hints(function)
    parameters = inspect.signature(function).parameters.values()
    return [each.replace(annotation=hints.get(each.name, each.empty)) for each in parameters]


def own_options(network: Any) -> dict[str, inspect.Parameter]:
    """Return a class's own options: its constructor's signature without ``self`` and the three sizes that all networks share.

    The parameters' annotations are types, not text; ``Any`` if there is none.
    """
    parameters = _typed_parameters(network.__init__)[1:]  # the first is self
    return {
        each.name: each.replace(annotation=Any) if each.annotation is each.empty else each
        for each in parameters
        if each.name not in SIZES
    }


def check_values(owner: str, known: Mapping[str, inspect.Parameter], given: Mapping[str, Any]) -> None:
    """Refuse options that are not known, or whose values have another type.

    Args:
        owner: Name of the class, for the message.
        known: Its options, as :func:`own_options` returns them.
        given: Values by option.

    Raises:
        ValueError: An option is unknown or a value does not fit; the text names what would.
    """
    for option, value in given.items():
        if option not in known:
            raise ValueError(f"{owner} has no option {option!r}{_guess(option, known)}: it has {', '.join(known)}")
        hint = known[option].annotation
        if not _fits(value, hint):
            guess = _guess(value, _choices(hint))
            raise ValueError(f"{owner}'s option {option} is {value!r}{guess}: give {_describe(hint)}")


def choose(option: str, value: str, choices: Mapping[str, Any]) -> Any:
    """Return ``choices[value]``.

    Raises:
        ValueError: The value is none of the choices; the nearest one and all of them are named.
    """
    if value not in choices:
        raise ValueError(f"{option} is {value!r}{_guess(value, choices)}: give one of {', '.join(choices)}")
    return choices[value]


def check_positive(**numbers: int | Sequence[int]) -> None:
    """Refuse counts and widths below 1.

    Raises:
        ValueError: One of them, or an entry of a list, is below 1; the text names it.
    """
    for option, value in numbers.items():
        entries = [value] if isinstance(value, int) else list(value)
        if any(entry < 1 for entry in entries):
            raise ValueError(
                f"{option} is {value if isinstance(value, int) else entries}: give {_ABOVE[isinstance(value, int)]}"
            )


_ABOVE = {True: "1 or more", False: "numbers of 1 or more"}


def _guess(value: object, choices: Iterable[str]) -> str:
    close = closest(value, choices) if isinstance(value, str) else []
    return f" (did you mean {close[0]}?)" if close else ""


def _choices(hint: Any) -> list[str]:
    """The names that a hint allows, alone or among other things."""
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return [str(choice) for member in members if get_origin(member) is Literal for choice in get_args(member)]


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
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "keys and values"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"a list, each entry {_describe(arguments[0])}"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a string", type(None): "null"}
    return words.get(hint, getattr(hint, "__name__", str(hint)))
