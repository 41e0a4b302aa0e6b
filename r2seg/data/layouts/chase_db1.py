"""CHASE_DB1 as unpacked: Image_01L.jpg, Image_01L_1stHO.png and Image_01L_2ndHO.png, flat (Fraz et al., IEEE TBME 2012)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from r2seg.data.cases import Case
from r2seg.data.images import split_suffix
from r2seg.data.layouts.tree import Partners, Tree, has_name

if TYPE_CHECKING:
    from r2seg.config import Data

CHILD = r"Image_(\d+)"  # both eyes of a child are one group
_MASKS = ("fov_mask", "fov_masks", "mask", "masks")


def is_chase_db1(root: Path) -> bool:
    """Whether a folder holds labels such as Image_01L_1stHO.png."""
    return has_name(root, r"Image_\d+[LR]_1stHO\..*")


def chase_db1_cases(data: Data) -> list[Case]:
    """The images of both eyes with the first observer's labels; the second's are ``observers``.

    Fields of view are not official: they are taken from fov_mask/ where it is. The usual split, the first 20 images against the
    last 8, is a convention of papers and is not set.

    Raises:
        LayoutError: Files are missing, doubled or named otherwise.
    """
    tree = Tree(data)
    files = tree.images_in(tree.root, remedy="put CHASE_DB1's images and labels there, as unpacked")
    masks = [path for path in files if path.parent.name.lower() in _MASKS]
    by_observer: dict[str, list[Path]] = {"1stho": [], "2ndho": [], "": []}
    for path in files:
        if path not in masks:
            kind = split_suffix(path)[0].rpartition("_")[2].lower()
            by_observer[kind if kind in by_observer else ""].append(path)
    images = tree.named(by_observer[""], r"(Image_\d+[LR])", "Image_01L.jpg")
    first = tree.named(by_observer["1stho"], r"(Image_\d+[LR])_1stHO", "Image_01L_1stHO.png")
    second = tree.named(by_observer["2ndho"], r"(Image_\d+[LR])_2ndHO", "Image_01L_2ndHO.png")
    fields = tree.named(masks, r"(Image_\d+[LR])(?:_mask)?", "Image_01L.gif")
    if files and not images:
        tree.wrong("no image", f"{tree.root}: holds no image such as Image_01L.jpg: unpack CHASE_DB1 there")
    return tree.finish(
        tree.pair(
            images,
            Partners(first, "{}_1stHO.png".format),
            mask=Partners(fields, "fov_mask/{}.gif".format),
            observers=[Partners(second, "{}_2ndHO.png".format)],
        )
    )
