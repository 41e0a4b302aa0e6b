"""The plain layout: images/, labels/ and, if there are fields of view, masks/, paired by name."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from r2seg.data.cases import Case, find_images, group_of, join_channels, no_image_in, relative_stem
from r2seg.errors import UserError, counted, some

if TYPE_CHECKING:
    from r2seg.config import Data

_LOG = logging.getLogger(__name__)


def is_folder(root: Path) -> bool:
    """Whether a folder has images/ and labels/."""
    return (root / "images").is_dir() and (root / "labels").is_dir()


def folder_cases(data: Data) -> list[Case]:
    """``images/NAME.*`` with ``labels/NAME.*`` and, if there are fields of view, ``masks/NAME.*``.

    Raises:
        UserError: A folder is missing or empty, an image has no label or no field of view, or two files claim one case.
    """
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
            "%s: %s without an image of the same name, ignored: %s",
            root,
            counted(len(unpaired), "label"),
            some(unpaired),
        )
    unmasked = sorted(set(images) - set(masks)) if masks else []
    if unmasked:
        raise UserError(
            f"{root / 'masks'} has no field of view for {some(unmasked)}; add them or remove the folder masks/"
        )
    return [
        Case(id=key, images=images[key], labels=(labels[key],), mask=masks.get(key), group=group_of(key, data.group))
        for key in sorted(images)
    ]


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in find_images(folder):
        stem = relative_stem(path, folder)
        if stem in found:
            raise UserError(f"{found[stem]} and {path} have the same name: remove one")
        found[stem] = path
    return found
