"""Pascal VOC's layout for segmentation: JPEGImages/, SegmentationClass/, and lists of ids in ImageSets/."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from r2seg.data.cases import Case, group_of
from r2seg.errors import UserError

if TYPE_CHECKING:
    from r2seg.config import Data


# The classes and their values in the palette pictures (Everingham et al., IJCV 2010).
CLASSES = {
    name: value
    for value, name in enumerate(
        (
            "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
            "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
        ),
        start=1,
    )
}  # fmt: skip


def is_voc(root: Path) -> bool:
    """Whether a folder has JPEGImages/ and SegmentationClass/."""
    return (root / "JPEGImages").is_dir() and (root / "SegmentationClass").is_dir()


def voc_cases(data: Data) -> list[Case]:
    """The cases that ``ImageSets/Segmentation`` lists: ``train.txt`` for training, ``val.txt`` for validation.

    VOC's own test labels are not public.

    Raises:
        UserError: A list is missing, names a case twice, or names one whose files are missing.
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
                raise UserError(f"{listed} names {case_id}, which {listed_in[case_id]} already names: remove one")
            listed_in[case_id] = listed
            image = data.root / "JPEGImages" / f"{case_id}.jpg"
            label = data.root / "SegmentationClass" / f"{case_id}.png"
            if missing := [path for path in (image, label) if not path.is_file()]:
                raise UserError(f"{listed} names {case_id}, but {missing[0]} does not exist")
            cases.append(Case(case_id, (image,), (label,), group=group_of(case_id, data.group), split=part))
    return sorted(cases, key=lambda case: case.id)
