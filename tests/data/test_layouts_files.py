"""The layout "files": any names, by patterns or by a table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from trees import make

from r2seg.config import Data
from r2seg.data.cases import Case
from r2seg.data.layouts import LayoutError, find_cases
from r2seg.data.layouts.patterns import Pattern

CT = {"image": "{id}_image.nii.gz", "label": "{id}_lungmask.nii.gz"}


def cases_in(
    root: Path, files: dict[str, Any], labels: tuple[str, ...] = ("a",), group: str | None = None
) -> list[Case]:
    values = {name: value for value, name in enumerate(labels, start=1)}
    return find_cases(Data(root=root, layout="files", files=files, labels=values, group=group))


def errors_in(root: Path, files: dict[str, Any]) -> list[str]:
    with pytest.raises(LayoutError) as caught:
        cases_in(root, files)
    return str(caught.value).replace(f"{root}/", "").splitlines()


def test_a_case_is_what_the_patterns_find_for_its_id(tmp_path: Path) -> None:
    names = [
        "X_image.nii.gz",
        "X_lungmask.nii.gz",
        "Y.1_image.nii.gz",
        "Y.1_lungmask.nii.gz",
        "notes.txt",
        "Z_heart.nii.gz",
    ]
    root = make(tmp_path, names)
    x, y = cases_in(root, CT)
    assert x == Case("X", (root / "X_image.nii.gz",), (root / "X_lungmask.nii.gz",), group="X")
    assert y.id == "Y.1"


def test_masks_observers_and_channels_have_patterns_of_their_own(tmp_path: Path) -> None:
    names = ["a_t1.nii", "a_t2.nii", "a_seg.nii", "fov/a.gif", "second/a.png", "third/a.png"]
    root = make(tmp_path, names)
    (case,) = cases_in(
        root,
        {
            "image": ["{id}_t2.nii", "{id}_t1.nii"],
            "label": "{id}_seg.nii",
            "mask": "fov/{id}.*",
            "observers": ["second/{id}.png", "third/{id}.png"],
        },
    )
    assert [path.name for path in case.images] == ["a_t2.nii", "a_t1.nii"]
    assert case.mask == root / "fov/a.gif"
    assert case.observers == (root / "second/a.png", root / "third/a.png")


def test_a_folder_for_each_patient(tmp_path: Path) -> None:
    names = [f"{patient}/{scan}_{kind}.mha" for patient in ("P1", "P2") for scan in "12" for kind in ("ct", "lung")]
    found = cases_in(make(tmp_path, names), {"image": "{group}/{id}_ct.mha", "label": "{group}/{id}_lung.mha"})
    assert [(case.id, case.group) for case in found] == [
        ("P1/1", "P1"),
        ("P1/2", "P1"),
        ("P2/1", "P2"),
        ("P2/2", "P2"),
    ]
    assert all(case.reference.parent == case.images[0].parent for case in found)


def test_the_patient_takes_as_few_characters_as_possible(tmp_path: Path) -> None:
    names = [f"{stem}{end}.png" for stem in ("p1_left_1", "p1_left_2", "p2_left_1") for end in ("", "_m")]
    found = cases_in(make(tmp_path, names), {"image": "{group}_{id}.png", "label": "{group}_{id}_m.png"})
    assert [case.id for case in found] == ["p1/left_1", "p1/left_2", "p2/left_1"]


def test_a_label_beside_its_image_is_not_an_image(tmp_path: Path) -> None:
    root = make(tmp_path, ["a.png", "a_seg.png", "b.png", "b_seg.png"])
    assert [case.id for case in cases_in(root, {"image": "{id}.png", "label": "{id}_seg.png"})] == ["a", "b"]
    root = make(tmp_path / "other", ["a_image.png", "a.png"])
    (case,) = cases_in(root, {"image": "{id}_image.png", "label": "{id}.png"})
    assert (case.images[0].name, case.reference.name) == ("a_image.png", "a.png")


def test_the_order_of_overlapping_labels_is_that_of_the_config(tmp_path: Path) -> None:
    root = make(tmp_path, ["a.nii", "a.lung.nii", "a.heart.nii"])
    patterns = {"lung": "{id}.lung.nii", "heart": "{id}.heart.nii"}
    (case,) = cases_in(root, {"image": "{id}.nii", "label": patterns}, ("heart", "lung"))
    assert [path.name for path in case.labels] == ["a.heart.nii", "a.lung.nii"]


def test_an_image_may_be_a_folder_of_slices(tmp_path: Path) -> None:
    names = [f"p1/ct/{n}.dcm" for n in (1, 2)] + [
        "p1/rs.dcm",
        "p2/ct/IM0001",
        "p2/ct/IM0002",
        "p2/rs.dcm",
        "p3/notes.txt",
    ]
    root = make(tmp_path, names)
    p1, p2 = cases_in(root, {"image": "{id}/ct", "label": "{id}/rs.dcm"})
    assert (p1.images, p1.labels) == ((root / "p1/ct",), (root / "p1/rs.dcm",))
    assert p2.images == (root / "p2/ct",)


@pytest.mark.parametrize(
    ("pattern", "path", "found"),
    [
        ("{id}.png", "a.b.png", ("a.b", None)),
        ("{id}.png", "x/a.png", None),
        ("**/{id}.png", "a.png", ("a", None)),
        ("**/{id}.png", "x/y/a.png", ("a", None)),
        ("{id}/image.nii.gz", "a/image.nii.gz", ("a", None)),
        ("{id}/{id}_t1.nii", "a/a_t1.nii", ("a", None)),
        ("{id}/{id}_t1.nii", "a/b_t1.nii", None),
        ("{id}.*", "a.1.nii.gz", ("a.1", None)),
        ("{id}.*", "a.PNG", ("a", None)),
        ("{id}.*", "a.txt", None),
        ("{id}_*_ct.nii", "a_2020_ct.nii", ("a", None)),
        ("Image_{group}L{id}.jpg", "Image_01Lx.jpg", ("x", "01")),
        ("s({id}).png", "s(1).png", ("1", None)),
        ("{id}.png", ".png", None),
    ],
)
def test_placeholders_stand_for_parts_of_one_name(
    pattern: str, path: str, found: tuple[str, str | None] | None
) -> None:
    matches = list(Pattern(pattern).matches(Path("root"), [path]))
    assert [(match.id, match.group) for match in matches] == ([found] if found else [])


def test_a_pattern_of_the_config_gives_the_patient_too(tmp_path: Path) -> None:
    root = make(tmp_path, ["p1-L.png", "p1-L_m.png", "p1-R.png", "p1-R_m.png"])
    found = cases_in(root, {"image": "{id}.png", "label": "{id}_m.png"}, group=r"(p\d)")
    assert [(case.id, case.group) for case in found] == [("p1-L", "p1"), ("p1-R", "p1")]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "is missing, and data.layout is files: give patterns of image and label, or a table"),
        ({"image": "{id}.png"}, "needs patterns for image and label, or a table"),
        ({}, "needs patterns for image and label, or a table"),
        ({"image": "a.png", "label": "{id}.png"}, "'a.png': has no {id}: put it where the case's name stands"),
        ({"image": "{name}.png", "label": "{id}.png"}, "{name} is unknown; the placeholders are {id} and {group}"),
        ({"image": "{id.png", "label": "{id}.png"}, "'{id.png': has no {id}"),
        ({"image": "/data/{id}.png", "label": "{id}.png"}, "a pattern is relative to data.root and stays below it"),
        ({"image": "../{id}.png", "label": "{id}.png"}, "a pattern is relative to data.root and stays below it"),
        ({"image": "a\\{id}.png", "label": "{id}.png"}, "separate folders by /"),
        ({"image": "a**{id}.png", "label": "{id}.png"}, "** stands for folders"),
        ({"image": "{id}.png", "label": "{id}.png"}, "image and label are the same pattern '{id}.png': make them differ"),
        ({"image": "{id}.png", "label": "{group}_{id}.png"}, "label has {group}, and the image's pattern '{id}.png' does not"),
        ({"table": "a.csv", "mask": "{id}.gif"}, "gives a table and the pattern mask: keep one of them"),
        ({"image": "{id}.png", "label": {"b": "{id}_b.png"}}, "b: not in data.labels; "),
        ({"image": "{id}.png", "label": {}}, "needs patterns for image and label, or a table"),
    ],
)  # fmt: skip
def test_patterns_that_cannot_be_meant_are_refused(files: dict[str, Any] | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        Data(root=tmp_path, layout="files", labels={"a": 1}, files=files)


def test_files_of_another_layout_and_two_sources_of_patients_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValidationError, match=r"is not used by the layout folder: set data.layout: files, or remove it"
    ):
        Data(root=tmp_path, labels={"a": 1}, files=CT)
    files = {"image": "{group}/{id}.png", "label": "{group}/{id}_m.png"}
    with pytest.raises(ValidationError, match=r"the patient is \{group\} in data.files.image already"):
        Data(root=tmp_path, layout="files", labels={"a": 1}, files=files, group="(.)")
    with pytest.raises(ValidationError, match=r"has no pattern for b of data.labels: add it"):
        Data(root=tmp_path, layout="files", labels={"a": 1, "b": 2}, files={**CT, "label": {"a": "{id}_a.nii"}})


def test_capitals_and_folders_that_differ_are_the_hint_of_a_pattern_without_match(tmp_path: Path) -> None:
    root = make(tmp_path, ["a.JPG", "sub/a_m.png"])
    assert errors_in(root, {"image": "{id}.jpg", "label": "{id}_m.png"}) == [
        f"data.files.image '{{id}}.jpg': no file below {root} matches; with other capitals it would match a.JPG: correct the pattern",
        f"data.files.label '{{id}}_m.png': no file below {root} matches; in other folders it would match sub/a_m.png: "
        "correct the folders of the pattern",
    ]


# a table


def table(root: Path, text: str, name: str = "cases.csv", encoding: str = "utf-8") -> Path:
    make(root, [f"{n}{end}.png" for n in "ab" for end in ("", "_2", "_m", "_h", "_f", "_o")])
    (root / name).write_bytes(text.encode(encoding))
    return root


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("id,image,label,mask,observers,group,split\nA,a.png,a_m.png,a_f.png,a_o.png,P,train\nB,b.png,b_m.png,,,P,val\n", "utf-8"),
        ("ID;Image;Label;mask;observers;group;split\r\nA;a.png;a_m.png;a_f.png;a_o.png;P;Training\r\nB;b.png;b_m.png;;;P;validation\r\n", "utf-8-sig"),
        ("sep=;\nid;image;label;mask;observers;group;split;;\nA;a.png;a_m.png;a_f.png;a_o.png;P;train;;\n;;;;;;;;\nB;b.png;b_m.png;;;P;val\n", "utf-8"),
        ("id\timage\tlabel\tmask\tobservers\tgroup\tsplit\nA\ta.png\ta_m.png\ta_f.png\ta_o.png\tP\ttrain\nB\tb.png\tb_m.png\t\t\tP\tval", "utf-8"),
    ],
    ids=["commas", "Excel with semicolons and a byte order mark", "Excel's own first line, empty cells and rows", "tabs"],
)  # fmt: skip
def test_a_table_names_the_files_patients_and_parts(text: str, encoding: str, tmp_path: Path) -> None:
    root = table(tmp_path, text, encoding=encoding)
    a, b = cases_in(root, {"table": "cases.csv"})
    assert a == Case(
        "A",
        (root / "a.png",),
        (root / "a_m.png",),
        mask=root / "a_f.png",
        observers=(root / "a_o.png",),
        group="P",
        split="train",
    )
    assert (b.id, b.mask, b.observers, b.group, b.split) == ("B", None, (), "P", "validation")


@pytest.mark.parametrize(
    "text", ["image,label\na.png;a_2.png,a_m.png\n", "image_2,image_1,label\na_2.png,a.png,a_m.png\n"]
)
def test_a_table_has_several_images_in_one_cell_or_in_numbered_columns(text: str, tmp_path: Path) -> None:
    (case,) = cases_in(table(tmp_path, text), {"table": "cases.csv"})
    assert [path.name for path in case.images] == ["a.png", "a_2.png"]
    assert (case.id, case.group) == ("a", "a")


def test_a_table_has_a_column_for_each_overlapping_label(tmp_path: Path) -> None:
    root = table(tmp_path, "image,label_lung,label_heart\na.png,a_m.png,a_h.png\n")
    (case,) = cases_in(root, {"table": "cases.csv"}, ("heart", "lung"))
    assert [path.name for path in case.labels] == ["a_h.png", "a_m.png"]


def test_a_table_may_lie_anywhere_and_its_paths_are_relative_to_the_root(tmp_path: Path) -> None:
    root = table(tmp_path / "data", "")
    elsewhere = tmp_path / "mine.csv"
    elsewhere.write_text(f"image,label,age\na.png,{root / 'a_m.png'},61\n")
    (case,) = cases_in(root, {"table": str(elsewhere)})
    assert case == Case("a", (root / "a.png",), (root / "a_m.png",), group="a")
