"""ISIC 2016, 2017 and 2018, lesion segmentation, as unpacked: folders of images and of ground truth for each part.

Part 1 of 2016 (Gutman et al., arXiv:1605.01397) and 2017 (Codella et al., ISBI 2018), task 1 of 2018 (Codella et al.,
arXiv:1902.03368).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from r2seg.data.cases import Case
from r2seg.data.images import split_suffix
from r2seg.data.layouts.tree import Partners, Tree, has_name, names_in

if TYPE_CHECKING:
    from r2seg.config import Data

_PART = "(Training|Validation|Test)"
# Year -> names of the folders of images and of ground truth
_FOLDERS = {
    "2016": (rf"ISBI2016_ISIC_Part1_{_PART}_Data", rf"ISBI2016_ISIC_Part1_{_PART}_GroundTruth"),
    "2017": (rf"ISIC-2017_{_PART}(?:_v2)?_Data", rf"ISIC-2017_{_PART}(?:_v2)?_Part1_GroundTruth"),
    "2018": (rf"ISIC2018_Task1-2_{_PART}_Input", rf"ISIC2018_Task1_{_PART}_GroundTruth"),
}


def is_isic(root: Path) -> bool:
    """Whether a folder holds one of the challenges' ground truths of lesions."""
    return any(has_name(root, truth) for _, truth in _FOLDERS.values())


def isic_cases(data: Data) -> list[Case]:
    """The images of all parts that are there with their ground truth.

    Cases of the Validation and Test folders keep their part. Those of the Training folder are training cases where there is a
    Validation folder; else they are free to be divided. Which images show one patient was not published: each is its own group.

    Raises:
        LayoutError: Files are missing, doubled or named otherwise.
    """
    tree = Tree(data)
    found = {year: _parts(tree.root, *names) for year, names in _FOLDERS.items()}
    years = [year for year, (inputs, truths) in found.items() if inputs or truths]
    if len(years) != 1:
        what = (
            f"holds ISIC {' and '.join(years)}, which share images" if years else "has no folder of ISIC's ground truth"
        )
        tree.wrong(
            "years of ISIC",
            f"{tree.root}: {what}: name a folder with one year's, such as ISIC2018_Task1-2_Training_Input and "
            "ISIC2018_Task1_Training_GroundTruth",
        )
        return tree.finish([])
    inputs, truths = found[years[0]]
    fixed = {"training": "train" if "validation" in inputs and "validation" in truths else None}
    cases: list[Case] = []
    for part in ("training", "validation", "test"):
        if part in truths and part not in inputs:
            tree.wrong(
                "missing folder", f"{truths[part]}: the folder of its images is missing: add it, or move this away"
            )
        elif part in inputs and part not in truths:
            if part == "training":
                tree.wrong("missing folder", f"{inputs[part]}: its ground truth is missing: add it, or move this away")
            else:
                tree.warn(f"{inputs[part]}: has no ground truth here, so its images are left out")
        elif part in inputs:
            cases += _cases_of(tree, inputs[part], truths[part], fixed.get(part, part))
    return tree.finish(cases)


def _parts(root: Path, inputs: str, truths: str) -> tuple[dict[str, Path], dict[str, Path]]:
    """The folders of images and of ground truth, by part: "training", "validation", "test"."""
    found: tuple[dict[str, Path], dict[str, Path]] = ({}, {})
    for name in names_in(root):
        for pattern, parts in zip((inputs, truths), found, strict=True):
            if (match := re.fullmatch(pattern, name, re.IGNORECASE)) and (root / name).is_dir():
                parts[match[1].lower()] = root / name
    return found


def _cases_of(tree: Tree, inputs: Path, truth: Path, split: str | None) -> list[Case]:
    remedy = "unpack ISIC's archive there"
    files = tree.images_in(inputs, remedy=remedy)
    pictures = [path for path in files if not split_suffix(path)[0].lower().endswith("_superpixels")]
    images = tree.named(pictures, r"(ISIC_\d{7})", "ISIC_0000000.jpg")
    masks = tree.images_in(truth, remedy=remedy)
    labels = tree.named(masks, r"(ISIC_\d{7})_segmentation", "ISIC_0000000_segmentation.png")
    if not images or not labels:
        return []
    return tree.pair(images, Partners(labels, f"{truth.name}/{{}}_segmentation.png".format), split=split)
