"""The cases that a run or a config names."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import write_config

from r2seg.case_sets import cases_of
from r2seg.config import load_config
from r2seg.errors import UserError
from r2seg.files import write_json
from r2seg.run import CONFIG, SPLITS, Run

SPLIT = {"train": ["a"], "validation": ["b"], "test": ["c"]}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    data = {"root": str(tmp_path / "data"), "split": SPLIT}
    config = load_config(write_config(tmp_path / "c.yaml", tmp_path, data=data))
    return Run.create(tmp_path / "run", config, SPLIT, {"in_channels": 1, "image_dims": 3})


def message_of(function, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_cases(root: Path, *names: str) -> None:
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            (root / folder / f"{name}.png").touch()


def test_the_cases_of_a_run_are_those_held_out_unless_asked_otherwise(run: Run, tmp_path: Path) -> None:
    write_cases(tmp_path / "data", "a", "b", "c", "d")
    assert [case.id for case in cases_of(run.path).cases] == ["c"]
    assert [case.id for case in cases_of(run.path, "train").cases] == ["a"]
    assert [case.id for case in cases_of(run.path, "all").cases] == ["a", "b", "c"]
    write_json(run.path / SPLITS, {**SPLIT, "test": []})
    assert cases_of(run.path).part == "validation"
    assert message_of(cases_of, run.path, "test") == f"{run.path} has no test cases; it has train, validation"
    assert message_of(cases_of, run.path, "tset") == "--split tset: valid are test, validation, train and all"


def test_missing_cases_of_a_run_are_named(run: Run, tmp_path: Path) -> None:
    write_cases(tmp_path / "data", "a", "b")
    assert message_of(cases_of, run.path) == f"{run.path}: its cases c are no longer in {tmp_path / 'data'}"


def test_a_config_is_split_as_training_would(run: Run, tmp_path: Path) -> None:
    write_cases(tmp_path / "data", "a", "b", "c")
    path = tmp_path / "x.yaml"
    path.write_text((run.path / CONFIG).read_text())
    found = cases_of(path)
    assert (str(found), [case.id for case in found.cases]) == (f"the test cases of {path} (1)", ["c"])
    assert found.config == load_config(path)
