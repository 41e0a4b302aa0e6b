"""nnU-Net's raw data: imagesTr/CASE_0000.nii.gz, …_0001 for further channels, and labelsTr/CASE.nii.gz (Isensee et al., 2021)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from r2seg.data.cases import Case
from r2seg.data.images import split_suffix
from r2seg.data.layouts.dataset_json import NAME, read_dataset_json
from r2seg.data.layouts.tree import Partners, Tree, has_name
from r2seg.errors import UserError

if TYPE_CHECKING:
    from r2seg.config import Data

_UNPACK = "name the folder of the data set in data.root, such as Dataset004_Hippocampus, with imagesTr/ and labelsTr/"


def is_nnunet(root: Path) -> bool:
    """Whether a folder has imagesTr/ with names such as case_0000.nii.gz, or labelsTr/, if the two were swapped."""
    return any(has_name(root / folder, r".+_0000\..*") for folder in ("imagesTr", "labelsTr"))


def nnunet_cases(data: Data) -> list[Case]:
    """The cases of imagesTr/, and those of imagesTs/ as the part test if labelsTs/ is there.

    Raises:
        LayoutError: A case has no label or not all channels, or files are doubled or named otherwise.
    """
    tree = Tree(data)
    try:
        description = read_dataset_json(tree.root)
    except UserError as error:
        tree.wrong(NAME, str(error))
        description = None
    channels = description.channels if description else ()
    cases = _part(tree, "Tr", channels, None)
    if (tree.root / "imagesTs").is_dir():
        if (tree.root / "labelsTs").is_dir():
            cases += _part(tree, "Ts", channels, "test")
        else:
            tree.warn(f"{tree.root / 'imagesTs'}: there is no labelsTs/, so it is left out")
    return tree.finish(cases)


def _part(tree: Tree, part: str, channels: tuple[str, ...], split: str | None) -> list[Case]:
    sets: dict[str, dict[int, Path]] = {}
    for path in tree.images_in(tree.root / f"images{part}", remedy=_UNPACK):
        match = re.fullmatch(r"(.+)_(\d{4})", split_suffix(path)[0])
        if match is None:
            tree.wrong(
                "other name", f"{path}: has no number of a channel, such as case_0000.nii.gz: rename it or move it away"
            )
            continue
        other = sets.setdefault(match[1], {}).setdefault(int(match[2]), path)
        if other != path:
            tree.wrong("doubled name", f"{other} and {path} have the same name: rename or remove one")
    number = len(channels) or max((max(found) + 1 for found in sets.values()), default=1)
    images: dict[str, tuple[Path, ...]] = {}
    for case_id, found in sets.items():
        missing = [index for index in range(number) if index not in found]
        for index in missing:
            name = f" ({channels[index]})" if channels else ""
            first = next(iter(found.values()))
            tree.wrong(
                "missing channel",
                f"{first.with_name(f'{case_id}_{index:04}{split_suffix(first)[1]}')}: this channel{name} of {case_id} is "
                "missing: add it, or move the case away",
            )
        for index in sorted(index for index in found if index >= number):
            tree.wrong(
                "too many channels",
                f"{found[index]}: {tree.root / NAME} names {number} channels only: correct channel_names, or move it away",
            )
        if not missing:
            images[case_id] = tuple(found[index] for index in range(number))
    labels: dict[str, Path] = {}
    for path in tree.images_in(tree.root / f"labels{part}", remedy=_UNPACK):
        tree.add(labels, split_suffix(path)[0], path)
    if not images or not labels:
        return []
    return tree.pair(images, Partners(labels, f"labels{part}/{{}}.nii.gz".format), split=split)
