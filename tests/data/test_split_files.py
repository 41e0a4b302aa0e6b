"""Splits from files: a run's, nnU-Net's and tables name the same cases as lists in the config."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from r2seg.config import Split
from r2seg.data.cases import Case
from r2seg.data.split_files import read_split_file
from r2seg.data.splits import draw_folds, draw_split
from r2seg.errors import UserError

CASES = [Case(f"{name}_{scan}", (Path(f"{name}_{scan}"),), group=name) for name in "abcd" for scan in (1, 2)]
LISTS = Split(train=("a", "b_1", "b_2"), validation=("c",), test=("d",))
NNUNET = [
    {"train": ["b_1", "b_2", "c_1", "c_2", "d_1", "d_2"], "val": ["a_1", "a_2"]},
    {"train": ["a_1", "a_2", "c_1", "c_2", "d_1", "d_2"], "val": ["b_1", "b_2"]},
]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("splits.json", json.dumps({"train": ["a_1", "a_2", "b"], "validation": ["c_1", "c_2"], "test": ["d"]})),
        ("own.yaml", "train: [a, b]\nval: [c]\ntest: [d]\n"),
        ("by_group.csv", "group,part\na,train\nb,train\nc,validation\nd,test\n"),
        ("excel.csv", "\ufeffage;ID;Part\n3;a_1;Train\n3;a_2;Train\n4;b;training\n5; c ;valid\n6;d;testing\n\n"),
        ("rest_trains.csv", "id,part\nc_1,val\nc_2,val\nd,test\n"),
    ],
)
def test_a_file_names_cases_and_groups_as_lists_do(name: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(content, "utf-8")
    drawn = draw_split(CASES, Split(file=path), 0)
    assert drawn.parts == draw_split(CASES, LISTS, 0).parts
    assert (drawn.fold, drawn.num_folds, drawn.warnings) == (None, None, [])


def test_a_fold_of_nnunets_file_is_chosen(tmp_path: Path) -> None:
    path = tmp_path / "splits_final.json"
    path.write_text(json.dumps(NNUNET))
    second = draw_split(CASES, Split(file=path, fold=1), 0)
    assert [case.id for case in second.parts["validation"]] == ["b_1", "b_2"]
    assert draw_split(CASES, Split(file=path), 0).parts["validation"][0].id == "a_1"
    folds = list(draw_folds(CASES, Split(file=path, fold=1), 0))
    assert [fold.parts["validation"][0].group for fold in folds] == ["a", "b"]
    assert [(fold.fold, fold.num_folds) for fold in folds] == [(0, 2), (1, 2)]


def test_cases_that_a_file_leaves_out_are_told(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    path.write_text(json.dumps({"train": ["a"], "validation": ["c"]}))
    assert draw_split(CASES, Split(file=path), 0).warnings == [
        "4 cases are in no part of the split: b_1, b_2, d_1, d_2"
    ]


def test_a_file_without_validation_trains_on_all_where_the_config_says_so(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    path.write_text(json.dumps({"test": ["d"]}))
    parts = draw_split(CASES, Split(file=path, validation=0), 0).parts
    assert [len(parts[part]) for part in ("train", "validation", "test")] == [6, 0, 2]


def test_a_file_cannot_move_what_a_data_set_holds_out(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    path.write_text(json.dumps({"train": ["a", "d"], "validation": ["c"]}))
    cases = [
        Case(case.id, case.images, group=case.group, split="test" if case.group == "d" else None) for case in CASES
    ]
    with pytest.raises(
        UserError, match=r"splits\.json \(train\) names the case 'd_1', which the data set itself holds out"
    ):
        draw_split(cases, Split(file=path), 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\xff\xfe\x00", "this is not a text file"), (b"", "this is not JSON"), (b"7", "a split is {train")],
)
def test_a_damaged_file_is_told_with_its_name(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_split_file(path, None)
    assert str(caught.value).startswith(f"data.split.file {path}: {message}")
