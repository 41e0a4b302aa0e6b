"""What a label is: its values in the files, its structures, its colours, and its code in a terminology.

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
    """The values of a label in the files, the first of which is written; also its structures, colours and code.

    It is the tuple of its values, and equals any tuple that holds them.

    Attributes:
        rgb: Colours that stand for the label in colour pictures.
        color: The colour that it is drawn in; None for one from the palette.
        code: What it is in a terminology, or None.
        structures: Names of the structures and segments (DICOM, 3D Slicer) that are this label; none: those of the label's name.
    """

    rgb: tuple[Rgb, ...]
    color: Rgb | None
    code: Code | None
    structures: tuple[str, ...]

    def __new__(
        cls,
        values: Iterable[int],
        *,
        rgb: Iterable[Rgb] = (),
        color: Rgb | None = None,
        code: Code | None = None,
        structures: Iterable[str] = (),
    ) -> Label:
        label = super().__new__(cls, values)
        label.rgb, label.color, label.code, label.structures = tuple(rgb), color, code, tuple(structures)
        return label

    def __getnewargs_ex__(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (tuple(self),), {"rgb": self.rgb, "color": self.color, "code": self.code, "structures": self.structures}


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


def structures_of(labels: Labels) -> dict[str, tuple[str, ...]]:
    """Label -> names of its structures and segments in files that name them: by default the label's own name."""
    return {
        name: label.structures if isinstance(label, Label) and label.structures else (name,)
        for name, label in labels.items()
    }


def hexadecimal(color: Rgb) -> str:
    """A colour as "#3b82f6"."""
    return "#{:02x}{:02x}{:02x}".format(*color)
