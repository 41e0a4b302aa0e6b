"""Cases, and what the layouts of data sets share: finding images, joining channels, the patient of a case.

The layouts themselves are in layouts/, splitting in splits.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from r2seg.data.formats.dicom_files import holds_slices, is_series_folder
from r2seg.data.images import IMAGE_SUFFIXES, split_suffix
from r2seg.errors import UserError, some

_CHANNEL = re.compile(r"^(?P<base>.+)_(?P<index>\d{4})$")


@dataclass(frozen=True)
class Case:
    """One subject to segment: the files of its channels, its labels and its field of view.

    Attributes:
        id: Unique name; relative path without suffix below the images folder, such as "site_a/ct_012".
        images: One file with all channels, or one file per channel, in order.
        labels: Reference label maps: none, one, or one for each label of the config where labels overlap, in the config's order.
        mask: Field of view (non-zero inside), or None for the whole image.
        observers: Label maps that other people drew of the same image; only evaluations use them.
        group: Patient or subject; cases of one group never fall on both sides of a split.
        split: "train", "validation" or "test" if the layout fixes it, else None.
    """

    id: str
    images: tuple[Path, ...]
    labels: tuple[Path, ...] = ()
    mask: Path | None = None
    observers: tuple[Path, ...] = ()
    group: str = ""
    split: str | None = None

    @property
    def reference(self) -> Path:
        """The label map of a case that must have exactly one.

        Raises:
            UserError: The case has none, or several.
        """
        if len(self.labels) != 1:
            found = some([str(path) for path in self.labels]) if self.labels else "no label"
            raise UserError(f"case {self.id} has {found}; one label map is needed")
        return self.labels[0]


def find_images(folder: Path) -> list[Path]:
    """Every image file and folder with a DICOM series below a folder, sorted by path; what is hidden is skipped.

    Linked folders are searched too. A link to a file that no longer exists is listed, so that reading it reports the error.
    """
    found: list[Path] = []

    def search(place: Path, above: frozenset[Path], sliced: bool) -> None:
        try:
            entries = list(place.iterdir())
        except OSError as error:
            raise UserError(f"{place}: cannot be read: {error.strerror}") from None
        for entry in entries:
            if entry.name.startswith("."):
                continue
            # The slices of a DICOM series are one image, which their folder stands for.
            if sliced and entry.suffix.lower() == ".dcm":
                continue
            if entry.is_dir():
                is_image = is_series_folder(entry)
                if is_image:
                    found.append(entry)
                target = entry.resolve()
                if target not in above:  # a link upwards would be followed forever
                    search(entry, above | {target}, is_image)
            elif split_suffix(entry)[1] and (entry.is_file() or entry.is_symlink()):
                found.append(entry)

    search(folder, frozenset({folder.resolve()}), holds_slices(folder))
    return sorted(found)


def no_image_in(folder: Path) -> str:
    """The error message for a folder without images."""
    text = f"{folder} holds no image; known formats: {', '.join(IMAGE_SUFFIXES)}"
    if holds_slices(folder):
        text += f"; it is one DICOM series itself: put its files into a folder of their own, such as {folder}/NAME/"
    return text


def relative_stem(path: Path, root: Path) -> str:
    """Path below a root without the image suffix, with forward slashes: the id of a one-file case.

    The name of a folder with a DICOM series is kept whole: it may be a UID, whose last number is not a suffix.
    """
    stem = path.name if path.is_dir() else split_suffix(path)[0]
    return (path.parent / stem).relative_to(root).as_posix()


def join_channels(files: Iterable[Path], root: Path) -> dict[str, tuple[Path, ...]]:
    """Sets of files that differ only in ``_0000``, ``_0001``, …: base id -> files in channel order.

    Only complete sets, counted from 0, are listed: a stray ``_0142`` is part of a name.

    Raises:
        UserError: Two files of a set have one stem, such as a_0000.png and a_0000.jpg.
    """
    sets: dict[str, dict[int, Path]] = {}
    for path in files:
        if match := _CHANNEL.match(relative_stem(path, root)):
            other = sets.setdefault(match["base"], {}).setdefault(int(match["index"]), path)
            if other != path:
                raise UserError(f"{other} and {path} have the same name: rename or remove one")
    return {
        base: tuple(channels[index] for index in range(len(channels)))
        for base, channels in sets.items()
        if set(channels) == set(range(len(channels)))
    }


def group_of(case_id: str, pattern: str | None) -> str:
    """The patient of a case: what the pattern's first group finds in the id; without a pattern the id itself.

    Raises:
        UserError: The pattern does not match the id, or matches the empty text.
    """
    if pattern is None:
        return case_id
    match = re.search(pattern, case_id)
    if match is None or match[1] is None:
        raise UserError(f"data.group {pattern!r} does not match the case {case_id!r}: fix the pattern, or remove it")
    if not match[1].strip():
        raise UserError(
            f"data.group {pattern!r} finds an empty patient in the case {case_id!r}, so its cases could fall on both sides of the "
            "split: fix the pattern, or remove it"
        )
    return match[1]


def as_dictionary(case: Case) -> dict[str, Any]:
    """A case as ``list_cases`` gives it: files as text, a list where there are several; what it does not have is left out."""

    def one_or_all(paths: tuple[Path, ...]) -> str | list[str] | None:
        texts = [str(path) for path in paths]
        return texts[0] if len(texts) == 1 else texts or None

    entries = {
        "image": one_or_all(case.images),
        "label": one_or_all(case.labels),
        "mask": str(case.mask) if case.mask else None,
        "observers": [str(path) for path in case.observers] or None,
        "id": case.id,
        "group": case.group or None,
        "split": case.split,
    }
    return {key: value for key, value in entries.items() if value is not None}


def case_of(item: Mapping[str, Any]) -> Case:
    """The inverse of ``as_dictionary``; other keys are not looked at.

    Raises:
        ValueError: There is no image.
    """

    def paths(key: str) -> tuple[Path, ...]:
        value = item.get(key) or ()
        return tuple(Path(path) for path in ([value] if isinstance(value, str | Path) else value))

    images, masks = paths("image"), paths("mask")
    if not images:
        raise ValueError(f"an item has no 'image': it has {', '.join(map(str, item))}")
    name = str(item.get("id") or images[0].name)
    return Case(
        name,
        images,
        paths("label"),
        masks[0] if masks else None,
        paths("observers"),
        group=str(item.get("group") or name),
        split=item.get("split"),
    )


def as_written(value: Any) -> Any:
    """Settings given in Python as a config has them: lists in place of tuples, sections as mappings."""
    if isinstance(value, BaseModel):
        return as_written(value.model_dump())
    if isinstance(value, Mapping):
        return {key: as_written(inner) for key, inner in value.items()}
    return [as_written(inner) for inner in value] if type(value) in (list, tuple) else value
