"""LCTSC 2017: the tree of DICOM files that TCIA gives, or NIfTI copies in images/ and labels/ (Yang et al., Med. Phys. 2018)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from r2seg.data.cases import Case
from r2seg.data.layouts.folder import paired_folders
from r2seg.data.layouts.tree import Partners, Tree, has_name, names_in

if TYPE_CHECKING:
    from r2seg.config import Data

_PATIENT = r"LCTSC-(?:Train|Test)-S\d-\d{3}"


def is_lctsc(root: Path) -> bool:
    """Whether a folder holds patients' folders such as LCTSC-Train-S1-001, or images/ with names that begin so."""
    patients = [name for name in names_in(root) if name.startswith("LCTSC-") and (root / name).is_dir()]
    return bool(patients) or (has_name(root / "images", r"LCTSC-.*") and (root / "labels").is_dir())


def lctsc_cases(data: Data) -> list[Case]:
    """The patients, with the official test patients (``LCTSC-Test-…``) in the part test.

    Of a DICOM tree the image is the folder of the patient's series, and the label the file of structures (RTSTRUCT) in a folder of
    its own. Copies in NIfTI are paired by name.

    Raises:
        LayoutError: A patient has no series or no structures, or several; or as of the layout folder.
    """
    tree = Tree(data)
    if (tree.root / "images").is_dir():
        cases = paired_folders(
            tree, "images", "labels", "masks", remedy="put images/LCTSC-*.nii.gz and labels/LCTSC-*.nii.gz there"
        )
    else:
        cases = _patients(tree)
    official = [Case(**{**vars(case), "split": "test"}) if "-Test-" in case.id else case for case in cases]
    return tree.finish(official)


def _patients(tree: Tree) -> list[Case]:
    names = [name for name in names_in(tree.root) if name.startswith("LCTSC-")]
    folders = [tree.root / name for name in names if (tree.root / name).is_dir()]
    patients = tree.named(folders, f"({_PATIENT})", "LCTSC-Train-S1-001")
    if not folders:
        tree.wrong(
            "empty folder", f"{tree.root}: holds no patient: name the folder with LCTSC-Train-S1-001 in data.root"
        )
    series: dict[str, Path] = {}
    structures: dict[str, Path] = {}
    for name, folder in patients.items():
        slices, single = _dicom_folders(folder)
        for what, places, found in (
            ("series of slices", slices, series),
            ("file of structures (RTSTRUCT) in a folder of its own", single, structures),
        ):
            if len(places) == 1:
                found[name] = places[0]
            else:
                number = f"{len(places)} folders with" if places else "no"
                tree.wrong(
                    what,
                    f"{folder}: has {number} a {what}: leave one, or download the patient again"
                    if places
                    else f"{folder}: has no {what}: download the patient again",
                )
    both = {name: series[name] for name in series if name in structures}
    return tree.pair(both, Partners({name: structures[name] for name in both}, "{}/*/*/*.dcm".format))


def _dicom_folders(folder: Path) -> tuple[list[Path], list[Path]]:
    """Folders that hold several DICOM files, and single DICOM files in folders of their own."""
    slices, single = [], []
    for place, _, names in os.walk(folder):
        files = sorted(name for name in names if name.lower().endswith(".dcm") and not name.startswith("."))
        if len(files) > 1:
            slices.append(Path(place))
        elif files:
            single.append(Path(place) / files[0])
    return sorted(slices), sorted(single)
