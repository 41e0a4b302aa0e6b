"""Layouts of data sets: which files belong together, and what is refused because it could mean two things."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from r2seg.config import Data
from r2seg.data.cases import Case, find_images, join_channels
from r2seg.data.layouts import LAYOUTS, LayoutError, find_cases, list_cases
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
    assert error_of(root).startswith("labels/*.*: this is no label of any of the 2 images: ")


def test_images_without_labels_are_named_one_line_each(tmp_path: Path) -> None:
    root = make(tmp_path, *(f"images/{i}.png" for i in range(4)), "labels/0.png", "labels/2.png")
    assert error_of(root).splitlines() == [
        f"images/{i}.png: has no label: add labels/{i}.*, or move the image away" for i in (1, 3)
    ]


def test_of_one_kind_of_mistake_twenty_are_shown_and_all_are_kept(tmp_path: Path) -> None:
    root = make(tmp_path, *(f"images/{i:02}.png" for i in range(30)), "labels/00.png", "images/01.jpg")
    with pytest.raises(LayoutError) as caught:
        cases_of(root)
    lines = str(caught.value).splitlines()
    assert len(lines) == 20 + 1 + 1  # 29 without label, and the doubled 01
    assert "... and 9 more mistakes of this kind: missing label" in lines
    assert len(caught.value.problems) == 30
    assert [case.id for case in caught.value.cases] == ["00"]


def test_two_files_of_one_stem_are_refused(tmp_path: Path) -> None:
    root = make(tmp_path, "images/a.jpg", "images/a.png", "labels/a.png")
    assert error_of(root) == "images/a.jpg and images/a.png are both case 'a': rename or remove one"


def test_two_labels_of_one_stem_are_refused(tmp_path: Path) -> None:
    root = make(tmp_path, "images/a.png", "labels/a.gif", "labels/a.png")
    assert error_of(root) == "labels/a.gif and labels/a.png have the same name: rename or remove one"


def test_two_files_for_one_channel_are_refused(tmp_path: Path) -> None:
    root = make(tmp_path, "images/a_0000.jpg", "images/a_0000.png", "labels/a.png")
    assert "images/a_0000.jpg and images/a_0000.png have the same name: rename or remove one" in error_of(root)


def test_one_file_and_a_set_of_channels_for_one_label_are_refused(tmp_path: Path) -> None:
    root = make(tmp_path, "images/a.png", "images/a_0000.png", "images/a_0001.png", "labels/a.png")
    assert error_of(root) == "images/a.png and images/a_0000.png are both case 'a': rename or remove one"


def test_fields_of_view_pair_too_and_are_all_or_none(tmp_path: Path) -> None:
    root = make(tmp_path, "images/a_0000.png", "images/a_0001.png", "labels/a.png", "masks/a.gif")
    assert cases_of(root)[0].mask == root / "masks/a.gif"
    make(root, "images/b.png", "labels/b.png")
    assert error_of(root) == "images/b.png: has no field of view: add masks/b.*, or move all fields of view away"


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
    assert len(error_of(root, r"Image_\d+(Z)?").splitlines()) == 3


@pytest.mark.parametrize("pattern", [r"Image_(\d*?)", r"(x*)", r"Image( *)_"])
def test_a_pattern_that_finds_no_patient_is_refused(pattern: str, tmp_path: Path) -> None:
    root = make(tmp_path, *(f"{folder}/Image_{name}.png" for name in ("01L", "01R") for folder in ("images", "labels")))
    assert "finds an empty patient in the case 'Image_01L'" in error_of(root, pattern)


def test_labels_without_an_image_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = make(tmp_path, "images/a.png", "labels/a.png", "labels/b.png")
    assert [case.id for case in cases_of(root)] == ["a"]
    assert f"1 label without an image, ignored: {root / 'labels/b.png'}" in caplog.text


def test_missing_and_empty_folders_are_reported(tmp_path: Path) -> None:
    assert error_of(tmp_path / "nothing").endswith("there is no such folder; name the data set's folder")
    put = "put images/NAME.* and labels/NAME.* into data.root"
    assert error_of(tmp_path).splitlines() == [
        f"{name}: there is no such folder: {put}" for name in ("images", "labels")
    ]
    root = make(tmp_path, "images/readme.txt", "labels/a.png")
    assert error_of(root).startswith("images holds no image; known formats: .nii.gz")


def test_a_folder_that_cannot_be_read_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make(tmp_path, "images/locked/a.png", "labels/a.png")
    listed = Path.iterdir

    def refuse(path: Path):
        if path.name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert error_of(root) == "images/locked: cannot be read: Permission denied"


# the data set's folder


def test_the_only_folder_below_the_root_that_fits_is_taken_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make(tmp_path / "a" / "b", "images/x.png", "labels/x.png")
    assert [case.id for case in cases_of(tmp_path)] == ["x"]
    assert f"data.root {tmp_path}: the data set is taken from {root}" in caplog.text


def test_of_two_folders_that_fit_none_is_chosen(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make(tmp_path / name, "images/x.png", "labels/x.png")
    assert error_of(tmp_path).endswith("holds 2 folders in the layout folder: a, b; name one of them")


def test_a_folder_inside_the_data_set_is_answered_with_the_right_one(tmp_path: Path) -> None:
    make(tmp_path / "set", "images/x.png", "labels/x.png")
    assert (
        error_of(tmp_path / "set" / "images")
        .splitlines()[0]
        .endswith(
            f"; {tmp_path / 'set'} looks right: set data.root to it".replace(f"{tmp_path / 'set' / 'images'}/", "")
        )
    )


# the table


def test_the_layouts_are_those_that_a_config_may_name() -> None:
    assert len(LAYOUTS) == 12
    assert get_args(Data.model_fields["layout"].annotation) == tuple(LAYOUTS)
    assert all(layout.about for layout in LAYOUTS.values())


def test_an_unknown_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'coco', which is unknown: give one of drive, stare, .*, folder, files"):
        find_cases(Data.model_construct(layout="coco", root=tmp_path))


# dictionaries for MONAI


def test_cases_are_listed_as_the_dictionaries_that_monai_takes(tmp_path: Path) -> None:
    root = make(tmp_path, "images/a_0000.png", "images/a_0001.png", "labels/a.png", "masks/a.gif")
    assert list_cases(root) == [
        {
            "image": [str(root / "images/a_0000.png"), str(root / "images/a_0001.png")],
            "label": str(root / "labels/a.png"),
            "mask": str(root / "masks/a.gif"),
            "id": "a",
            "group": "a",
        }
    ]


def test_listed_cases_have_observers_groups_and_parts_where_the_data_set_has_them(tmp_path: Path) -> None:
    make(tmp_path, "Image_01L.jpg", "Image_01L_1stHO.png", "Image_01L_2ndHO.png")
    (one,) = list_cases(tmp_path, "chase_db1")
    assert (one["observers"], one["group"]) == ([str(tmp_path / "Image_01L_2ndHO.png")], "01")
    files = {"image": "{group}-{id}.nii", "label": {"b": "{group}-{id}.b.nrrd", "a": "{group}-{id}.a.nrrd"}}
    make(tmp_path / "own", "p1-x.nii", "p1-x.a.nrrd", "p1-x.b.nrrd")
    (one,) = list_cases(tmp_path / "own", "files", files=files)
    assert one["label"] == [str(tmp_path / "own/p1-x.b.nrrd"), str(tmp_path / "own/p1-x.a.nrrd")]
    assert (one["id"], one["group"]) == ("p1/x", "p1")


def test_wrong_arguments_of_the_list_are_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^list_cases: group: '.x' has no parentheses"):
        list_cases(tmp_path, group=".x")
    with pytest.raises(UserError, match=r"^layout is 'coco', which is unknown"):
        list_cases(tmp_path, "coco")
    with pytest.raises(UserError, match=r"^list_cases: .*data.layout is files: give patterns"):
        list_cases(tmp_path, "files")
