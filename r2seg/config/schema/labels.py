"""Section ``data.labels``: the names of the foreground labels and what they are in the files.

What a label is to the rest of the program is ``Label`` of r2seg/labels.py: the tuple of its values, with colours and code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from r2seg.config.schema.base import InWords, Names, Section, shown
from r2seg.labels import Code, IgnoreLabel, Label, Rgb, hexadecimal, structures_of

_HEX = re.compile(r"#[0-9a-fA-F]{6}")
_BLACK = (0, 0, 0)


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_color(value: Any) -> bool:
    """Whether this is a list of three whole numbers that can only be a colour: values are never 0 and never repeated."""
    return (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(map(_is_number, value))
        and (0 in value or len(set(value)) < 3)
    )


def _one_or_many(value: Any) -> Any:
    if _is_number(value):
        return (value,)
    if not isinstance(value, list | tuple):
        raise ValueError(f"{shown(value)}: give a whole number, or a list of them")
    return tuple(value)


def _as_color(value: Any) -> Any:
    """A colour as its three numbers, from "#3b82f6" too."""
    if isinstance(value, str) and _HEX.fullmatch(value):
        return tuple(bytes.fromhex(value[1:]))
    if isinstance(value, list | tuple) and len(value) == 3 and all(_is_number(v) and 0 <= v <= 255 for v in value):
        return tuple(value)
    raise ValueError(f"{shown(value)}: give a colour: [128, 0, 0] or '#800000'")


def _as_colors(value: Any) -> Any:
    if isinstance(value, list | tuple) and value and all(isinstance(one, list | tuple | str) for one in value):
        return tuple(_as_color(one) for one in value)
    return (_as_color(value),)


def _as_code(value: Any) -> Any:
    """A code's keys, from "SCT:39607008" too."""
    if not isinstance(value, str):
        return value
    scheme, separator, code = (part.strip() for part in value.partition(":"))
    if not (scheme and separator and code):
        raise ValueError(f"{shown(value)}: give scheme and value, such as 'SCT:39607008'")
    return {"scheme": scheme, "value": code}


# Masks may have 16 bits; what is written has 8.
LabelValue = Annotated[int, Field(ge=1, le=65535)]

LabelValues = Annotated[
    tuple[LabelValue, ...],
    BeforeValidator(_one_or_many),
    InWords("whole number from 1 to 65535, or a list of them"),
]

Color = Annotated[
    Rgb, BeforeValidator(_as_color), InWords("colour: list of 3 whole numbers from 0 to 255, or '#rrggbb'")
]

Colors = Annotated[
    tuple[Rgb, ...],
    BeforeValidator(_as_colors),
    InWords("colour, as list of 3 whole numbers from 0 to 255 or as '#rrggbb', or a list of colours"),
]


class CodeSection(Section):
    """A label in a terminology."""

    scheme: str = Field(
        min_length=1,
        max_length=16,
        description="designator of the terminology, such as SCT (SNOMED CT)",
        examples=["SCT"],
    )
    value: str = Field(
        min_length=1, max_length=64, description="code of the concept in it, in quotes", examples=["39607008"]
    )
    meaning: str = Field(
        "", max_length=64, description="the concept in words; default: the label's name", examples=["Lung"]
    )


class LabelSection(Section):
    """One label. A number or a list of numbers instead of the section is its ``value``, a colour its ``rgb``."""

    value: LabelValues = Field(
        (),
        description="value, or list of values, in the files; the first is written; default, with rgb or structures: the number of the label in the list",
        examples=[1, [1, 2]],
    )
    rgb: Colors = Field(
        (),
        description="colour, or list of colours, that stands for the label in colour masks",
        examples=[[128, 0, 0], "#800000"],
    )
    color: Color | None = Field(
        None,
        description="colour that the label is drawn and written in, such as '#3b82f6'; default: rgb, else a palette's",
        examples=["#3b82f6"],
    )
    code: Annotated[
        CodeSection | None, BeforeValidator(_as_code), InWords("text, or keys and values, see below, or null")
    ] = Field(
        None,
        description="what the label is in a terminology, for DICOM: scheme, value and meaning, or 'SCT:39607008'",
        examples=["SCT:39607008", {"scheme": "SCT", "value": "39607008", "meaning": "Lung"}],
    )
    structures: Names = Field(
        (),
        description="names of the structures (RTSTRUCT) and segments (DICOM-SEG, 3D Slicer) that together are this label; default: the "
        "label's name",
        examples=[["Lung_L", "Lung_R"]],
    )


def _as_section(value: Any) -> Any:
    """One label as the keys of its section, from its short forms too."""
    if isinstance(value, LabelSection):
        return value
    if isinstance(value, Label):
        return plain_label(value, short=False)
    if isinstance(value, Mapping):
        return dict(value)
    if _is_color(value):
        if max(value) > 255 or min(value) < 0:
            raise ValueError(
                f"{shown(list(value))}: a colour has three numbers from 0 to 255, and values are at least 1"
            )
        return {"rgb": value}
    return {"value": _one_or_many(value)}


def _as_label(section: LabelSection) -> Label:
    code = None if section.code is None else Code(section.code.scheme, section.code.value, section.code.meaning)
    return Label(section.value, rgb=section.rgb, color=section.color, code=code, structures=section.structures)


