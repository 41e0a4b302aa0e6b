"""Types of settings in plain words: "whole number, 1 or more", not ``Annotated[int, Gt(0)]``.

For the schema's fields and for the options of networks alike. The page that shows them is made in reference.py.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen

from r2seg.config.schema import Section
from r2seg.config.schema.base import InWords

_WORDS: dict[Any, str] = {
    str: "text",
    bool: "true or false",
    int: "whole number",
    float: "number",
    Path: "path",
    type(None): "null",
    Any: "any value",
}
_MANY: dict[Any, str] = {str: "texts", int: "whole numbers", float: "numbers", Path: "paths"}


def in_words(hint: Any, metadata: Iterable[Any] = ()) -> str:
    """A type and its bounds in words.

    Args:
        hint: A type, or a form of ``typing``.
        metadata: Bounds that stand beside it, as pydantic keeps them; those inside an ``Annotated`` are found there.
    """
    metadata = list(metadata)
    while get_origin(hint) is Annotated:
        hint, *inner = get_args(hint)
        metadata = [*_flat(inner), *metadata]
    for each in metadata:
        if isinstance(each, InWords):
            return each.text
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        members = [member for member in arguments if not _is_protocol(member)]
        return ", or ".join(dict.fromkeys(map(in_words, sorted(members, key=lambda member: member is type(None)))))
    if origin is Literal:
        names = [f"`{choice}`" for choice in arguments]
        return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
    if isinstance(hint, type) and issubclass(hint, Section):
        return "keys and values, see below"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "keys and values" if arguments[1] is Any else f"names, each with {_article(in_words(arguments[1]))}"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return _list(arguments[0], metadata)
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint))) + _bounds(metadata, whole=hint is int)


def _is_protocol(hint: Any) -> bool:
    """Whether a type is for Python only: no config can hold such an object."""
    return bool(getattr(hint, "_is_protocol", False))


def _flat(metadata: Iterable[Any]) -> list[Any]:
    """Bounds, also those that a pydantic ``Field`` inside ``Annotated`` holds."""
    return [bound for each in metadata for bound in getattr(each, "metadata", None) or [each]]


def _article(words: str) -> str:
    return words if words.endswith("s") else f"a {words}"


def _list(member: Any, metadata: Sequence[Any]) -> str:
    """A list of what, and of how many."""
    least = next((each.min_length for each in metadata if isinstance(each, MinLen)), None)
    most = next((each.max_length for each in metadata if isinstance(each, MaxLen)), None)
    count = ""
    if least is not None:
        count = f"{least} " if least == most else f"{least} to {most} " if most else f"{least} or more "
    bounds: list[Any] = []
    kind = member
    while get_origin(kind) is Annotated:
        kind, *inner = get_args(kind)
        bounds += _flat(inner)
    if kind in _MANY:
        return f"list of {count}{_MANY[kind]}{_bounds(bounds, whole=kind is int)}"
    return f"list (each entry: {in_words(member)})"


def _bounds(metadata: Iterable[Any], *, whole: bool) -> str:
    """Bounds of a number, in parentheses."""
    low = high = None
    for each in metadata:
        if isinstance(each, Ge):
            low = f"{each.ge}"
        elif isinstance(each, Gt):
            low = f"{int(each.gt) + 1}" if whole else f"above {each.gt:g}"  # type: ignore[call-overload]
        elif isinstance(each, Le):
            high = f"to {each.le}"
        elif isinstance(each, Lt):
            high = None if whole and each.lt == 2**63 else f"to below {each.lt}"
    if low is None or high is None:
        word = high or (low and (low if low.startswith("above") else f"{low} or more"))
        return f" ({word})" if word else ""
    return f" ({low} {high})"
