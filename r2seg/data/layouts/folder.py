"""The plain layout: images/, labels/ and, if there are fields of view, masks/, paired by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from r2seg.data.cases import Case, join_channels, relative_stem
from r2seg.data.layouts.tree import Partners, Tree
from r2seg.errors import UserError

if TYPE_CHECKING:
    from r2seg.config import Data

_PUT = "put images/NAME.* and labels/NAME.* into data.root"


def is_folder(root: Path) -> bool:
    """Whether a folder has images/ and labels/."""
    return (root / "images").is_dir() and (root / "labels").is_dir()


def folder_cases(data: Data) -> list[Case]:
    """``images/NAME.*`` with ``labels/NAME.*`` and, if there are fields of view, ``masks/NAME.*``.

    Raises:
        LayoutError: A folder is missing or empty, an image has no label or no field of view, or two files claim one case.
    """
    tree = Tree(data)
    return tree.finish(paired_folders(tree, "images", "labels", "masks", remedy=_PUT))


def paired_folders(tree: Tree, images: str, labels: str, masks: str, *, remedy: str) -> list[Case]:
    """The cases of folders whose files have the same names: images, labels and, if the folder is there, fields of view."""
    root = tree.root
    files = tree.images_in(root / images, remedy=remedy)
    references = _by_stem(tree, root / labels, remedy)
    fields = _by_stem(tree, root / masks, f"remove the folder {masks}/") if (root / masks).is_dir() else {}
    found: dict[str, tuple[Path, ...]] = {}
    try:
        sets = join_channels(files, root / images)
    except UserError as error:
        tree.wrong("doubled name", str(error))
        sets = {}
    joined = {base: channels for base, channels in sets.items() if base in references}
    in_sets = {path for channels in joined.values() for path in channels}
    singles = [(relative_stem(path, root / images), (path,)) for path in files if path not in in_sets]
    for stem, channels in [*singles, *joined.items()]:
        if stem in found:
            tree.wrong(
                "doubled case",
                f"{found[stem][0]} and {channels[0]} are both case {stem!r}: rename or remove one",
            )
        found.setdefault(stem, channels)
    if not (files and references):  # said already
        return []
    mask = Partners(fields, f"{masks}/{{}}.*".format)
    return tree.pair(found, Partners(references, f"{labels}/{{}}.*".format), mask=mask)


def _by_stem(tree: Tree, folder: Path, remedy: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in tree.images_in(folder, remedy=remedy):
        tree.add(found, relative_stem(path, folder), path)
    return found
