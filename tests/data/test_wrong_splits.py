"""Wrong splits: each is one line that names the key or the file, the value and the remedy. No pixel is read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from tiny import settings

from r2seg.case_sets import split_of
from r2seg.config import load_config
from r2seg.errors import UserError

# Eleven scans of four patients: a, b and c of three each, d of two.
SCANS = [f"{patient}_{scan}" for patient in "abcd" for scan in (1, 2, 3)][:-1]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scans as images, and another data set, ``other``, with scans 1 and 2 of the patients a and e; the files are empty."""
    root = tmp_path_factory.mktemp("wrong") / "data"
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
        (root / "other" / folder).mkdir(parents=True)
        for name in SCANS:
            (root / folder / f"{name}.png").touch()
        for name in ("a_1", "a_2", "e_1"):
            (root / "other" / folder / f"{name}.png").touch()
    return root


def message_of(root: Path, split: object, files: dict[str, str], *overrides: str, **changes) -> str:
    """What is told about a config with this split, without the place in the config file; one line for each mistake."""
    for name, content in files.items():
        (root / name).write_text(content)
    config = settings(root, **changes)
    config["data"] |= {"split": split, "group": "^(.)"}
    path = root / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(UserError) as caught:
        split_of(load_config(path, overrides, require_data=True))
    lines = str(caught.value).replace(f"{root}/", "").replace(str(root), "ROOT").split("\n")
    return "\n".join(re.sub(r"^config\.yaml:\d+: ", "", line) for line in lines)