def plain_label(label: tuple[int, ...], *, short: bool = True) -> Any:
    """A label as YAML holds it: its value or values, or its section if it has more than these.

    Args:
        label: The label, or a tuple of values.
        short: Whether a label that has nothing but values is a number or a list.
    """
    values = label[0] if len(label) == 1 else list(label)
    more: dict[str, Any] = {}
    if isinstance(label, Label):
        if label.rgb:
            more["rgb"] = list(label.rgb[0]) if len(label.rgb) == 1 else [list(color) for color in label.rgb]
        if label.color:
            more["color"] = hexadecimal(label.color)
        if label.code:
            more["code"] = {name: text for name, text in label.code._asdict().items() if text}
        if label.structures:
            more["structures"] = list(label.structures)
    return values if short and not more else {"value": values, **more}


# Label maps are written as uint8.
_LARGEST_WRITTEN = 255

# Class indices are uint8 with 0 for background and 255 for ignored pixels.
_MOST_LABELS = 254


def _with_defaults(labels: dict[str, Label]) -> dict[str, Label]:
    """The labels with every value: a label that only has colours or structures takes its number in the list."""
    return {
        name: label
        if label or not (label.rgb or label.structures)
        else Label((number,), rgb=label.rgb, color=label.color, code=label.code, structures=label.structures)
        for number, (name, label) in enumerate(labels.items(), start=1)
    }


def _distinct_labels(labels: dict[str, Label]) -> dict[str, Label]:
    """The labels, if each has a name, values and colours of its own, and a first value that can be written."""
    if not labels:
        raise ValueError("name at least one label, such as {lung: 1}")
    owners: dict[str, str] = {}
    for name, structures in structures_of(labels).items():
        for structure in structures:
            other = owners.setdefault(structure.strip().casefold(), name)
            if other != name and (labels[name].structures or labels[other].structures):
                raise ValueError(f"{other} and {name} both have the structure {structure!r}")
    if len(labels) > _MOST_LABELS:
        raise ValueError(f"{len(labels)} labels: at most {_MOST_LABELS} fit a label map beside background and ignored")
    given = {name for name, label in labels.items() if label}
    labels = _with_defaults(labels)
    taken: dict[int, str] = {}
    for name, values in labels.items():
        if not name.strip():
            raise ValueError("a label has an empty name")
        if not values:
            raise ValueError(f"{name} has no value: give value, rgb for masks in colours, or structures")
        for value in values:
            if value in taken:
                both = (
                    f"{name} holds {value} twice"
                    if taken[value] == name
                    else f"{taken[value]} and {name} both take the value {value}"
                )
                # Labels that only have colours or structures are numbered.
                numbered = [other for other in (taken[value], name) if other not in given]
                if numbered:
                    both += f", the number of {numbered[-1]} in the list: give {numbered[-1]} another value beside its rgb or structures"
                raise ValueError(both)
            taken[value] = name
    for name, values in labels.items():
        if values[0] > _LARGEST_WRITTEN:
            free = next(value for value in (255, *range(1, 255)) if value not in taken)
            raise ValueError(
                f"{name} is {values[0]}, but predictions are written with 8 bits: put the value to write first, such as "
                f"{name}: {[free, *values]}"
            )
    _refuse_shared_colors(labels)
    return labels


def _refuse_shared_colors(labels: Mapping[str, Label]) -> None:
    """Refuses a colour that two labels have, and black, which is background."""
    read: dict[Rgb, str] = {}
    drawn: dict[Rgb, str] = {}
    for name, label in labels.items():
        for color in label.rgb:
            if color == _BLACK:
                raise ValueError(f"{name} has the colour [0, 0, 0]: black is background")
            if color in read:
                raise ValueError(f"{read[color]} and {name} both have the colour {list(color)}"
                                 if read[color] != name else f"{name} holds the colour {list(color)} twice")  # fmt: skip
            read[color] = name
        if label.color == _BLACK:
            raise ValueError(f"{name} has the color '#000000': black is background, so the label would not be seen")
        if label.color is not None:
            if label.color in drawn:
                raise ValueError(f"{drawn[label.color]} and {name} both have the color {hexadecimal(label.color)!r}")
            drawn[label.color] = name
    for color, name in drawn.items():
        if read.get(color, name) != name:
            raise ValueError(
                f"{name} is drawn in {list(color)}, which stands for {read[color]} in the files: give {name} another color"
            )


if TYPE_CHECKING:  # what validation makes of the sections
    Labels = dict[str, Label]
else:
    Labels = Annotated[
        dict[str, Annotated[LabelSection, BeforeValidator(_as_section), AfterValidator(_as_label)]],
        AfterValidator(_distinct_labels),
        InWords(
            "names, each with a whole number from 1 to 65535, a list of them, a colour, or keys and values, see below"
        ),
    ]


def _as_ignored(value: Any) -> Any:
    """A value, or the three numbers of a colour."""
    if value is None:
        return None
    if not _is_number(value):
        color = _as_color(value)
        if color == _BLACK:
            raise ValueError("[0, 0, 0]: black is background, which cannot be ignored")
        return color
    if not 1 <= value <= 65535:
        raise ValueError(f"{value}: must be greater than or equal to 1 and at most 65535")
    return value


IgnoredPixels = Annotated[
    int | Rgb | None,
    BeforeValidator(_as_ignored),
    InWords("whole number from 1 to 65535, or a colour as a list of 3 whole numbers, or null"),
]


def check_ignored(ignored: IgnoreLabel | None, labels: Mapping[str, tuple[int, ...]]) -> None:
    """Refuses ignored pixels that are also those of a label.

    Raises:
        ValueError: A label has this value or colour.
    """
    for name, label in labels.items():
        if ignored in label:
            raise ValueError(f"{ignored} is also a value of the label {name}")
        if isinstance(label, Label) and ignored in label.rgb and isinstance(ignored, tuple):
            raise ValueError(f"{list(ignored)} is also a colour of the label {name}")
