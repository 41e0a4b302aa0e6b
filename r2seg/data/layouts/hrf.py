"""HRF as unpacked: images/01_dr.JPG, manual1/01_dr.tif and mask/01_dr_mask.tif, or one archive each for healthy eyes,
diabetic retinopathy and glaucoma (Budai et al., Int. J. Biomed. Imaging 2013)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from r2seg.data.cases import Case
from r2seg.data.layouts.tree import Partners, Tree, has_name

if TYPE_CHECKING:
    from r2seg.config import Data

_STATES = ("healthy", "diabetic_retinopathy", "glaucoma")


def is_hrf(root: Path) -> bool:
    """Whether a folder has manual1/ with names such as 01_dr.tif, or healthy_manualsegm/ and its like."""
    return has_name(root / "manual1", r"\d+_(?:h|dr|g)\..*") or any(
        (root / f"{state}_manualsegm").is_dir() for state in _STATES
    )


def hrf_cases(data: Data) -> list[Case]:
    """The images of all three states: h (healthy), dr (diabetic retinopathy) and g (glaucoma).

    The usual half, the first 5 of each state for training, is a convention of papers and is not set.

    Raises:
        LayoutError: Files are missing, doubled or named otherwise.
    """
    tree = Tree(data)
    separate = [tree.root / state for state in _STATES if (tree.root / f"{state}_manualsegm").is_dir()]
    folders = separate or [tree.root / "images"]
    manuals = [Path(f"{folder}_manualsegm") for folder in separate] or [tree.root / "manual1"]
    fields = [Path(f"{folder}_fovmask") for folder in separate] or [tree.root / "mask"]
    remedy = "unpack HRF there: images/, manual1/ and mask/"
    images = tree.named(tree.images_in(*folders, remedy=remedy), r"(\d+_(?:h|dr|g))", "01_dr.JPG")
    labels = tree.named(tree.images_in(*manuals, remedy=remedy), r"(\d+_(?:h|dr|g))", "01_dr.tif")
    present = [folder for folder in fields if folder.is_dir()]
    masks = tree.named(tree.images_in(*present, remedy="remove it"), r"(\d+_(?:h|dr|g))_mask", "01_dr_mask.tif")
    if not images or not labels:
        return tree.finish([])
    place = "*_manualsegm/{}.tif" if separate else "manual1/{}.tif"
    field = "*_fovmask/{}_mask.tif" if separate else "mask/{}_mask.tif"
    return tree.finish(tree.pair(images, Partners(labels, place.format), mask=Partners(masks, field.format)))
