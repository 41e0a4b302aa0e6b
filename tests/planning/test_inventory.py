"""Which files belong together, from names in the manners of many data sets; nothing is read."""

from __future__ import annotations

import pytest

from r2seg.errors import UserError
from r2seg.planning.inventory import Inventory, take_inventory

IDS = ("003", "007", "021", "104")


def named(*patterns: str, ids: tuple[str, ...] = IDS) -> list[str]:
    return [pattern.replace("#", name) for pattern in patterns for name in ids]


def first(inventory: Inventory) -> tuple[str, str, str | None, tuple[str, ...]]:
    case = inventory.cases[0]
    return ",".join(case.images), case.label, case.mask, case.observers


# Every pair in another manner; # is the case.
PAIRS = [
    ("#_image.nii.gz", "#_lungmask.nii.gz"),
    ("#.nii.gz", "#_mask.nii.gz"),
    ("#.nii", "#_seg.nii"),
    ("#.nrrd", "#-label.nrrd"),
    ("#.nrrd", "#.seg.nrrd"),
    ("Image_#.jpg", "Image_#_1stHO.png"),
    ("ISIC_#.jpg", "ISIC_#_segmentation.png"),
    ("#_training.tif", "#_manual1.gif"),
    ("#.png", "#_gt.png"),
    ("#_x.mha", "#_x_groundtruth.mha"),
    ("img_#.tif", "mask_#.tif"),
    ("IMG_#.nii.gz", "MASK_#.nii.gz"),
    ("volume-#.nii", "segmentation-#.nii"),
    ("case_#_ct.nii.gz", "case_#_liver_label.nii.gz"),
    ("CT #.nii.gz", "CT # segmentation.nii.gz"),
    ("images/#.png", "labels/#.png"),
    ("images/#.png", "masks/#.png"),
    ("images/#.jpg", "masks/#_mask.png"),
    ("images/img_#.png", "annotations/img_#.png"),
    ("Images/#.bmp", "GroundTruth/#.bmp"),
    ("imagesTr/x_#.nii.gz", "labelsTr/x_#.nii.gz"),
    ("Training_Input/a#.jpg", "Training_GroundTruth/a#_segmentation.png"),
    ("some/place/scans/#.nii.gz", "some/place/manual/#.nii.gz"),
    ("patient_#/image.nii.gz", "patient_#/label.nii.gz"),
    ("patient_#/ct.nii.gz", "patient_#/lung_mask.nii.gz"),
    ("patient_#/patient_#.nii.gz", "patient_#/patient_#_seg.nii.gz"),
    ("patient_#/CT/volume.mha", "patient_#/labels/volume.mha"),
    ("images/patient_#/scan.nii.gz", "labels/patient_#/scan.nii.gz"),
]


@pytest.mark.parametrize(("image", "label"), PAIRS)
def test_images_and_label_maps_are_told_apart_and_paired(image: str, label: str) -> None:
    found = take_inventory(named(image, label))
    assert len(found.cases) == len(IDS) and not found.doubts
    for number, case in zip(IDS, found.cases, strict=True):
        assert case.images == (image.replace("#", number),) and case.label == label.replace("#", number)
        assert number in case.id
    patterns = found.patterns
    assert patterns is not None
    for role, given in (("image", image), ("label", label)):
        for case, number in zip(found.cases, IDS, strict=True):
            assert str(patterns[role]).replace("{id}", case.id) == given.replace("#", number)


def test_evidence_names_what_told_the_files_apart() -> None:
    found = take_inventory(named("#_image.nii.gz", "#_lungmask.nii.gz"))
    assert found.label_word == "lungmask"
    assert found.evidence == (
        "images: *_image.nii.gz, by '_image' in their names",
        "label maps: *_lungmask.nii.gz, by '_lungmask' in their names",
    )


def test_chase_has_a_second_observer_and_fields_of_view() -> None:
    found = take_inventory(
        named(
            "Image_#.jpg", "Image_#_1stHO.png", "Image_#_2ndHO.png", "fov_mask/Image_#.gif", ids=("01L", "01R", "02L")
        )
    )
    assert first(found) == (
        "Image_01L.jpg",
        "Image_01L_1stHO.png",
        "fov_mask/Image_01L.gif",
        ("Image_01L_2ndHO.png",),
    )
    assert found.patterns == {
        "image": "{id}.jpg",
        "label": "{id}_1stHO.png",
        "mask": "fov_mask/{id}.gif",
        "observers": ["{id}_2ndHO.png"],
    }
    assert not found.doubts


def test_masks_beside_labels_are_fields_of_view_and_that_is_told_as_a_guess() -> None:
    found = take_inventory(named("images/#.png", "labels/#.png", "masks/#.png"))
    assert first(found) == ("images/003.png", "labels/003.png", "masks/003.png", ())
    assert len(found.doubts) == 1 and "masks/*.png: taken as fields of view" in found.doubts[0]


