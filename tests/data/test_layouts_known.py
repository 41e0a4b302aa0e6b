"""Known data sets as they are unpacked: real names and quirks on tiny made trees, and the real images where they are."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import pytest
from trees import MSD, NNUNET, TREES, make

from r2seg.config import Data
from r2seg.data.cases import Case
from r2seg.data.layouts import LAYOUTS, LayoutError, find_cases, recognised_layout
from r2seg.data.layouts.dataset_json import read_dataset_json


def cases_in(root: Path, layout: str) -> list[Case]:
    return find_cases(Data(root=root, layout=layout, labels={"a": 1}))


def errors_in(root: Path, layout: str) -> list[str]:
    with pytest.raises(LayoutError) as caught:
        cases_in(root, layout)
    return str(caught.value).replace(f"{root}/", "").splitlines()


def without(names: Iterable[str], part: str) -> list[str]:
    kept = [name for name in names if part not in name]
    assert len(kept) < len(list(names))
    return kept


@pytest.mark.parametrize("layout", TREES)
def test_a_data_set_is_recognised_by_its_names_alone(layout: str, tmp_path: Path) -> None:
    assert recognised_layout(make(tmp_path / "set", TREES[layout])) == layout


@pytest.mark.parametrize("layout", TREES)
def test_the_folder_above_the_data_set_will_do(layout: str, tmp_path: Path) -> None:
    make(tmp_path / "downloads" / "set", TREES[layout])
    above, own = cases_in(tmp_path, layout), cases_in(tmp_path / "downloads" / "set", layout)
    assert above == own and own


@pytest.mark.parametrize("layout", TREES)
def test_another_layout_is_answered_with_the_one_that_the_folder_looks_like(layout: str, tmp_path: Path) -> None:
    root = make(tmp_path, TREES[layout])
    other = "voc" if layout != "voc" else "drive"
    lines = errors_in(root, other)
    assert all(f"set data.layout: {layout}" in line for line in lines)


def test_nothing_is_recognised_in_an_empty_folder(tmp_path: Path) -> None:
    assert recognised_layout(tmp_path) is None
    assert recognised_layout(tmp_path / "missing") is None


# DRIVE


def test_drive_has_its_official_test_set_its_fields_of_view_and_the_second_observer_of_the_test(tmp_path: Path) -> None:
    root = make(tmp_path, TREES["drive"])
    test, _, training, _ = cases_in(root, "drive")
    assert test == Case(
        "01_test",
        (root / "test/images/01_test.tif",),
        (root / "test/1st_manual/01_manual1.gif",),
        mask=root / "test/mask/01_test_mask.gif",
        observers=(root / "test/2nd_manual/01_manual2.gif",),
        group="01_test",
        split="test",
    )
    assert training == Case(
        "21_training",
        (root / "training/images/21_training.tif",),
        (root / "training/1st_manual/21_manual1.gif",),
        mask=root / "training/mask/21_training_mask.gif",
        group="21_training",
    )


def test_a_copy_of_drive_without_the_manuals_of_the_test_has_the_training_cases(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make(tmp_path, without(without(TREES["drive"], "test/1st_manual"), "2nd_manual"))
    assert [case.id for case in cases_in(root, "drive")] == ["21_training", "22_training"]
    assert "test: has no 1st_manual/, so there are no labelled test cases" in caplog.text


def test_the_training_folder_of_drive_alone_is_enough(tmp_path: Path) -> None:
    root = make(tmp_path, TREES["drive"])
    found = cases_in(root / "training", "drive")
    assert [(case.id, case.split) for case in found] == [("21_training", None), ("22_training", None)]


def test_drive_without_its_training_labels_is_not_taken_from_the_test_folder(tmp_path: Path) -> None:
    root = make(tmp_path, without(TREES["drive"], "training/1st_manual"))
    assert errors_in(root, "drive") == [
        "training/1st_manual: there is no such folder: name DRIVE's own folder in data.root, with training/ and test/ as unpacked"
    ]


# STARE


@pytest.mark.parametrize(
    "names",
    [
        TREES["stare"],
        [name.rpartition("/")[2] for name in TREES["stare"]],
        [name.rpartition("/")[2].replace(".ppm.gz", ".png") for name in TREES["stare"]],
    ],
    ids=["in folders", "flat", "flat png"],
)
def test_stare_pairs_its_two_observers(names: list[str], tmp_path: Path) -> None:
    first, second = cases_in(make(tmp_path, names), "stare")
    assert (first.id, second.id, first.group, first.split, first.mask) == ("im0001", "im0002", "im0001", None, None)
    assert first.reference.name.startswith("im0001.ah.")
    assert [path.name[:9] for path in first.observers] == ["im0001.vk"]


# CHASE_DB1


def test_the_eyes_of_a_child_are_one_group_of_chase_db1(tmp_path: Path) -> None:
    root = make(tmp_path, TREES["chase_db1"])
    left, right, other = cases_in(root, "chase_db1")
    assert [case.group for case in (left, right, other)] == ["01", "01", "02"]
    assert left.reference == root / "Image_01L_1stHO.png"
    assert left.observers == (root / "Image_01L_2ndHO.png",)
    assert left.mask is None and left.split is None


def test_fields_of_view_of_chase_db1_are_used_where_they_are(tmp_path: Path) -> None:
    root = make(tmp_path, [*TREES["chase_db1"], *(f"fov_mask/Image_{eye}.gif" for eye in ("01L", "01R", "02L"))])
    assert cases_in(root, "chase_db1")[0].mask == root / "fov_mask/Image_01L.gif"
    (root / "fov_mask/Image_01R.gif").unlink()
    assert errors_in(root, "chase_db1") == [
        "Image_01R.jpg: has no field of view: add fov_mask/Image_01R.gif, or move all fields of view away"
    ]


def test_a_second_observer_who_did_not_draw_everything_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make(tmp_path, without(TREES["chase_db1"], "01R_2ndHO"))
    assert [len(case.observers) for case in cases_in(root, "chase_db1")] == [1, 0, 1]
    assert "observer 1 did not draw 1 case: Image_01R" in caplog.text


# HRF


def test_hrf_is_read_from_one_archive_or_from_one_for_each_state(tmp_path: Path) -> None:
    root = make(tmp_path / "all", TREES["hrf"])
    one = cases_in(root, "hrf")
    assert [case.id for case in one] == ["01_dr", "01_g", "01_h"]
    assert (one[0].images[0].name, one[0].reference.name) == ("01_dr.JPG", "01_dr.tif")
    assert one[0].mask == root / "mask/01_dr_mask.tif"
    states = (("healthy", "h"), ("diabetic_retinopathy", "dr"), ("glaucoma", "g"))
    names = [
        name
        for state, short in states
        for name in (
            f"{state}/01_{short}.jpg",
            f"{state}_manualsegm/01_{short}.tif",
            f"{state}_fovmask/01_{short}_mask.tif",
        )
    ]
    several = cases_in(make(tmp_path / "states", names), "hrf")
    assert [case.id for case in several] == ["01_dr", "01_g", "01_h"]
    assert several[2].mask == tmp_path / "states/healthy_fovmask/01_h_mask.tif"


# ISIC


def test_isic_keeps_its_official_parts(tmp_path: Path) -> None:
    found = cases_in(make(tmp_path, TREES["isic"]), "isic")
    assert {case.id: case.split for case in found} == {
        "ISIC_0000000": "train",
        "ISIC_0000001": "train",
        "ISIC_0012169": "test",
        "ISIC_0012255": "validation",
    }
    assert {case.group for case in found} == {case.id for case in found}


def test_training_images_of_isic_alone_are_free_to_be_divided(tmp_path: Path) -> None:
    names = without(without(TREES["isic"], "Validation"), "Test")
    assert {case.split for case in cases_in(make(tmp_path, names), "isic")} == {None}


def test_parts_of_isic_without_ground_truth_are_left_out_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make(tmp_path, without(TREES["isic"], "Task1_Validation"))
    assert {case.split for case in cases_in(root, "isic")} == {None, "test"}
    assert "ISIC2018_Task1-2_Validation_Input: has no ground truth here, so its images are left out" in caplog.text


def test_superpixels_of_isic_2017_are_no_images(tmp_path: Path) -> None:
    names = [
        "ISIC-2017_Training_Data/ISIC_0000000.jpg",
        "ISIC-2017_Training_Data/ISIC_0000000_superpixels.png",
        "ISIC-2017_Training_Data/ISIC-2017_Training_Data_metadata.csv",
        "ISIC-2017_Training_Part1_GroundTruth/ISIC_0000000_segmentation.png",
        "ISIC-2017_Training_Part2_GroundTruth/ISIC_0000000_features.json",
        "ISIC-2017_Test_v2_Data/ISIC_0012086.jpg",
        "ISIC-2017_Test_v2_Part1_GroundTruth/ISIC_0012086_segmentation.png",
    ]
    found = cases_in(make(tmp_path, names), "isic")
    assert [(case.id, case.split) for case in found] == [("ISIC_0000000", None), ("ISIC_0012086", "test")]


def test_isic_2016_writes_segmentation_with_a_capital(tmp_path: Path) -> None:
    names = [
        "ISBI2016_ISIC_Part1_Training_Data/ISIC_0000000.jpg",
        "ISBI2016_ISIC_Part1_Training_GroundTruth/ISIC_0000000_Segmentation.png",
    ]
    (case,) = cases_in(make(tmp_path, names), "isic")
    assert case.reference.name == "ISIC_0000000_Segmentation.png"


# Kaggle's lungs


def test_slices_of_one_patient_are_one_group(tmp_path: Path) -> None:
    root = make(tmp_path, [f"2d_{kind}/ID_0000_Z_{z}.tif" for kind in ("images", "masks") for z in ("0142", "0150")])
    first, second = cases_in(root, "kaggle_lung")
    assert (first.id, first.group, second.group) == ("ID_0000_Z_0142", "0000", "0000")


def test_slices_and_volumes_are_told_apart_by_the_root(tmp_path: Path) -> None:
    volumes = [f"3d_images/{kind}_00{n}.nii.gz" for kind in ("IMG", "MASK") for n in ("02", "59")]
    root = make(tmp_path, [*TREES["kaggle_lung"], *volumes])
    assert errors_in(root, "kaggle_lung") == [
        f"{root}: holds slices and volumes: name one of them in data.root, 2d_images or 3d_images"
    ]
    assert [case.id for case in cases_in(root / "2d_images", "kaggle_lung")] == ["ID_0000_Z_0142", "ID_0067_Z_0238"]
    first, _ = cases_in(root / "3d_images", "kaggle_lung")
    assert (first.id, first.group, first.reference.name) == ("IMG_0002", "0002", "MASK_0002.nii.gz")


# LCTSC


def test_a_patient_of_lctsc_is_a_series_and_a_file_of_structures(tmp_path: Path) -> None:
    root = make(tmp_path, TREES["lctsc"])
    test, train = cases_in(root, "lctsc")
    study = root / "LCTSC-Train-S1-001/03-03-2004-NA-NA-08186"
    assert train == Case(
        "LCTSC-Train-S1-001",
        (study / "79262",),
        (study / "1.000000-56597/1-1.dcm",),
        group="LCTSC-Train-S1-001",
    )
    assert (test.id, test.split) == ("LCTSC-Test-S1-101", "test")


def test_copies_of_lctsc_in_nifti_are_paired_by_name(tmp_path: Path) -> None:
    names = [f"{folder}/LCTSC-{n}.nii.gz" for folder in ("images", "labels") for n in ("101", "Test-S1-102")]
    found = cases_in(make(tmp_path, names), "lctsc")
    assert [(case.id, case.split) for case in found] == [("LCTSC-101", None), ("LCTSC-Test-S1-102", "test")]


# Decathlon and nnU-Net


def test_the_decathlon_is_read_by_its_list_without_the_files_that_macos_leaves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make(tmp_path, [*TREES["msd"], "imagesTr/lung_099.nii.gz"])
    found = cases_in(root, "msd")
    assert [case.id for case in found] == ["lung_001", "lung_003"]
    assert found[0].reference == root / "labelsTr/lung_001.nii.gz"
    assert "imagesTs: has no labels, so it is left out" in caplog.text
    assert "does not list 1 image, left out: lung_099.nii.gz" in caplog.text


def test_a_task_without_its_list_is_paired_by_name(tmp_path: Path) -> None:
    found = cases_in(make(tmp_path, without(TREES["msd"], "dataset.json")), "msd")
    assert [case.id for case in found] == ["lung_001", "lung_003"]


def test_both_dialects_of_dataset_json_are_read(tmp_path: Path) -> None:
    msd = read_dataset_json(make(tmp_path / "msd", TREES["msd"]))
    assert msd is not None
    assert (msd.labels, msd.ignore_label, msd.channels) == ({"cancer": (1,)}, None, ("CT",))
    assert msd.training is not None and len(msd.training) == len(MSD["training"])
    nnunet = read_dataset_json(make(tmp_path / "nnunet", TREES["nnunet"]))
    assert nnunet is not None
    assert (nnunet.labels, nnunet.ignore_label) == ({"whole tumor": (1, 2), "core": (2,)}, 3)
    assert (nnunet.channels, nnunet.training) == (tuple(NNUNET["channel_names"].values()), None)
    assert read_dataset_json(tmp_path) is None


def test_nnunet_joins_channels_and_has_a_test_part_where_there_are_labels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make(tmp_path, TREES["nnunet"])
    found = cases_in(root, "nnunet")
    assert [(case.id, len(case.images), case.split) for case in found] == [
        ("BRATS_001", 2, None),
        ("BRATS_002", 2, None),
    ]
    assert "imagesTs: there is no labelsTs/, so it is left out" in caplog.text
    make(root, ["labelsTs/BRATS_485.nii.gz"])
    assert [(case.id, case.split) for case in cases_in(root, "nnunet")][-1] == ("BRATS_485", "test")


# Pascal VOC


def test_pascal_voc_fixes_the_parts_of_its_cases(tmp_path: Path) -> None:
    root = make(tmp_path / "VOCdevkit" / "VOC2012", TREES["voc"])
    train, validation = cases_in(root.parent, "voc")
    assert train == Case(
        "2007_000032",
        (root / "JPEGImages/2007_000032.jpg",),
        (root / "SegmentationClass/2007_000032.png",),
        group="2007_000032",
        split="train",
    )
    assert validation.split == "validation"


def test_the_labels_of_pascal_voc_are_its_twenty_classes() -> None:
    voc = LAYOUTS["voc"]
    assert voc.labels is not None and len(voc.labels) == 20
    # VOC's development kit numbers the classes in alphabetical order, from 1.
    assert list(voc.labels) == sorted(voc.labels) and list(voc.labels.values()) == list(range(1, 21))
    assert voc.ignore_label == 255


# the real images


@pytest.mark.real
def test_chase_db1_as_it_lies_has_fourteen_eyes_of_seven_children(real_data: Path) -> None:
    found = cases_in(real_data / "chase_db1", "chase_db1")
    assert len(found) == 14 and len({case.group for case in found}) == 7
    assert all(case.mask and case.mask.is_file() and len(case.observers) == 1 for case in found)
    assert recognised_layout(real_data / "chase_db1") == "chase_db1"


@pytest.mark.real
def test_isic_2018_as_it_lies_has_its_images(real_data: Path) -> None:
    found = cases_in(real_data / "isic2018", "isic")
    assert len(found) == 150 and all(case.reference.is_file() for case in found)
    assert {case.split for case in found} == {None}
    assert recognised_layout(real_data / "isic2018") == "isic"


@pytest.mark.real
def test_lctsc_as_it_lies_has_its_volumes(real_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = cases_in(real_data / "lctsc", "lctsc")
    assert [case.id for case in found] == [f"LCTSC-{n}" for n in (101, 102, 103, 104)]
    assert recognised_layout(real_data / "lctsc") == "lctsc"
    assert not caplog.records
