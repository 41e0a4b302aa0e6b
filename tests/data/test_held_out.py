"""Test cases of another data set: found beside the own ones, under ids of their own, and scored by a run that never saw them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from tiny import settings, write_pictures
from typer.testing import CliRunner

from r2seg.case_sets import cases_of, parts_of, split_of
from r2seg.cli import app_of
from r2seg.config import Config, HeldOut, dump_config, load_config
from r2seg.data.layouts import find_cases
from r2seg.errors import UserError
from r2seg.run import Run
from r2seg.training.train import train


def config_of(folder: Path, test: dict, data: dict | None = None, **changes) -> Config:
    config = settings(Path("own"), preprocessing={"intensity": {"kind": "zscore"}}, **changes)
    config["window"].pop("plane")
    config["data"] |= {"labels": {"ball": 255}, "split": {"validation": 0.3, "test": test}, **(data or {})}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return load_config(folder / "config.yaml", require_data=True)


@pytest.fixture
def roots(tmp_path: Path) -> Path:
    """A folder with the data sets own/ and other/, both with case_0 to case_3; other/'s pictures differ."""
    write_pictures(tmp_path / "own")
    write_pictures(tmp_path / "other", count=8)
    for folder in ("images", "labels"):
        for index in range(4):
            place = tmp_path / "other" / folder
            (place / f"case_{index + 4}.png").replace(place / f"case_{index}.png")
    return tmp_path


def test_cases_of_one_name_in_both_data_sets_are_kept_apart(roots: Path) -> None:
    config = config_of(roots, {"root": "other"})
    assert isinstance(config.data.split.test, HeldOut)
    assert config.data.split.test.root == roots / "other"
    parts = split_of(config).parts
    assert [case.id for case in parts["test"]] == [f"test/case_{index}" for index in range(4)]
    assert [case.group for case in parts["test"]] == [f"test/case_{index}" for index in range(4)]
    assert parts["test"][1].images == (roots / "other/images/case_1.png",)
    assert sorted(case.id for part in ("train", "validation") for case in parts[part]) == [
        f"case_{index}" for index in range(4)
    ]
    saved = roots / "saved" / "config.yaml"
    saved.parent.mkdir()
    saved.write_text(dump_config(config))
    assert load_config(saved) == config


def test_the_other_data_set_has_a_layout_and_patients_of_its_own(roots: Path) -> None:
    voc = roots / "voc"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (voc / folder).mkdir(parents=True)
    for name, case_id in (("train", "p1_x"), ("val", "p2_x")):
        (voc / f"ImageSets/Segmentation/{name}.txt").write_text(case_id)
        (voc / f"JPEGImages/{case_id}.jpg").write_bytes(name.encode())
        (voc / f"SegmentationClass/{case_id}.png").touch()
    test = {"root": "voc", "layout": "voc", "group": r"(p\d)", "prefix": "outside"}
    drawn = split_of(config_of(roots, test, {"group": r"case_(\d)"}))
    assert [(case.id, case.group) for case in drawn.parts["test"]] == [
        ("outside/p1_x", "outside/p1"),
        ("outside/p2_x", "outside/p2"),
    ]
    assert {case.group for case in drawn.parts["train"]} < set("0123")


def test_a_picture_that_is_in_both_data_sets_is_refused(roots: Path) -> None:
    shutil.copy(roots / "own/images/case_2.png", roots / "other/images/case_3.png")
    with pytest.raises(UserError) as caught:
        split_of(config_of(roots, {"root": "other"}))
    assert str(caught.value) == (
        "data.split puts the case 'case_2' into train and the case 'test/case_3' into test, but their images are identical: put "
        "both into one part, or remove one"
    )


def test_ids_that_meet_all_the_same_are_refused(roots: Path) -> None:
    for folder in ("images", "labels"):
        (roots / "own" / folder / "test").mkdir()
        shutil.copy(roots / "own" / folder / "case_0.png", roots / "own" / folder / "test/case_1.png")
    with pytest.raises(
        UserError, match=r"data\.split\.test\.prefix 'test': the cases test/case_1 of .*: give another prefix"
    ):
        find_cases(config_of(roots, {"root": "other"}).data)
    assert len(find_cases(config_of(roots, {"root": "other", "prefix": "other"}).data)) == 9


def test_a_run_finds_scores_and_segments_them(roots: Path) -> None:
    config = config_of(roots, {"root": "other"}, training={"max_epochs": 1})
    run = train(config, roots / "run", device="cpu")
    assert run.splits["test"] == [f"test/case_{index}" for index in range(4)]
    assert set(run.manifest["results"]["test"]["ball"]["cases"]) == set(run.splits["test"])
    assert parts_of(run, run.config)["test"][3].images == (roots / "other/images/case_3.png",)
    runner, out = CliRunner(env={"COLUMNS": "200"}), roots / "out"
    found = runner.invoke(app_of("infer"), [str(run.path), "--split", "test", "-o", str(out), "--device", "cpu"])
    assert found.exit_code == 0, found.output
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.png")) == [
        f"test/case_{index}.png" for index in range(4)
    ]
    found = runner.invoke(app_of("evaluate"), [str(out), str(run.path)])
    assert found.exit_code == 0, found.output
    assert "4 cases of 4 groups" in found.output

    # Data that moved are named with --set, as data.root is.
    (roots / "other").rename(roots / "moved")
    with pytest.raises(UserError, match=r"data\.split\.test\.root .*other: there is no such folder"):
        cases_of(run.path)
    moved = load_config(roots / "config.yaml", ["data.split.test.root=moved"], require_data=True)
    again = train(moved, run.path, resume=True, device="cpu")
    assert Run.open(again.path).config.data.split.test.root == roots / "moved"
