"""Section ``data.labels``: the names of the foreground labels and what they are in the files."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from r2seg.config.schema.base import InWords, shown


def _one_or_many(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    if not isinstance(value, list | tuple):
        raise ValueError(f"{shown(value)}: give a whole number, or a list of them")
    return tuple(value)


# Masks may have 16 bits; what is written has 8.
LabelValue = Annotated[int, Field(ge=1, le=65535)]

LabelValues = Annotated[tuple[LabelValue, ...], BeforeValidator(_one_or_many)]

# Label maps are written as uint8.
_LARGEST_WRITTEN = 255

# Class indices are uint8 with 0 for background and 255 for ignored pixels.
_MOST_LABELS = 254


def _distinct_labels(labels: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The labels, if each has a name, values of its own, and a first value that can be written."""
    if not labels:
        raise ValueError("name at least one label, such as {lung: 1}")
    if len(labels) > _MOST_LABELS:
        raise ValueError(f"{len(labels)} labels: at most {_MOST_LABELS} fit a label map beside background and ignored")
    taken: dict[int, str] = {}
    for name, values in labels.items():
        if not name.strip():
            raise ValueError("a label has an empty name")
        if not values:
            raise ValueError(f"{name} has no value")
        for value in values:
            if value in taken:
                both = (
                    f"{name} holds {value} twice"
                    if taken[value] == name
                    else f"{taken[value]} and {name} both take the value {value}"
                )
                raise ValueError(both)
            taken[value] = name
    for name, values in labels.items():
        if values[0] > _LARGEST_WRITTEN:
            free = next(value for value in (255, *range(1, 255)) if value not in taken)
            raise ValueError(
                f"{name} is {values[0]}, but predictions are written with 8 bits: put the value to write first, such as "
                f"{name}: {[free, *values]}"
            )
    return labels


Labels = Annotated[
    dict[str, LabelValues],
    AfterValidator(_distinct_labels),
    InWords("names, each with a whole number from 1 to 65535, or a list of them"),
]
