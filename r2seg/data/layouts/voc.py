"""Pascal VOC's layout for segmentation: JPEGImages/, SegmentationClass/, and lists of ids in ImageSets/."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from r2seg.data.cases import Case
from r2seg.data.layouts.tree import Partners, Tree

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
        LayoutError: A list is missing, names a case twice, or names one whose files are missing.
    """
    tree = Tree(data)
    cases: list[Case] = []
    listed_in: dict[str, Path] = {}
    for name, part in (("train", "train"), ("val", "validation")):
        listed = tree.root / "ImageSets" / "Segmentation" / f"{name}.txt"
        try:
            ids = listed.read_text("utf-8").split()
        except (OSError, UnicodeDecodeError):
            tree.wrong(
                "missing list", f"{listed}: there is no such list: name the folder VOCdevkit/VOC2012 in data.root"
            )
            continue
        if not ids:
            tree.wrong("empty list", f"{listed}: names no case: unpack Pascal VOC again")
        images: dict[str, Path] = {}
        labels: dict[str, Path] = {}
        for case_id in ids:
            if case_id in listed_in:
                tree.wrong(
                    "doubled case", f"{listed} names {case_id}, which {listed_in[case_id]} already names: remove one"
                )
                continue
            listed_in[case_id] = listed
            image = tree.root / "JPEGImages" / f"{case_id}.jpg"
            label = tree.root / "SegmentationClass" / f"{case_id}.png"
            if image.is_file():
                images[case_id] = image
            else:
                tree.wrong(
                    "missing image", f"{listed} names {case_id}, but {image} does not exist: add it, or remove the line"
                )
            if image.is_file() and label.is_file():
                labels[case_id] = label
        cases += tree.pair(images, Partners(labels, "SegmentationClass/{}.png".format), split=part)
    return tree.finish(cases)
