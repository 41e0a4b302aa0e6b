"""The exception for mistakes that a user can fix, and the phrases that error messages share.

Commands print the exception's text in one line, without a traceback.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

Entry = TypeVar("Entry")


class UserError(ValueError):
    """A mistake in a config, a file or an argument; the text says what was expected, what came and what to do."""


def some(names: Sequence[object], most: int = 5) -> str:
    """The first names of a list, and how many follow: "a, b and 3 more"."""
    shown = ", ".join(map(str, names[:most]))
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 case", "3 cases"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def closest(name: str, choices: Iterable[str], most: int = 1) -> list[str]:
    """The choices that were probably meant, the likeliest first; capitals do not matter. Empty where none is close."""
    by_lower = {choice.lower(): choice for choice in choices}
    return [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=most, cutoff=0.6)]


def nearest(name: str, choices: Iterable[str], most: int = 1) -> str:
    """The part of an error message that names what was probably meant, or else every choice."""
    choices = list(choices)
    close = closest(name, choices, most)
    return f"did you mean {' or '.join(close)}?" if close else f"valid here: {some(sorted(choices), 20)}"


def entry_of(table: Mapping[str, Entry], name: str, what: str) -> Entry:
    """The entry of a closed set's table.

    Args:
        table: Name -> entry.
        name: The name that was given.
        what: The config key or argument that gave it.

    Raises:
        UserError: The name is unknown; the message lists the valid ones.
    """
    if name not in table:
        raise UserError(f"{what} is {name!r}, which is unknown: give one of {', '.join(table)}")
    return table[name]
