"""Cases and the layouts of data sets that yield them. Reading pixels lives in images.py, splitting in splits.py."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from r2seg.data.images import IMAGE_SUFFIXES, split_suffix
from r2seg.errors import UserError, some

if TYPE_CHECKING:
    from r2seg.config import Data

_LOG = logging.getLogger(__name__)
_CHANNEL = re.compile(r"^(?P<base>.+)_(?P<index>\d{4})$")


@dataclass(frozen=True)
class Case:
    """One subject to segment: the files of its channels, its label and its field of view.

    Attributes:
        id: Unique name; relative path without suffix below the images folder, such as "site_a/ct_012".
        images: One file with all channels, or one file a channel, in order.
        label: Reference label map, or None.
        mask: Field of view (non-zero inside), or None for the whole image.
        group: Patient or subject; cases of one group never fall on both sides of a split.
        split: "train", "validation" or "test" where the layout fixes it, else None.
    """

    id: str
    images: tuple[Path, ...]
    label: Path | None = None
    mask: Path | None = None
    group: str = ""
    split: str | None = None


def find_images(folder: Path) -> list[Path]:
    """Every image file below a folder, sorted by path; hidden files and folders are passed over.

    Linked folders are searched too. A link to a file that is gone is listed, so that reading it tells.
    """
    found: list[Path] = []

    def search(place: Path, above: frozenset[Path]) -> None:
        try:
            entries = list(place.iterdir())
        except OSError as error:
            raise UserError(f"{place}: cannot be read: {error.strerror}") from None
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                target = entry.resolve()
                if target not in above:  # a link upwards would be followed for ever
                    search(entry, above | {target})
            elif split_suffix(entry)[1] and (entry.is_file() or entry.is_symlink()):
                found.append(entry)

    search(folder, frozenset({folder.resolve()}))
    return sorted(found)


def no_image_in(folder: Path) -> str:
    """What to say of a folder without images."""
    text = f"{folder} holds no image; known formats: {', '.join(IMAGE_SUFFIXES)}"
    if any(path.suffix.lower() in (".dcm", ".ima") for path in folder.rglob("*")):
        text += "; convert its DICOM series to NIfTI, for example with dcm2niix"
    return text


def relative_stem(path: Path, root: Path) -> str:
    """Path below a root without the image suffix, with forward slashes: the id of a one-file case."""
    return (path.parent / split_suffix(path)[0]).relative_to(root).as_posix()


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
                raise UserError(f"{other} and {path} have one name: rename or remove one")
    return {
        base: tuple(channels[index] for index in range(len(channels)))
        for base, channels in sets.items()
        if set(channels) == set(range(len(channels)))
    }


def group_of(case_id: str, pattern: str | None) -> str:
    """The patient of a case: the pattern's first group where it is found in the id, else the id itself."""
    if pattern is None:
        return case_id
    match = re.search(pattern, case_id)
    if match is None or match[1] is None:
        raise UserError(
            f"data.group {pattern!r} does not match the case {case_id!r}: mend the pattern, or leave it out"
        )
    return match[1]


def find_cases(data: Data) -> list[Case]:
    """The labelled cases of a data set, sorted by id.

    Raises:
        UserError: Where the folders are missing, a case has no label, or two files claim one case.
    """
    return _LAYOUTS[data.layout](data)


def _voc_cases(data: Data) -> list[Case]:
    """Pascal VOC's segmentation: ``JPEGImages``, ``SegmentationClass``, and the ids of each part in ``ImageSets``.

    ``train.txt`` trains and ``val.txt`` validates; VOC's own test labels are not public.
    """
    cases: list[Case] = []
    listed_in: dict[str, Path] = {}
    for name, part in (("train", "train"), ("val", "validation")):
        listed = data.root / "ImageSets" / "Segmentation" / f"{name}.txt"
        if not listed.is_file():
            raise UserError(
                f"data.root {data.root} has no {listed.relative_to(data.root)}: name the folder VOCdevkit/VOC2012"
            )
        for case_id in listed.read_text("utf-8").split():
            if case_id in listed_in:
                raise UserError(f"{listed} names {case_id}, which {listed_in[case_id]} named before: remove one")
            listed_in[case_id] = listed
            image = data.root / "JPEGImages" / f"{case_id}.jpg"
            label = data.root / "SegmentationClass" / f"{case_id}.png"
            if missing := [path for path in (image, label) if not path.is_file()]:
                raise UserError(f"{listed} names {case_id}, and {missing[0]} is not there")
            cases.append(Case(case_id, (image,), label, None, group_of(case_id, data.group), part))
    return sorted(cases, key=lambda case: case.id)


def _folder_cases(data: Data) -> list[Case]:
    """``images/NAME.*``, ``labels/NAME.*`` and, where there are fields of view, ``masks/NAME.*``."""
    root = data.root
    for name in ("images", "labels"):
        if not (root / name).is_dir():
            raise UserError(f"data.root {root} has no folder {name}/: put images/NAME.* and labels/NAME.* there")
    files = find_images(root / "images")
    if not files:
        raise UserError(no_image_in(root / "images"))
    labels = _by_stem(root / "labels")
    masks = _by_stem(root / "masks") if (root / "masks").is_dir() else {}

    images: dict[str, tuple[Path, ...]] = {}
    joined = {base: channels for base, channels in join_channels(files, root / "images").items() if base in labels}
    in_sets = {path for channels in joined.values() for path in channels}
    for path in files:
        if path not in in_sets:
            stem = relative_stem(path, root / "images")
            if stem in images:
                raise UserError(f"{images[stem][0]} and {path} are both case {stem!r}: rename or remove one")
            images[stem] = (path,)
    for base, channels in joined.items():
        if base in images:
            raise UserError(f"{images[base][0]} and {channels[0]} are both case {base!r}: rename or remove one")
        images[base] = channels

    unlabelled = sorted(set(images) - set(labels))
    if unlabelled:
        raise UserError(
            f"{len(unlabelled)} of {len(images)} images in {root / 'images'} have no label of the same name in {root / 'labels'}: "
            f"{some(unlabelled)}; add the labels or move the images away"
        )
    if unpaired := sorted(set(labels) - set(images)):
        _LOG.warning(
            "%s: %d labels have no image of the same name and are left out: %s", root, len(unpaired), some(unpaired)
        )
    unmasked = sorted(set(images) - set(masks)) if masks else []
    if unmasked:
        raise UserError(
            f"{root / 'masks'} has no field of view for {some(unmasked)}; add them or remove the folder masks/"
        )
    return [
        Case(id=key, images=images[key], label=labels[key], mask=masks.get(key), group=group_of(key, data.group))
        for key in sorted(images)
    ]


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in find_images(folder):
        stem = relative_stem(path, folder)
        if stem in found:
            raise UserError(f"{found[stem]} and {path} have one name: remove one")
        found[stem] = path
    return found


_LAYOUTS = {"folder": _folder_cases, "voc": _voc_cases}
