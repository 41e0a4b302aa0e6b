"""What a label is: its values in the files, its colours, and its code in a terminology.

The config's ``data.labels`` and the functions that read and write masks meet here. How a config writes labels is in
config/schema/labels.py, which colours labels without one get is in palette.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any, NamedTuple

Rgb = tuple[int, int, int]

IgnoreLabel = int | Rgb
"""Value, or colour in colour pictures, of pixels that are ignored."""


class Code(NamedTuple):
    """A concept of a terminology, as DICOM writes it.

    Attributes:
        scheme: The terminology's designator, such as "SCT" for SNOMED CT.
        value: The concept's code, such as "39607008".
        meaning: The concept in words; empty if the label's name says it.
    """

    scheme: str
    value: str
    meaning: str = ""


class Label(tuple[int, ...]):
    """The values of a label in the files, the first of which is written; also its colours and code.

    It is the tuple of its values, and equals any tuple that holds them.

    Attributes:
        rgb: Colours that stand for the label in colour pictures.
        color: The colour that it is drawn in; None for one from the palette.
        code: What it is in a terminology, or None.
    """

    rgb: tuple[Rgb, ...]
    color: Rgb | None
    code: Code | None

    def __new__(
        cls, values: Iterable[int], *, rgb: Iterable[Rgb] = (), color: Rgb | None = None, code: Code | None = None
    ) -> Label:
        label = super().__new__(cls, values)
        label.rgb, label.color, label.code = tuple(rgb), color, code
        return label

    def __getnewargs_ex__(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (tuple(self),), {"rgb": self.rgb, "color": self.color, "code": self.code}


MOST_OVERLAPPING = 7
"""Labels that can overlap: they are the bits of a byte, and 255 is ignored."""

Labels = Mapping[str, int | Sequence[int]]
"""Name of a label -> its value, its values, or a `Label`, in class order; 0 is background."""


def values_of(label: int | Sequence[int]) -> tuple[int, ...]:
    """The values of a label in the files, also where it is a single number."""
    return (int(label),) if isinstance(label, int | Integral) else tuple(map(int, label))


def colors_in_files(label: int | Sequence[int]) -> tuple[Rgb, ...]:
    """The colours that stand for a label in colour pictures; none unless it is a `Label` that declares some."""
    return label.rgb if isinstance(label, Label) else ()


def hexadecimal(color: Rgb) -> str:
    """A colour as "#3b82f6"."""
    return "#{:02x}{:02x}{:02x}".format(*color)
