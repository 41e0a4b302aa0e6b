"""``validation: 0``: a training on all cases, and what it says about what it cannot know."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from matplotlib.axes import Axes
from tiny import write_config
from typer.testing import CliRunner

from r2seg.case_sets import cases_of
from r2seg.cli import app_of
from r2seg.config import Config, ConfigError, load_config
from r2seg.errors import UserError
from r2seg.run import BEST, LAST, METRICS, Run
from r2seg.thresholds import Thresholds
from r2seg.training.plan import plan_training
from r2seg.training.plots import plot_course
from r2seg.training.progress import TrainingProgress
from r2seg.training.train import train

ALL = {"data": {"split": {"validation": 0, "test": ["case_3"]}}}
TOLD = "there are no validation cases: the weights of the last epoch are taken, no thresholds are chosen"


class StopInEpoch(TrainingProgress):
    """Stops the training in an epoch, as Ctrl-C would."""

    def __init__(self, epoch: int) -> None:
        self.at = epoch

    def training(self, epoch, max_epochs, step, steps, loss) -> None:
        if epoch == self.at:
            raise KeyboardInterrupt


def config_of(folder: Path, root: Path, **changes) -> Config:
    return load_config(write_config(folder / "config.yaml", root, **changes))


def assert_equal_weights(first: Path, second: Path, name: str = BEST) -> None:
    one, other = Run.open(first).load_checkpoint(BEST)["network"], Run.open(second).load_checkpoint(name)["network"]
    assert one.keys() == other.keys()
    assert all(torch.equal(weight, other[key]) for key, weight in one.items())


def run_command(name: str, *words: object):
    return CliRunner(env={"COLUMNS": "300"}).invoke(app_of(name), [*map(str, words)])


@pytest.fixture(scope="module")
def run(tiny_volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("all")
    return train(config_of(folder, tiny_volumes, **ALL, training={"max_epochs": 2}), folder / "run", device="cpu").path


def test_the_weights_of_the_last_epoch_are_those_to_predict_with_and_everything_says_so(run: Path) -> None:
    assert_equal_weights(run, run, LAST)
    manifest = Run.open(run).manifest
    assert manifest["best"] == {"dice": None, "epoch": 2, "chosen_by": "last epoch: there are no validation cases"}
    assert manifest["warnings"][0].startswith(TOLD)
    assert list(manifest["results"]) == ["test"]
    assert Run.open(run).splits == {"train": ["case_0", "case_1", "case_2"], "validation": [], "test": ["case_3"]}
    assert "dice" not in (run / METRICS).read_text()


def test_the_file_of_thresholds_says_that_none_were_chosen(run: Path) -> None:
    assert json.loads((run / "thresholds.json").read_text())["values"] == {}
    with pytest.raises(
        UserError, match=r"thresholds\.json: holds no thresholds \(none were chosen: there were no valid"
    ):
        Thresholds.of(run)


def test_the_course_has_no_axis_for_dice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    axes = []
    monkeypatch.setattr(Axes, "twinx", lambda self: axes.append(self))
    rows = [{"epoch": epoch, "loss": 1 / epoch, "learning_rate": 0.1} for epoch in (1, 2)]
    plot_course(rows, tmp_path / "course.png")
    assert not axes
    assert (tmp_path / "course.png").stat().st_size > 1000


def test_a_resumed_run_equals_an_uninterrupted_one(run: Path, tiny_volumes: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, tiny_volumes, **ALL, training={"max_epochs": 2})
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "parts", device="cpu", progress=StopInEpoch(2))
    train(config, tmp_path / "parts", device="cpu", resume=True)
    assert_equal_weights(run, tmp_path / "parts")
    assert Run.open(tmp_path / "parts").manifest["best"] == Run.open(run).manifest["best"]


def test_the_dry_run_plans_it(tiny_volumes: Path, tmp_path: Path) -> None:
    plan = plan_training(config_of(tmp_path, tiny_volumes, **ALL), torch.device("cpu"))
    assert (plan.num_validations, plan.seconds_per_validation) == (0, 0)
    for text in ("validation none", "for all epochs, without validation", TOLD):
        assert text in str(plan)


def test_its_test_cases_are_segmented_and_scored(run: Path, tmp_path: Path) -> None:
    result = run_command("infer", run, "--split", "test", "-o", tmp_path / "out", "--device", "cpu")
    assert result.exit_code == 0, result.output
    result = run_command("evaluate", tmp_path / "out", run)
    assert result.exit_code == 0, result.output
    assert "1 case of 1 group" in result.output
    result = run_command("infer", run, "--split", "validation", "-o", tmp_path / "more", "--device", "cpu")
    assert result.exit_code == 2
    assert f"{run} has no validation cases; it has train, test" in result.output


def test_a_report_of_its_predictions_says_which_epoch_was_taken(run: Path, tiny_volumes: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "c.yaml", tiny_volumes)
    result = run_command("evaluate", run, config, "-o", tmp_path / "report", "--measures", "dice", "--device", "cpu")
    assert result.exit_code == 0, result.output
    told = f"the weights of {run} are those of its last epoch: there are no validation cases"
    assert told in " ".join(result.output.split())


def test_a_run_of_all_cases_says_that_none_is_left_to_score_it(tiny_volumes: Path, tmp_path: Path) -> None:
    split = {"split": {"validation": 0}}
    config = write_config(tmp_path / "c.yaml", tiny_volumes, data=split, training={"max_epochs": 1})
    result = run_command("train", config, "-o", tmp_path / "run", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert TOLD in result.output
    assert "all cases trained the run, so none is left to score it" in result.output
    with pytest.raises(UserError, match="has no test and no validation cases: all its cases are for training"):
        cases_of(tmp_path / "run")


def test_early_stopping_without_validation_is_refused(tiny_volumes: Path, tmp_path: Path) -> None:
    path = write_config(tmp_path / "c.yaml", tiny_volumes, **ALL, training={"early_stopping": 3})
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    line = 1 + path.read_text().split("\n").index("  early_stopping: 3")
    assert str(caught.value) == (
        f"{path}:{line}: training.early_stopping: needs validation cases, and data.split.validation is 0: remove one of the two"
    )