def test_training_and_test_folders_are_parts_and_equal_names_in_both_are_two_cases() -> None:
    files = named(
        "training/images/#_training.tif", "training/1st_manual/#_manual1.gif", "training/mask/#_training_mask.gif"
    )
    files += named(
        "test/images/#_test.tif", "test/1st_manual/#_manual1.gif", "test/2nd_manual/#_manual2.gif", "test/mask/#_test_mask.gif"
    )  # fmt: skip
    found = take_inventory(files)
    assert [case.part for case in found.cases] == ["test"] * 4 + ["train"] * 4 or {
        case.part for case in found.cases
    } == {
        "test",
        "train",
    }
    assert len({case.id for case in found.cases}) == 8
    for case in found.cases:
        folder = "training" if case.part == "train" else "test"
        assert all(path.startswith(folder) for path in (*case.images, case.label, str(case.mask), *case.observers))
        assert len(case.observers) == (case.part == "test")


def test_modalities_are_channels_in_a_fixed_order() -> None:
    found = take_inventory(named(*(f"BraTS_#/BraTS_#_{name}.nii.gz" for name in ("seg", "flair", "t2", "t1", "t1ce"))))
    assert found.patterns is not None
    assert found.patterns["image"] == [f"{{id}}/{{id}}_{name}.nii.gz" for name in ("t1", "t1ce", "t2", "flair")]
    assert found.cases[0].label == "BraTS_003/BraTS_003_seg.nii.gz"


def test_numbered_channels_are_joined_but_numbered_slices_are_not() -> None:
    channels = named("imagesTr/#_0000.nii.gz", "imagesTr/#_0001.nii.gz", "labelsTr/#.nii.gz")
    assert take_inventory(channels).patterns == {
        "image": ["imagesTr/{id}_0000.nii.gz", "imagesTr/{id}_0001.nii.gz"],
        "label": "labelsTr/{id}.nii.gz",
    }
    slices = [f"{folder}/ID_0000_Z_{z:04d}.tif" for folder in ("images", "labels") for z in range(3)]
    assert [case.id for case in take_inventory(slices).cases] == [f"ID_0000_Z_{z:04d}" for z in range(3)]


def test_slices_in_folders_of_patients_have_the_folder_as_group() -> None:
    files = [
        f"TCGA_{patient}/TCGA_{patient}_{z}{end}.tif"
        for patient in ("A1", "B2")
        for z in (1, 2)
        for end in ("", "_mask")
    ]
    found = take_inventory(files)
    assert found.patterns == {"image": "{group}/{id}.tif", "label": "{group}/{id}_mask.tif"}
    assert [case.group for case in found.cases] == ["TCGA_A1"] * 2 + ["TCGA_B2"] * 2
    names = [
        f"{kind}/{name}/{z:03d}.png" for kind in ("scans", "annotations") for name in ("anna", "bert") for z in (1, 2)
    ]
    found = take_inventory(names)
    assert [case.id for case in found.cases] == ["anna/001", "anna/002", "bert/001", "bert/002"]
    assert [case.group for case in found.cases] == ["anna", "anna", "bert", "bert"]


def test_two_candidates_for_the_label_are_both_named() -> None:
    found = take_inventory(named("#_ct.nrrd", "#_lung_label.nrrd", "#_liver_label.nrrd"))
    assert len(found.cases) == 4
    assert any(
        "two candidates for the label map" in text and "_lung_label" in text and "_liver_label" in text
        for text in found.doubts
    ), found.doubts


def test_where_names_do_not_tell_the_values_decide_or_it_is_refused() -> None:
    files = named("a/#.png", "b/#.png")
    with pytest.raises(UserError, match="the names do not say which files are label maps"):
        take_inventory(files)
    found = take_inventory(files, is_label_map=lambda path: path.startswith("b/"))
    assert found.patterns == {"image": "a/{id}.png", "label": "b/{id}.png"}
    assert "b/*.png: label maps by the values in their files, not by name" in found.evidence
    pairs = take_inventory(named("#.jpg", "#.png"), is_label_map=lambda path: path.endswith(".png"))
    assert pairs.patterns == {"image": "{id}.jpg", "label": "{id}.png"}


def test_what_is_not_used_is_told_by_name() -> None:
    files = [*named("#.jpg", "#_mask.png"), *named("#_superpixels.png"), "105.jpg", "readme_figure.png"]
    found = take_inventory(files)
    assert len(found.cases) == 4
    assert any("left out by name" in text and "superpixels" in text for text in found.evidence)
    assert any("105.jpg" in text for text in found.doubts), found.doubts
    assert any("readme_figure" in text for text in found.doubts), found.doubts


def test_a_case_without_all_channels_is_left_out_and_told() -> None:
    files = named("#/t1.nii.gz", "#/t2.nii.gz", "#/seg.nii.gz")
    files.remove("007/t2.nii.gz")
    found = take_inventory(files)
    assert [case.id for case in found.cases] == ["003", "021", "104"]
    assert any("fewer than 2 channels: 007" in text for text in found.doubts)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "holds no image in a known format"),
        (named("labels/#.png", "gt/#.png"), "all files are label maps by their names: gt/*.png, labels/*.png"),
        (
            [*named("images/IMG_#.png"), *named("labels/MASK_#.png", ids=("1", "2"))],
            "no image and label map have the same name",
        ),
        (named("images/#.png"), "the names do not say which files are label maps: images/*.png"),
    ],
)
def test_a_folder_that_cannot_be_paired_is_refused_with_what_was_found(files: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        take_inventory(files)
    assert message in str(caught.value)
