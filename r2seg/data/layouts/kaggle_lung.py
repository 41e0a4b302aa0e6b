"""Kaggle's "Finding and Measuring Lungs in CT Data" as unpacked: slices in 2d_images/ and 2d_masks/, volumes in 3d_images/."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from r2seg.data.cases import Case
from r2seg.data.images import split_suffix
from r2seg.data.layouts.tree import Partners, Tree, has_name

if TYPE_CHECKING:
    from r2seg.config import Data

PATIENT = r"^(?:ID|IMG)_(\d+)"


def is_kaggle_lung(root: Path) -> bool:
    """Whether a folder holds 2d_images/ or 3d_images/, or is one of them."""
    return (
        (root / "2d_images").is_dir()
        or has_name(root / "3d_images", r"IMG_\d+\..*")
        or (root.name == "2d_images" and (root.parent / "2d_masks").is_dir())
        or (root.name == "3d_images" and has_name(root, r"IMG_\d+\..*"))
    )


def kaggle_lung_cases(data: Data) -> list[Case]:
    """The slices, or the volumes, whichever is there; where both are, ``root`` names 2d_images/ or 3d_images/ itself.

    Raises:
        LayoutError: Both are there, or files are missing, doubled or named otherwise.
    """
    root = data.root
    if root.name in ("2d_images", "3d_images"):
        flat, root = root.name == "2d_images", root.parent
    elif (root / "2d_images").is_dir() and (root / "3d_images").is_dir():
        tree = Tree(data)
        tree.wrong(
            "slices and volumes",
            f"{root}: holds slices and volumes: name one of them in data.root, {root / '2d_images'} or {root / '3d_images'}",
        )
        return tree.finish([])
    else:
        flat = not (root / "3d_images").is_dir()
    tree = Tree(data.model_copy(update={"root": root}))
    return tree.finish(_slices(tree) if flat else _volumes(tree))


def _slices(tree: Tree) -> list[Case]:
    remedy = "unpack the data set there: 2d_images/ and 2d_masks/"
    name = r"(ID_\d+_Z_\d+)"
    images = tree.named(tree.images_in(tree.root / "2d_images", remedy=remedy), name, "ID_0000_Z_0142.tif")
    masks = tree.named(tree.images_in(tree.root / "2d_masks", remedy=remedy), name, "ID_0000_Z_0142.tif")
    return tree.pair(images, Partners(masks, "2d_masks/{}.tif".format)) if images and masks else []


def _volumes(tree: Tree) -> list[Case]:
    files = tree.images_in(tree.root / "3d_images", remedy="unpack the data set there: 3d_images/")
    is_mask = {path: split_suffix(path)[0].upper().startswith("MASK") for path in files}
    images = tree.named([path for path in files if not is_mask[path]], r"IMG_(\d+)", "IMG_0002.nii.gz")
    masks = tree.named([path for path in files if is_mask[path]], r"MASK_(\d+)", "MASK_0002.nii.gz")
    return tree.pair(images, Partners(masks, "3d_images/MASK_{}.nii.gz".format), id_of="IMG_{}".format)
