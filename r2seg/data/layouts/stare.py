"""STARE as unpacked: im0001.ppm(.gz) with im0001.ah.ppm and im0001.vk.ppm, flat or in folders (Hoover et al., IEEE TMI 2000)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from r2seg.data.cases import Case
from r2seg.data.images import split_suffix
from r2seg.data.layouts.tree import Partners, Tree, has_name, names_in

if TYPE_CHECKING:
    from r2seg.config import Data

_LABEL = r"im\d{4}\.(?:ah|vk)\..*"


def is_stare(root: Path) -> bool:
    """Whether a folder, or one in it, holds labels such as im0001.ah.ppm."""
    return any(has_name(folder, _LABEL) for folder in (root, *(root / name for name in names_in(root)[:20])))


def stare_cases(data: Data) -> list[Case]:
    """The images that Adam Hoover labelled (``ah``); Valentina Kouznetsova's labels (``vk``) are the second observer's.

    The data set has no fields of view and no official split.

    Raises:
        LayoutError: Files are missing, doubled or named otherwise.
    """
    tree = Tree(data)
    files = tree.images_in(tree.root, remedy="put STARE's images and labels there, as unpacked")
    by_kind: dict[str, list[Path]] = {"ah": [], "vk": [], "": []}
    for path in files:
        kind = split_suffix(path)[0].rpartition(".")[2].lower()
        by_kind[kind if kind in by_kind else ""].append(path)
    images = tree.named(by_kind[""], r"(im\d{4})", "im0001.ppm")
    first = tree.named(by_kind["ah"], r"(im\d{4})\.ah", "im0001.ah.ppm")
    second = tree.named(by_kind["vk"], r"(im\d{4})\.vk", "im0001.vk.ppm")
    if files and not images:
        tree.wrong("no image", f"{tree.root}: holds no image such as im0001.ppm: unpack STARE's images there too")
    return tree.finish(
        tree.pair(images, Partners(first, "{}.ah.ppm".format), observers=[Partners(second, "{}.vk.ppm".format)])
    )
