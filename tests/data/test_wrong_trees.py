"""Folders that are wrong: each mistake is told in one line with the file and the remedy, all of a tree at once.

Every tree is a whole copy of a data set (tests/trees.py) that is then broken: files are taken away ("-name"), added ("+name") or
renamed ("old>new").
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from trees import TREES, make

from r2seg.config import Data
from r2seg.data.layouts import LayoutError, find_cases

PATTERNS = {"image": "{id}_ct.nii.gz", "label": "{id}_lung.nii.gz", "mask": "{id}_fov.png"}
OWN = [f"{name}{end}" for name in "xy" for end in ("_ct.nii.gz", "_lung.nii.gz", "_fov.png")]
TABLE = {"table": "cases.csv"}
CELLS = ["a.png", "b.png", "a_m.png", "b_m.png"]


def broken(root: Path, names: Sequence[str], changes: Sequence[str]) -> Path:
    """A tree of a data set with these changes; each has to change something."""
    make(root, names)
    for change in changes:
        if change.startswith("-"):
            gone = sorted(root.glob(change[1:]))
            assert gone, change
            for path in gone:
                path.unlink()
        elif change.startswith("+"):
            make(root, [change[1:]])
        else:
            old, new = change.split(">")
            (root / new).parent.mkdir(parents=True, exist_ok=True)
            (root / old).rename(root / new)
    return root


def lines_of(root: Path, layout: str, files: dict[str, Any] | None = None) -> list[str]:
    with pytest.raises(LayoutError) as caught:
        find_cases(Data(root=root, layout=layout, labels={"a": 1}, files=files))
    assert tuple(str(caught.value).splitlines()) == caught.value.problems
    return str(caught.value).replace(f"{root}/", "").replace(str(root), "ROOT").splitlines()


WRONG: list[tuple[str, list[str], list[str]]] = [
    # layout, what is broken, the beginning of each line and, after …, a part of its end
    # folder: missing, doubled, empty, orphaned, other levels
    ("folder", ["-labels/a.png"], ["images/a.png: has no label: add labels/a.*, or move the image away"]),
    ("folder", ["-labels/a.png", "-labels/b.png"], ["labels holds no image; known formats: …put images/NAME.*"]),
    ("folder", ["-masks/b.png"], ["images/b.png: has no field of view: add masks/b.*, or move all fields of view away"]),
    ("folder", ["+images/a.jpg"], ["images/a.jpg and images/a.png are both case 'a': rename or remove one"]),
    ("folder", ["+labels/b.gif"], ["labels/b.gif and labels/b.png have the same name: rename or remove one"]),
    ("folder", ["+masks/b.gif"], ["masks/b.gif and masks/b.png have the same name: rename or remove one"]),
    ("folder", ["-images/*.png"], ["images holds no image; known formats: …put images/NAME.*"]),
    ("folder", ["-masks/*.png"], ["masks holds no image; known formats: …remove the folder masks/"]),
    ("folder", ["labels/a.png>labels/A.png"], ["images/a.png: has no label: add labels/a.*"]),
    ("folder", ["images/a.png>images/sub/a.png"], ["images/sub/a.png: has no field of view", "images/sub/a.png: has no label"]),
    ("folder", ["labels/a.png>labels/a_mask.png", "labels/b.png>labels/b_mask.png"],
     ["labels/*.*: this is no label of any of the 2 images: …labels/a.*; add the labels"]),
    ("folder", ["+images/a_0000.nii.gz", "+images/a_0001.nii.gz"],
     ["images/a.png and images/a_0000.nii.gz are both case 'a': rename or remove one"]),
    ("folder", ["-labels/a.png", "-masks/b.png", "+labels/b.bmp"],
     ["images/a.png: has no label", "images/b.png: has no field of view", "labels/b.bmp and labels/b.png have"]),
    # DRIVE
    ("drive", ["-training/1st_manual/21_manual1.gif"],
     ["training/images/21_training.tif: has no label: add training/1st_manual/21_manual1.gif, or move"]),
    ("drive", ["-test/1st_manual/02_manual1.gif"], ["test/images/02_test.tif: has no label: add test/1st_manual/02_manual1.gif"]),
    ("drive", ["-training/mask/22_training_mask.gif"],
     ["training/images/22_training.tif: has no field of view: add training/mask/22_training_mask.gif"]),
    ("drive", ["training/images/21_training.tif>training/images/21_train.tif"],
     ["training/images/21_train.tif: its name is not like 21_training.tif: rename it or move it away"]),
    ("drive", ["test/images/01_test.tif>training/images/01_test.tif"],
     ["training/images/01_test.tif: its name is not like 21_training.tif"]),
    ("drive", ["training/1st_manual/21_manual1.gif>training/1st_manual/21_manual2.gif"],
     ["training/1st_manual/21_manual2.gif: its name is not like 21_manual1.gif", "training/images/21_training.tif: has no label"]),
    ("drive", ["+training/images/21_training.png"], ["training/images/21_training.png and training/images/21_training.tif have"]),
    ("drive", ["-training/images/*.tif"], ["training/images holds no image; …name DRIVE's own folder"]),
    ("drive", ["training/images>x", "training/1st_manual>training/images", "x>training/1st_manual"],
     [f"training/{name}: its name is not like" for name in
      ("1st_manual/21_training.tif", "1st_manual/22_training.tif", "images/21_manual1.gif", "images/22_manual1.gif")]),
    # STARE
    ("stare", ["-labels-ah/im0001.ah.ppm.gz"], ["stare-images/im0001.ppm.gz: has no label: add im0001.ah.ppm, or"]),
    ("stare", ["+stare-images/im0001.ppm"], ["stare-images/im0001.ppm and stare-images/im0001.ppm.gz have the same name"]),
    ("stare", ["stare-images/im0002.ppm.gz>stare-images/im002.ppm.gz"],
     ["stare-images/im002.ppm.gz: its name is not like im0001.ppm: rename it"]),
    ("stare", ["-stare-images/*.gz"], ["ROOT: holds no image such as im0001.ppm: unpack STARE's images there too"]),
    ("stare", ["-labels-ah/*.gz"], ["*.ah.ppm: this is no label of any of the 2 images: the label of …im0001.ah.ppm"]),
    # CHASE_DB1
    ("chase_db1", ["-Image_01R_1stHO.png"], ["Image_01R.jpg: has no label: add Image_01R_1stHO.png, or move the image away"]),
    ("chase_db1", ["Image_02L.jpg>Image_2.jpg"], ["Image_2.jpg: its name is not like Image_01L.jpg: rename it or move it away"]),
    ("chase_db1", ["+Image_01L.png"], ["Image_01L.jpg and Image_01L.png have the same name: rename or remove one"]),
    ("chase_db1", ["-Image_*.jpg"], ["ROOT: holds no image such as Image_01L.jpg: unpack CHASE_DB1 there"]),
    # HRF
    ("hrf", ["-manual1/01_h.tif", "-mask/01_g_mask.tif"],
     ["images/01_g.JPG: has no field of view: add mask/01_g_mask.tif", "images/01_h.jpg: has no label: add manual1/01_h.tif"]),
    ("hrf", ["images/01_dr.JPG>images/1dr.JPG"], ["images/1dr.JPG: its name is not like 01_dr.JPG: rename it"]),
    # ISIC
    ("isic", ["-ISIC2018_Task1_Training_GroundTruth/ISIC_0000001*"],
     ["ISIC2018_Task1-2_Training_Input/ISIC_0000001.jpg: has no label: add ISIC2018_Task1_Training_GroundTruth/ISIC_0000001_segm"]),
    ("isic", ["ISIC2018_Task1-2_Training_Input/ISIC_0000001.jpg>ISIC2018_Task1-2_Training_Input/ISIC_000001.jpg"],
     ["ISIC2018_Task1-2_Training_Input/ISIC_000001.jpg: its name is not like ISIC_0000000.jpg"]),
    ("isic", ["+ISIC-2017_Training_Data/", "+ISIC-2017_Training_Part1_GroundTruth/"],
     ["ROOT: holds ISIC 2017 and 2018, which share images: name a folder with one year's"]),
    ("isic", ["ISIC2018_Task1_Training_GroundTruth>old"], ["ISIC2018_Task1-2_Training_Input: its ground truth is missing: add it"]),
    ("isic", ["ISIC2018_Task1-2_Test_Input>old"], ["ISIC2018_Task1_Test_GroundTruth: the folder of its images is missing: add it"]),
    ("isic", ["ISIC2018_Task1-2_Test_Input/ISIC_0012169.jpg>ISIC2018_Task1-2_Test_Input/ISIC_0000000.jpg",
              "ISIC2018_Task1_Test_GroundTruth/ISIC_0012169_segmentation.png>"
              "ISIC2018_Task1_Test_GroundTruth/ISIC_0000000_segmentation.png"],
     ["ISIC2018_Task1-2_Training_Input/ISIC_0000000.jpg and ISIC2018_Task1-2_Test_Input/ISIC_0000000.jpg are both case …remove one"]),
    # Kaggle's lungs
    ("kaggle_lung", ["2d_masks/ID_0000_Z_0142.tif>2d_masks/ID_0000_Z_0143.tif"],
     ["2d_images/ID_0000_Z_0142.tif: has no label: add 2d_masks/ID_0000_Z_0142.tif, or move"]),
    ("kaggle_lung", ["+3d_images/IMG_0002.nii.gz"], ["ROOT: holds slices and volumes: name one of them in data.root"]),
    ("kaggle_lung", ["2d_images/ID_0000_Z_0142.tif>2d_images/ID_0000.tif"], ["2d_images/ID_0000.tif: its name is not like"]),
    # LCTSC
    ("lctsc", ["-LCTSC-Train-S1-001/*/1.*/1-1.dcm"],
     ["LCTSC-Train-S1-001: has no file of structures (RTSTRUCT) in a folder of its own: download the patient again"]),
    ("lctsc", ["+LCTSC-Train-S1-001/b/c/1-1.dcm", "+LCTSC-Train-S1-001/b/c/1-2.dcm", "-LCTSC-Test-S1-101/*/79262/*.dcm"],
     ["LCTSC-Test-S1-101: has no series of slices: download the patient again",
      "LCTSC-Train-S1-001: has 2 folders with a series of slices: leave one"]),
    ("lctsc", ["LCTSC-Train-S1-001>LCTSC-Train-001"], ["LCTSC-Train-001: its name is not like LCTSC-Train-S1-001"]),
    # Decathlon
    ("msd", ["-imagesTr/lung_003.nii.gz"], ["imagesTr/lung_003.nii.gz: is listed in dataset.json and does not exist: unpack"]),
    ("msd", ["-labelsTr/lung_003.nii.gz"], ["imagesTr/lung_003.nii.gz: has no label: add labelsTr/lung_003.nii.gz"]),
    ("msd", ["+dataset.json={"], ["dataset.json: cannot be read as JSON (…get the file again, or remove it"]),
    ("msd", ['+dataset.json={"training": [{"picture": 1}]}'], ["dataset.json: is not a dataset.json of the Decathlon"]),
    ("msd", ['+dataset.json={"training": []}'], ["dataset.json: lists no training case: get the file again, or remove it"]),
    # nnU-Net
    ("nnunet", ["-imagesTr/BRATS_002_0001.nii.gz"],
     ["imagesTr/BRATS_002_0001.nii.gz: this channel (T1w) of BRATS_002 is missing: add it, or move the case away"]),
    ("nnunet", ["imagesTr/BRATS_001_0000.nii.gz>imagesTr/BRATS_001.nii.gz"],
     ["imagesTr/BRATS_001.nii.gz: has no number of a channel", "imagesTr/BRATS_001_0000.nii.gz: this channel (FLAIR) of"]),
    ("nnunet", ["+imagesTr/BRATS_001_0002.nii.gz"], ["imagesTr/BRATS_001_0002.nii.gz: dataset.json names 2 channels only"]),
    ("nnunet", ["-labelsTr/BRATS_002.nii.gz"], ["imagesTr/BRATS_002_0000.nii.gz: has no label: add labelsTr/BRATS_002.nii.gz"]),
    ("nnunet", ["labelsTr>labels"], ["labelsTr: there is no such folder: name the folder of the data set"]),
    ("nnunet", ["imagesTr>x", "labelsTr>imagesTr", "x>labelsTr"],
     ["imagesTr/BRATS_001.nii.gz: has no number of a channel", "imagesTr/BRATS_002.nii.gz: has no number of a channel"]),
    ("nnunet", ["+dataset.json=[]"], ["dataset.json: is not a dataset.json of the Decathlon or of nnU-Net"]),
    # Pascal VOC
    ("voc", ["+ImageSets/Segmentation/val.txt=2007_000032"], ["ImageSets/Segmentation/val.txt names 2007_000032, which …remove one"]),
    ("voc", ["-ImageSets/Segmentation/val.txt"], ["ImageSets/Segmentation/val.txt: there is no such list"]),
    ("voc", ["-JPEGImages/2007_000033.jpg", "+ImageSets/Segmentation/train.txt=2007_000032\n2007_000039\n"],
     ["ImageSets/Segmentation/val.txt names 2007_000033, but JPEGImages/2007_000033.jpg does not exist: add it, or remove",
      "JPEGImages/2007_000039.jpg: has no label: add SegmentationClass/2007_000039.png"]),
]  # fmt: skip

WRONG_FILES: list[tuple[dict[str, Any], list[str], list[str], list[str]]] = [
    # data.files, the tree, what is broken, the lines
    (PATTERNS, OWN, ["-x_lung.nii.gz"], ["x_ct.nii.gz: has no label: add x_lung.nii.gz, or move the image away"]),
    (PATTERNS, OWN, ["-x_fov.png"], ["x_ct.nii.gz: has no field of view: add x_fov.png, or move all fields"]),
    (PATTERNS, OWN, ["-*_ct.nii.gz"], ["data.files.image '{id}_ct.nii.gz': no file below ROOT matches; there are x_fov.png, …correct the pattern"]),
    (PATTERNS, OWN, ["-*_ct.nii.gz", "-*_lung.nii.gz", "-*_fov.png"],
     ["data.files.image '{id}_ct.nii.gz': no file below ROOT matches; there is no image at all: correct",
      "data.files.label '{id}_lung.nii.gz': no file below ROOT matches; there is no image at all: correct"]),
    ({"image": "**/{id}.png", "label": "m/{id}.gif"}, ["a/1.png", "b/1.png", "m/1.gif"], [],
     ["a/1.png and b/1.png are both data.files.image of the case '1': remove one, or make"]),
    ({"image": ["{id}_t1.nii", "{id}_t2.nii"], "label": "{id}_s.nii"}, ["a_t1.nii", "b_t1.nii", "b_t2.nii", "a_s.nii", "b_s.nii"], [],
     ["a_t1.nii: the channel a_t2.nii is missing: add it, or move the image away"]),
    ({"image": "{group}/{id}.png", "label": "{id}.gif"}, ["p/1.png", "q/1.png", "1.gif"], [],
     ["1.gif: may belong to p/1 and q/1: put {group} into data.files.label"]),
    ({"image": "{id}a.png", "label": "b{id}.png"}, ["bxa.png", "ya.png", "by.png"], [],
     ["bxa.png: matches both data.files.image and data.files.label: make one"]),
    (TABLE, CELLS, [], ["cases.csv: there is no such table; data.files.table is relative to data.root"]),
    (TABLE, [*CELLS, "cases.csv="], [], ["cases.csv: holds no row below the names of the columns: add one row per case"]),
    (TABLE, [*CELLS, "cases.csv=image,lable\na.png,a_m.png\n"], [], ["cases.csv:1: has no column label: rename the column lable"]),
    (TABLE, [*CELLS, "cases.csv=id,scan,label\n1,a.png,a_m.png\n"], [], ["cases.csv:1: has no column image: add it; there are id, scan"]),
    (TABLE, [*CELLS, "cases.csv=image,label,split\na.png,a_m.png,train\nb.png,c_m.png,tran\n"], [],
     ["cases.csv:3: c_m.png does not exist: correct the label", "cases.csv:3: its split is 'tran': give train, validation"]),
    (TABLE, [*CELLS, "cases.csv=image,label,group\na.png,a_m.png,p\nb.png,,\n"], [],
     ["cases.csv:3: has no group, and other rows have one: fill it in", "cases.csv:3: has no label: fill it in, or remove"]),
    (TABLE, [*CELLS, "cases.csv=id,image,label\n1,a.png,a_m.png\n1,b.png,b_m.png\n"], [], ["a.png and b.png are both case '1'"]),
    (TABLE, [*CELLS, "cases.csv=image,label\na.png,a_m.png\nb.png,a_m.png\n"], [],
     ["cases.csv: a_m.png belongs to the cases a and b: correct one row"]),
    (TABLE, [*CELLS, "cases.csv=image,label\na.png,a.png\n"], [], ["cases.csv: a.png is image and label of the case a: correct"]),
    (TABLE, [*CELLS, "cases.csv=image,label\na.png,a_m.png;b_m.png\n"], [], ["cases.csv:2: has 2 files as label: give one"]),
    (TABLE, [*CELLS, "cases.csv=image,label\na.png,b.png,a_m.png\n"], [], ["cases.csv:2: has 3 cells and the table 2 columns: quote"]),
    (TABLE, [*CELLS, "cases.csv=id,image,label\n../x,a.png,a_m.png\n"], [], ["cases.csv:2: its id '../x' is not the name of an"]),
    (TABLE, [*CELLS, "cases.csv=image,image,label\na.png,b.png,a_m.png\n"], [], ["cases.csv:1: has the column image twice: rename"]),
]  # fmt: skip


def check(lines: list[str], expected: list[str]) -> None:
    assert len(lines) == len(expected), lines
    for line, start in zip(lines, expected, strict=True):
        head, _, tail = start.partition("…")
        assert line.startswith(head) and tail in line[len(head) :], f"{line}\nis not\n{start}"


def test_there_are_as_many_wrong_trees_as_were_promised() -> None:
    assert len(WRONG) + len(WRONG_FILES) >= 60


@pytest.mark.parametrize(("layout", "changes", "expected"), WRONG)
def test_what_is_wrong_with_a_data_set_is_told(
    layout: str, changes: list[str], expected: list[str], tmp_path: Path
) -> None:
    check(lines_of(broken(tmp_path, TREES[layout], changes), layout), expected)


@pytest.mark.parametrize(("files", "tree", "changes", "expected"), WRONG_FILES)
def test_what_is_wrong_with_files_of_any_names_is_told(
    files: dict[str, Any], tree: list[str], changes: list[str], expected: list[str], tmp_path: Path
) -> None:
    check(lines_of(broken(tmp_path, tree, changes), "files", files), expected)


def test_a_table_that_is_not_utf_8_is_told(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_bytes("image,label\nKöpfe.png,a.png\n".encode("cp1252"))
    assert lines_of(tmp_path, "files", TABLE) == ["cases.csv: is not a text in UTF-8: save it as CSV UTF-8"]
