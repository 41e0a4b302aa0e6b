"""Data sets as they are unpacked, as trees of empty files: real names and quirks. Finding cases reads names only."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path


def make(root: Path, names: Iterable[str]) -> Path:
    """Empty files; a name that ends in / is an empty folder, "name=text" has content."""
    root.mkdir(parents=True, exist_ok=True)
    for name in names:
        name, separator, text = name.partition("=")
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if separator:
            path.write_text(text)
        elif not name.endswith("/"):
            path.touch()
    return root


def _drive() -> list[str]:
    names = []
    for part, numbers in (("training", (21, 22)), ("test", (1, 2))):
        for number in numbers:
            stem = f"{number:02}"
            names += [
                f"{part}/images/{stem}_{part}.tif",
                f"{part}/1st_manual/{stem}_manual1.gif",
                f"{part}/mask/{stem}_{part}_mask.gif",
            ]
    return [*names, "test/2nd_manual/01_manual2.gif", "test/2nd_manual/02_manual2.gif"]


def _isic_2018() -> list[str]:
    names = ["ISIC2018_Task1-2_Training_Input/LICENSE.txt", "ISIC2018_Task1-2_Training_Input/ATTRIBUTION.txt"]
    for part, numbers in (("Training", (0, 1)), ("Validation", (12255,)), ("Test", (12169,))):
        for number in numbers:
            names += [
                f"ISIC2018_Task1-2_{part}_Input/ISIC_{number:07}.jpg",
                f"ISIC2018_Task1_{part}_GroundTruth/ISIC_{number:07}_segmentation.png",
            ]
    return [*names, "ISIC2018_Task2_Training_GroundTruth_v3/ISIC_0000000_attribute_globules.png"]


MSD = {
    "name": "Lung",
    "modality": {"0": "CT"},
    "labels": {"0": "background", "1": "cancer"},
    "training": [
        {"image": f"./imagesTr/lung_{n:03}.nii.gz", "label": f"./labelsTr/lung_{n:03}.nii.gz"} for n in (1, 3)
    ],
    "test": ["./imagesTs/lung_002.nii.gz"],
}
NNUNET = {
    "channel_names": {"0": "FLAIR", "1": "T1w"},
    "labels": {"background": 0, "whole tumor": [1, 2], "core": 2, "ignore": 3},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}

# Layout -> the smallest whole copy of the data set
TREES: dict[str, list[str]] = {
    "drive": _drive(),
    "stare": [
        f"{folder}/im000{n}{middle}.ppm.gz"
        for n in (1, 2)
        for folder, middle in (("stare-images", ""), ("labels-ah", ".ah"), ("labels-vk", ".vk"))
    ],
    "chase_db1": [f"Image_{eye}{end}" for eye in ("01L", "01R", "02L") for end in (".jpg", "_1stHO.png", "_2ndHO.png")],
    "hrf": [
        name
        for stem in ("01_dr", "01_g", "01_h")
        for name in (
            f"images/{stem}.{'jpg' if stem.endswith('h') else 'JPG'}",
            f"manual1/{stem}.tif",
            f"mask/{stem}_mask.tif",
        )
    ],
    "isic": _isic_2018(),
    "kaggle_lung": [f"2d_{kind}/ID_{n}.tif" for kind in ("images", "masks") for n in ("0000_Z_0142", "0067_Z_0238")],
    "lctsc": [
        name
        for patient in ("Train-S1-001", "Test-S1-101")
        for name in (
            *(f"LCTSC-{patient}/03-03-2004-NA-NA-08186/79262/1-{n:03}.dcm" for n in (1, 2, 3)),
            f"LCTSC-{patient}/03-03-2004-NA-NA-08186/1.000000-56597/1-1.dcm",
        )
    ],
    "msd": [
        f"dataset.json={json.dumps(MSD)}",
        *(f"{folder}/lung_{n}.nii.gz" for folder in ("imagesTr", "labelsTr") for n in ("001", "003")),
        "imagesTr/._lung_001.nii.gz",
        "imagesTs/lung_002.nii.gz",
    ],
    "nnunet": [
        f"dataset.json={json.dumps(NNUNET)}",
        *(f"imagesTr/BRATS_{n}_000{c}.nii.gz" for n in ("001", "002") for c in (0, 1)),
        *(f"labelsTr/BRATS_{n}.nii.gz" for n in ("001", "002")),
        *(f"imagesTs/BRATS_485_000{c}.nii.gz" for c in (0, 1)),
    ],
    "voc": [
        *(f"JPEGImages/2007_00003{n}.jpg" for n in (2, 3, 9)),
        *(f"SegmentationClass/2007_00003{n}.png" for n in (2, 3)),
        "ImageSets/Segmentation/train.txt=2007_000032\n",
        "ImageSets/Segmentation/val.txt=2007_000033\n",
        "ImageSets/Segmentation/trainval.txt=2007_000032\n2007_000033\n",
    ],
    "folder": [f"{folder}/{n}.png" for folder in ("images", "labels", "masks") for n in "ab"],
}
