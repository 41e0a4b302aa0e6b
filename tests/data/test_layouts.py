"""Layouts of data sets: which files belong together, and what is refused because it could mean two things."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from r2seg.config import Data
from r2seg.data.cases import Case, find_images, join_channels
from r2seg.data.layouts import LAYOUTS, find_cases
from r2seg.errors import UserError


def make(root: Path, *names: str) -> Path:
    """Empty files; finding cases reads names only."""
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def cases_of(root: Path, group: str | None = None) -> list[Case]:
    return find_cases(Data(root=root, labels={"a": 1}, group=group))


def error_of(root: Path, group: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        cases_of(root, group)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{root}/", "")


def test_images_and_labels_pair_by_relative_stem_whatever_their_formats(tmp_path: Path) -> None:
    root = make(
        tmp_path,
        "images/b.jpg", "labels/b.png",
        "images/site 1/ct.001.nii.gz", "labels/site 1/ct.001.nrrd",
        "images/a/é 肺.PNG", "labels/a/é 肺.gif",
    )  # fmt: skip
    found = cases_of(root)
    assert [case.id for case in found] == ["a/é 肺", "b", "site 1/ct.001"]
    assert found[0] == Case("a/é 肺", (root / "images/a/é 肺.PNG",), (root / "labels/a/é 肺.gif",), group="a/é 肺")
    assert found[2].reference == root / "labels/site 1/ct.001.nrrd"
    assert {case.mask for case in found} == {None}


def test_numbered_files_of_one_label_are_its_channels_in_order(tmp_path: Path) -> None:
    root = make(tmp_path, *(f"images/s/a_{i:04}.nii.gz" for i in (2, 0, 1)), "images/s/b_0000.nii.gz")
    make(root, "labels/s/a.nii.gz", "labels/s/b.nii.gz")
    a, b = cases_of(root)
    assert (a.id, [path.name for path in a.images]) == ("s/a", [f"a_000{i}.nii.gz" for i in range(3)])
    assert (b.id, len(b.images)) == ("s/b", 1)


@pytest.mark.parametrize(
    "names", [("ISIC_0000000", "ISIC_0000001"), ("ID_0000_Z_0142", "ID_0001_Z_0000"), ("a_0000", "a_0001")]
)
def test_numbers_that_belong_to_the_name_are_not_channels(tmp_path: Path, names: tuple[str, ...]) -> None:
    root = make(tmp_path, *(f"{folder}/{name}.png" for name in names for folder in ("images", "labels")))
    assert [case.id for case in cases_of(root)] == list(names)
    assert all(len(case.images) == 1 for case in cases_of(root))


def test_channels_that_are_not_counted_from_zero_without_a_gap_are_not_a_set(tmp_path: Path) -> None:
    files = [
        tmp_path / name for name in ("a_0000.png", "a_0002.png", "b_0001.png", "_0000.png", "c_000.png", "c_00000.png")
    ]
    assert join_channels(files, tmp_path) == {}
    root = make(tmp_path / "set", "images/a_0000.png", "images/a_0002.png", "labels/a.png")
    assert error_of(root).startswith(
        "2 of 2 images in images have no label of the same name in labels: a_0000, a_0002; "
    )


def test_images_without_labels_are_named(tmp_path: Path) -> None:
    root = make(tmp_path, *(f"images/{i}.png" for i in range(8)), "labels/0.png")
    message = error_of(root)
    assert message.startswith("7 of 8 images in ")
    assert "1, 2, 3, 4, 5 and 2 more; add the labels or move the images away" in message


def test_two_files_of_one_stem_are_refused(tmp_path: Path) -> None:
    root = make(tmp_path, "images/a.jpg", "images/a.png", "labels/a.png")
    assert error_of(root) == "images/a.jpg and images/a.png are both case 'a': rename or remove one"


def test_two_labels_of_one_stem_are_refused(tmp_path: Path) -> None:
    root = make(tmp_path, "images/a.png", "labels/a.gif", "labels/a.png")
    assert error_of(root) == "labels/a.gif and labels/a.png have the same name: remove one"


def test_two_files_for_one_channel_are_refused(tmp_path: Path) -> None:
    root = make(tmp_path, "images/a_0000.jpg", "images/a_0000.png", "labels/a.png")
    assert error_of(root) == "images/a_0000.jpg and images/a_0000.png have the same name: rename or remove one"


def test_one_file_and_a_set_of_channels_for_one_label_are_refused(tmp_path: Path) -> None:
    root = make(tmp_path, "images/a.png", "images/a_0000.png", "images/a_0001.png", "labels/a.png")
    assert error_of(root) == "images/a.png and images/a_0000.png are both case 'a': rename or remove one"


def test_fields_of_view_pair_too_and_are_all_or_none(tmp_path: Path) -> None:
    root = make(tmp_path, "images/a_0000.png", "images/a_0001.png", "labels/a.png", "masks/a.gif")
    assert cases_of(root)[0].mask == root / "masks/a.gif"
    make(root, "images/b.png", "labels/b.png")
    assert error_of(root) == "masks has no field of view for b; add them or remove the folder masks/"


def test_hidden_and_foreign_files_are_passed_over(tmp_path: Path) -> None:
    root = make(tmp_path, "images/a.png", "labels/a.png", "images/._a.png", "images/.cache/b.png", "images/Thumbs.db")
    make(root, "images/notes.txt", "images/.png", "images/a.raw", "labels/.DS_Store")
    assert [case.id for case in cases_of(root)] == ["a"]


def test_the_data_folder_itself_may_be_hidden(tmp_path: Path) -> None:
    root = make(tmp_path / ".data" / "set", "images/a.png", "labels/a.png")
    assert [case.id for case in cases_of(root)] == ["a"]


def test_linked_files_and_folders_are_found_and_loops_end(tmp_path: Path) -> None:
    store = make(tmp_path / "store", "images/x.png", "deep/y.png")
    root = make(tmp_path / "set")
    (root / "images" / "a.png").symlink_to(store / "images" / "x.png")
    (root / "images" / "site").symlink_to(store / "deep")
    (root / "images" / "loop").symlink_to(root / "images")
    assert find_images(root / "images") == [root / "images/a.png", root / "images/site/y.png"]


def test_a_link_to_a_missing_file_is_listed_so_that_reading_it_reports_the_error(tmp_path: Path) -> None:
    root = make(tmp_path, "labels/a.png")
    (root / "images" / "a.png").symlink_to(tmp_path / "gone.png")
    assert [case.id for case in cases_of(root)] == ["a"]


def test_the_group_is_what_the_pattern_finds_in_the_id(tmp_path: Path) -> None:
    root = make(
        tmp_path, *(f"{folder}/Image_{name}.png" for name in ("01L", "01R", "02L") for folder in ("images", "labels"))
    )
    assert [case.group for case in cases_of(root, r"Image_(\d+)")] == ["01", "01", "02"]
    assert [case.group for case in cases_of(root)] == ["Image_01L", "Image_01R", "Image_02L"]
    assert (
        error_of(root, r"_(\d+)L")
        == "data.group '_(\\\\d+)L' does not match the case 'Image_01R': fix the pattern, or remove it"
    )
    assert "does not match the case 'Image_01L'" in error_of(root, r"Image_\d+(Z)?")


@pytest.mark.parametrize("pattern", [r"Image_(\d*?)", r"(x*)", r"Image( *)_"])
def test_a_pattern_that_finds_no_patient_is_refused(pattern: str, tmp_path: Path) -> None:
    root = make(tmp_path, *(f"{folder}/Image_{name}.png" for name in ("01L", "01R") for folder in ("images", "labels")))
    assert "finds an empty patient in the case 'Image_01L'" in error_of(root, pattern)


def test_labels_without_an_image_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = make(tmp_path, "images/a.png", "labels/a.png", "labels/b.png")
    assert [case.id for case in cases_of(root)] == ["a"]
    assert "1 label without an image of the same name, ignored: b" in caplog.text


def test_missing_and_empty_folders_are_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no folder images/: put images/NAME\.\* and labels/NAME\.\* there"):
        cases_of(tmp_path)
    root = make(tmp_path, "images/readme.txt")
    assert error_of(root).startswith("images holds no image; known formats: .nii.gz")


def test_a_folder_that_cannot_be_read_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make(tmp_path, "images/locked/a.png")
    listed = Path.iterdir

    def refuse(path: Path):
        if path.name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert error_of(root) == "images/locked: cannot be read: Permission denied"


# Pascal VOC


def make_voc(root: Path, train: str = "b c", val: str = "a") -> Path:
    for name in "abc":
        make(root, f"JPEGImages/{name}.jpg", f"SegmentationClass/{name}.png")
    make(root, "JPEGImages/unlabelled.jpg")
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for name, ids in (("train", train), ("val", val)):
        (lists / f"{name}.txt").write_text("\n".join(ids.split()) + "\n")
    return root


def voc_cases(root: Path) -> list[Case]:
    return find_cases(Data(layout="voc", root=root, labels={"a": 1}))


def test_pascal_voc_fixes_the_parts_of_its_cases(tmp_path: Path) -> None:
    root = make_voc(tmp_path)
    a, b, c = voc_cases(root)
    assert a == Case(
        "a", (root / "JPEGImages/a.jpg",), (root / "SegmentationClass/a.png",), group="a", split="validation"
    )
    assert (b.split, c.split) == ("train", "train")


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        ("a b", "c a", r"val\.txt names a, which .*train\.txt already names: remove one"),
        ("a b a", "c", r"train\.txt names a, which .*train\.txt already names: remove one"),
        ("a d", "b", r"train\.txt names d, but .*d\.jpg does not exist"),
    ],
)
def test_lists_of_pascal_voc_that_contradict_are_reported(tmp_path: Path, train: str, val: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        voc_cases(make_voc(tmp_path, train, val))


def test_another_folder_than_that_of_pascal_voc_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no ImageSets/Segmentation/train\.txt: name the folder VOCdevkit/VOC2012"):
        voc_cases(tmp_path)


# the table


def test_the_layouts_are_those_that_a_config_may_name() -> None:
    assert len(LAYOUTS) >= 2
    assert sorted(get_args(Data.model_fields["layout"].annotation)) == sorted(LAYOUTS)


def test_an_unknown_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'coco', which is unknown: give one of folder, voc"):
        find_cases(Data.model_construct(layout="coco", root=tmp_path))