SPLITS = "data.split.file s.json"
WRONG: list[tuple[object, dict[str, str], str]] = [
    # settings that contradict each other
    (
        {"folds": 5, "validation": 0.2},
        {},
        "data.split.folds: folds choose the validation cases themselves: leave data.split.validation out",
    ),
    (
        {"folds": 4, "validation": 0},
        {},
        "data.split.folds: folds choose the validation cases themselves: leave data.split.validation out",
    ),
    (
        {"folds": 2, "train": ["a"]},
        {},
        "data.split.folds: folds choose the training cases themselves: leave data.split.train out",
    ),
    (
        {"folds": "leave_one_out", "test": ["a"]},
        {},
        "data.split.folds: leave_one_out validates every group once, and data.split.test takes some away: leave it out, or give a "
        "number of folds",
    ),
    (
        {"folds": "leave_one_out", "test": 0.2},
        {},
        "data.split.folds: leave_one_out validates every group once, and data.split.test takes some away: leave it out, or give a "
        "number of folds",
    ),
    (
        {"folds": "leave_one_out", "stratify": True},
        {},
        "data.split.folds: leave_one_out leaves nothing to stratify: leave data.split.stratify out",
    ),
    ({"fold": 2}, {}, "data.split.fold: there are no folds to take fold 2 of: give data.split.folds, such as 5"),
    ({"folds": 4, "fold": 4}, {}, "data.split.fold: 4: there are 4 folds, counted from 0: give 0 to 3"),
    (
        {"folds": "leave_one_out", "fold": 4},
        {},
        "data.split.fold is 4, and there are 4 groups, a fold of each, counted from 0: give 0 to 3",
    ),
    ({"folds": 5}, {}, "data.split.folds is 5, and 4 groups can validate: give at most 4"),
    ({"folds": 4, "test": ["a"]}, {}, "data.split.folds is 4, and 3 groups can validate: give at most 3"),
    (
        {"stratify": True, "validation": ["a"]},
        {},
        "data.split: stratify goes with shares or folds, and nothing is drawn here: leave data.split.stratify out",
    ),
    (
        {"validation": None},
        {},
        "data.split: validation is null: give a share such as 0.2, a list, or 0 to train without validation",
    ),
    (
        {"file": "s.json", "folds": 5, "stratify": True},
        {"s.json": "{}"},
        "data.split.file: the file says which cases are in which part, and so does data.split.folds, data.split.stratify: remove "
        "one",
    ),
    (
        {"file": "s.json", "validation": 0.2, "test": ["a"]},
        {"s.json": "{}"},
        "data.split.file: the file says which cases are in which part, and so does data.split.validation, data.split.test: "
        "remove one",
    ),
    # values
    ({"folds": 1}, {}, "data.split.folds: 1: give a whole number from 2 on, or leave_one_out"),
    ({"folds": "all"}, {}, "data.split.folds: 'all': give a whole number from 2 on, or leave_one_out"),
    (
        "leave_one_group_out",
        {},
        "data.split: 'leave_one_group_out': give keys and values, or a short form: did you mean leave_one_out?",
    ),
    ({"validation": 0.6, "test": 0.6}, {}, "data.split.test: validation and test take 1.2 of the cases: leave some to"),
    ({"fold": -1, "folds": 5}, {}, "data.split.fold: -1: must be greater than or equal to 0"),
    ({"file": "s.txt"}, {}, "data.split.file: 's.txt' is not one of the kinds that are read: .json, .yaml, .yml, .csv"),
    # names
    (
        {"validation": ["a"], "test": ["x", "y"]},
        {},
        "data.split.test names 'x', 'y', which are neither cases nor groups; there are a_1, a_2, a_3, b_1, b_2 and 6 more",
    ),
    ({"validation": ["a"], "test": ["a_2"]}, {}, "data.split puts the case 'a_2' into both validation and test"),
    (
        {"validation": ["a_1"], "test": ["a_2"]},
        {},
        "data.split puts the group 'a' into both train and validation: a patient in two parts makes the score too good; name "
        "whole groups, or set data.split.by: case",
    ),
    # files
    ({"file": "absent.json"}, {}, "data.split.file: there is no file absent.json; it is taken relative to the config"),
    ({"file": "s.json"}, {"s.json": "[1"}, f"{SPLITS}: this is not JSON: Expecting ',' delimiter: line 1 column 3"),
    ({"file": "s.json"}, {"s.json": "[]"}, f"{SPLITS}: this is an empty list of folds"),
    (
        {"file": "s.json"},
        {"s.json": '["a", "b"]'},
        f"{SPLITS}: a split is {{train: [...], validation: [...], test: [...]}}, or a list of such folds",
    ),
    (
        {"file": "s.json", "fold": 2},
        {"s.json": json.dumps([{"train": ["a"], "val": ["b"]}] * 2)},
        f"{SPLITS}: it has 2 folds, and data.split.fold is 2: give 0 to 1",
    ),
    (
        {"file": "s.json", "fold": 0},
        {"s.json": json.dumps({"train": ["a"], "validation": ["b"]})},
        f"{SPLITS}: it has no folds, and data.split.fold is 0: leave data.split.fold out",
    ),
    (
        {"file": "s.json"},
        {"s.json": json.dumps({"train": ["a"], "validation": ["b_1", "x_1", "x_2"]})},
        f"{SPLITS} (validation) names 'x_1', 'x_2', which are neither cases nor groups; there are a_1, a_2",
    ),
    (
        {"file": "s.json"},
        {"s.json": json.dumps({"train": ["a", "b_1"], "validation": ["b_2", "b_3"]})},
        f"{SPLITS} puts the group 'b' into both train and validation: a patient in two parts",
    ),
    (
        {"file": "s.json"},
        {"s.json": json.dumps({"train": ["a"], "validation": ["a_2"]})},
        f"{SPLITS} puts the case 'a_2' into both train and validation",
    ),
    (
        {"file": "s.json"},
        {"s.json": '{"train": ["a"]}'},
        f"{SPLITS} leaves no case for validation: 11 cases in 4 groups",
    ),
    (
        {"file": "s.json", "validation": 0},
        {"s.json": json.dumps({"train": ["a"], "validation": ["b"]})},
        f"{SPLITS} names validation cases, and data.split.validation is 0: remove one of the two",
    ),
    (
        {"file": "s.json"},
        {"s.json": json.dumps({"train": ["a"], "vali": ["b"]})},
        f"{SPLITS}: 'vali' is not a part; valid here: test, train, validation",
    ),
    ({"file": "s.json"}, {"s.json": '{"train": ["a", "a"]}'}, f"{SPLITS}: train names 'a' twice: remove one"),
    (
        {"file": "s.yaml"},
        {"s.yaml": "train: [a]\nvalidation: [7]"},
        "data.split.file s.yaml: validation holds 7, which is not a text: put it in quotes",
    ),
    (
        {"file": "s.csv"},
        {"s.csv": "name,split\na,train\n"},
        "data.split.file s.csv: its first line is 'name,split'; expected the columns id,part or group,part",
    ),
    (
        {"file": "s.csv"},
        {"s.csv": "id,part\na,train\nb,\n"},
        "data.split.file s.csv: '' is not a part; valid here: test, train, validation",
    ),
    (
        {"file": "s.csv"},
        {"s.csv": "id,part\na,train\nb\n"},
        "data.split.file s.csv: row 3 is 'b'; expected its id and its part",
    ),
    # another data set for test
    (
        {"test": {"layout": "folder"}},
        {},
        "data.split.test.root: is missing",
    ),
    (
        {"test": {"root": "nowhere"}},
        {},
        "data.split.test.root: there is no folder nowhere; it is taken relative to the config file",
    ),
    (
        {"test": {"root": "other", "prefix": "../x"}},
        {},
        "data.split.test.prefix: '../x': give letters, digits, _, . and",
    ),
    (
        {"test": {"root": "images"}},
        {},
        "data.split.test: images/images: there is no such folder: put images/NAME.* and labels/NAME.* into data.split.test.root; ROOT looks right: set data.split.test.root to it\n"
        "data.split.test: images/labels: there is no such folder: put images/NAME.* and labels/NAME.* into data.split.test.root; ROOT looks right: set data.split.test.root to it",
    ),
    (
        {"test": {"root": "other", "group": "x(.)"}},
        {},
        "\n".join(
            f"data.split.test.group 'x(.)' does not match the case '{case}': fix the pattern, or remove it"
            for case in ("a_1", "a_2", "e_1")
        ),
    ),
    (
        {"validation": ["b"], "test": {"root": "other", "same_patients": True}},
        {},
        "data.split puts the group 'a' into both train and test: a patient in two parts",
    ),
    (
        {"validation": ["test/a_1"], "test": {"root": "other"}},
        {},
        "data.split.validation names the case 'test/a_1', which the data set itself holds out for test: name others",
    ),
]


@pytest.mark.parametrize(("split", "files", "message"), WRONG)
def test_a_wrong_split_is_told_in_one_line(root: Path, split: object, files: dict[str, str], message: str) -> None:
    found = message_of(root, split, files)
    assert found.startswith(message)
