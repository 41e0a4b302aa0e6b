"""The Medical Segmentation Decathlon as unpacked: imagesTr/, labelsTr/ and dataset.json (Antonelli et al., Nat. Commun. 2022)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from r2seg.data.cases import Case
from r2seg.data.images import split_suffix
from r2seg.data.layouts.dataset_json import NAME, read_dataset_json
from r2seg.data.layouts.folder import paired_folders
from r2seg.data.layouts.tree import Partners, Tree, has_name
from r2seg.errors import UserError, counted, some

if TYPE_CHECKING:
    from r2seg.config import Data

_UNPACK = "name the folder of the task in data.root, such as Task06_Lung, with imagesTr/ and labelsTr/"


def is_msd(root: Path) -> bool:
    """Whether a folder has imagesTr/ and labelsTr/ without nnU-Net's numbers of channels."""
    folders = (root / "imagesTr").is_dir() and (root / "labelsTr").is_dir()
    return folders and not any(has_name(root / folder, r".+_0000\..*") for folder in ("imagesTr", "labelsTr"))


def msd_cases(data: Data) -> list[Case]:
    """The training cases that dataset.json lists, or without such a list all of imagesTr/.

    A 4-D image holds the channels of a case. The labels of imagesTs/ are not public, so it is left out.

    Raises:
        LayoutError: Files are missing, doubled or not listed.
    """
    tree = Tree(data)
    if (tree.root / "imagesTs").is_dir():
        tree.warn(f"{tree.root / 'imagesTs'}: has no labels, so it is left out")
    try:
        description = read_dataset_json(tree.root)
    except UserError as error:
        tree.wrong(NAME, str(error))
        return tree.finish([])
    if description is None or description.training is None:
        return tree.finish(paired_folders(tree, "imagesTr", "labelsTr", "masksTr", remedy=_UNPACK))
    images: dict[str, Path] = {}
    labels: dict[str, Path] = {}
    for image, label in description.training:
        path, reference = tree.root / image, tree.root / label
        if path.name.startswith("."):
            continue
        case_id = split_suffix(path)[0]
        if not path.is_file():
            tree.wrong("missing image", f"{path}: is listed in {NAME} and does not exist: unpack the task again")
        else:
            tree.add(images, case_id, path)
            if reference.is_file():
                labels[case_id] = reference
    if not description.training:
        tree.wrong("empty list", f"{tree.root / NAME}: lists no training case: get the file again, or remove it")
    there = tree.images_in(tree.root / "imagesTr", remedy=_UNPACK)
    listed = {path.resolve() for path in images.values()}
    if unlisted := [path.name for path in there if path.resolve() not in listed]:
        tree.warn(f"{tree.root / NAME}: does not list {counted(len(unlisted), 'image')}, left out: {some(unlisted)}")
    return tree.finish(tree.pair(images, Partners(labels, "labelsTr/{}.nii.gz".format)))
