"""DRIVE as unpacked: training/ and test/, each with images/, 1st_manual/ and mask/ (Staal et al., IEEE TMI 2004)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from r2seg.data.cases import Case
from r2seg.data.images import split_suffix
from r2seg.data.layouts.tree import Partners, Tree, has_name

if TYPE_CHECKING:
    from r2seg.config import Data


_IMAGE = r"\d+_(?:training|test)\..*"


def is_drive(root: Path) -> bool:
    """Whether a folder is DRIVE's, or its training/ or test/ alone."""
    if (root / "training").is_dir() and (root / "test").is_dir():
        folders = [root / "training", root / "test"]
        return any((folder / "1st_manual").is_dir() or has_name(folder / "images", _IMAGE) for folder in folders)
    return any(has_name(folder / "images", _IMAGE) for folder in (root, root / "training", root / "test"))


def drive_cases(data: Data) -> list[Case]:
    """The cases of both folders; those of test/ are the official test set.

    Copies without the test's manuals have no labelled test cases, which is told. The training images are not divided by the data
    set. The second observer drew the test images only.

    Raises:
        LayoutError: Files are missing, doubled or named otherwise.
    """
    tree = Tree(data)
    cases: list[Case] = []
    if (tree.root / "training").is_dir() or (tree.root / "test").is_dir():
        cases += _part(tree, "training/", r"(\d+)_training", "21_training", None)
        if (tree.root / "test" / "1st_manual").is_dir():
            cases += _part(tree, "test/", r"(\d+)_test", "01_test", "test")
        else:
            tree.warn(f"{tree.root / 'test'}: has no 1st_manual/, so there are no labelled test cases")
    else:
        cases += _part(tree, "", r"(\d+)_(?:training|test)", "21_training", None)
    return tree.finish(cases)


def _part(tree: Tree, part: str, name: str, like: str, split: str | None) -> list[Case]:
    folder = tree.root / part
    remedy = "name DRIVE's own folder in data.root, with training/ and test/ as unpacked"
    images = tree.named(tree.images_in(folder / "images", remedy=remedy), name, f"{like}.tif")
    labels = tree.named(tree.images_in(folder / "1st_manual", remedy=remedy), r"(\d+)_manual1", "21_manual1.gif")
    if not images or not labels:
        return []
    masks = _optional(tree, folder / "mask", rf"{name}_mask", f"{like}_mask.gif")
    if not masks:
        tree.warn(f"{folder}: has no mask/, so there are no fields of view")
    second = _optional(tree, folder / "2nd_manual", r"(\d+)_manual2", "01_manual2.gif")
    suffix = like.partition("_")[2]
    return tree.pair(
        images,
        Partners(labels, f"{part}1st_manual/{{}}_manual1.gif".format),
        mask=Partners(masks, f"{part}mask/{{}}_{suffix}_mask.gif".format),
        observers=[Partners(second, f"{part}2nd_manual/{{}}_manual2.gif".format)],
        id_of=lambda key: split_suffix(images[key])[0],
        split=split,
    )


def _optional(tree: Tree, folder: Path, name: str, like: str) -> dict[str, Path]:
    return tree.named(tree.images_in(folder, remedy="remove it"), name, like) if folder.is_dir() else {}
