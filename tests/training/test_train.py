"""Training: what a run holds, that it learns, that it can be stopped and resumed anywhere, and what it refuses."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from tiny import write_config, write_pictures, write_volumes

from r2seg.config import Config, load_config
from r2seg.errors import UserError
from r2seg.metrics.catalogue import MEASURES
from r2seg.run import BEST, CONFIG, LAST, Run
from r2seg.training import assembly as assembly_module
from r2seg.training.progress import TrainingProgress
from r2seg.training.steps import step_seed
from r2seg.training.train import train


def config_of(folder: Path, root: Path, **changes) -> Config:
    folder.mkdir(parents=True, exist_ok=True)
    return load_config(write_config(folder / "config.yaml", root, **changes))


def weights(run: Path, name: str = LAST) -> dict[str, torch.Tensor]:
    return Run.open(run).load_checkpoint(name)["network"]


def assert_equal_weights(first: Path, second: Path) -> None:
    one, other = weights(first), weights(second)
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.fixture(scope="module")
def one_epoch(tiny_volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch, to be copied."""
    folder = tmp_path_factory.mktemp("one epoch")
    return train(config_of(folder, tiny_volumes, training={"max_epochs": 1}), folder / "run", device="cpu").path


class StopAfter(TrainingProgress):
    """Stops the training at a step, as Ctrl-C would."""

    def __init__(self, epoch: int, step: int) -> None:
        self.at = (epoch, step)

    def training(self, epoch, max_epochs, step, steps, loss) -> None:
        if (epoch, step) == self.at:
            raise KeyboardInterrupt


def test_a_trained_run_finds_the_ball_and_describes_itself(tiny_run: Path) -> None:
    run = Run.open(tiny_run)
    manifest = run.manifest
    assert manifest["state"] == "finished"
    assert manifest["epochs"] == 20
    assert (manifest["in_channels"], manifest["image_dims"]) == (1, 3)
    assert manifest["results"]["test"]["ball"]["dice"] > 0.9
    assert run.splits == {"train": ["case_0", "case_1"], "validation": ["case_2"], "test": ["case_3"]}
    with open(tiny_run / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == list(range(1, 21))
    best = max(rows, key=lambda row: float(row["validation_dice"]))
    assert float(best["validation_dice"]) == manifest["best"]["dice"]
    assert any((tiny_run / "tensorboard").iterdir())
    assert not (tiny_run / "cache").exists()


def test_iou_follows_from_dice_in_every_row(tiny_run: Path) -> None:
    with open(tiny_run / "metrics.csv") as file:
        for row in csv.DictReader(file):
            dice = float(row["dice_ball"])
            assert float(row["iou_ball"]) == pytest.approx(dice / (2 - dice), abs=1e-9)


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tiny_volumes: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, tiny_volumes)
    train(config, tmp_path / "whole", device="cpu")
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "parts", device="cpu", progress=StopAfter(2, 2))
    assert Run.open(tmp_path / "parts").load_checkpoint(LAST)["epoch"] == 1
    train(config, tmp_path / "parts", device="cpu", resume=True)
    assert_equal_weights(tmp_path / "whole", tmp_path / "parts")
    columns = ("epoch", "loss", "learning_rate", "validation_dice")
    tables = []
    for name in ("whole", "parts"):
        with open(tmp_path / name / "metrics.csv") as file:
            tables.append([[row[column] for column in columns] for row in csv.DictReader(file)])
    assert tables[0] == tables[1]


def test_dropout_draws_differ_between_steps_and_repeat_for_one_step() -> None:
    seeds = {step_seed(0, epoch, step) for epoch in range(20) for step in range(20)}
    assert len(seeds) == 400
    assert step_seed(3, 1, 2) == step_seed(3, 1, 2) != step_seed(4, 1, 2)


def test_killed_before_the_first_epoch_it_begins_again(tiny_volumes: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, tiny_volumes)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "parts", device="cpu", progress=StopAfter(1, 1))
    assert not (tmp_path / "parts" / LAST).exists()
    train(config, tmp_path / "parts", device="cpu", resume=True)
    train(config, tmp_path / "whole", device="cpu", resume=True)  # nothing there yet: it begins
    assert_equal_weights(tmp_path / "whole", tmp_path / "parts")


def test_a_second_run_over_the_first_is_refused(tiny_run: Path, tiny_volumes: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"already holds a run.*--resume.*-o"):
        train(config_of(tmp_path, tiny_volumes), tiny_run, device="cpu")


def test_resuming_with_another_config_is_refused_with_its_keys(
    tiny_run: Path, tiny_volumes: Path, tmp_path: Path
) -> None:
    other = config_of(tmp_path, tiny_volumes, training={"learning_rate": 0.02, "max_epochs": 20})
    before = (tiny_run / CONFIG).read_text()
    with pytest.raises(UserError, match=r"training\.learning_rate \(0\.01, now 0\.02\)"):
        train(other, tiny_run, device="cpu", resume=True)
    assert (tiny_run / CONFIG).read_text() == before


def test_more_epochs_may_be_added_when_resuming(one_epoch: Path, tiny_volumes: Path, tmp_path: Path) -> None:
    shutil.copytree(one_epoch, tmp_path / "run")
    run = train(
        config_of(tmp_path, tiny_volumes, training={"max_epochs": 2}), tmp_path / "run", device="cpu", resume=True
    )
    assert run.manifest["epochs"] == 2
    assert run.config.training.max_epochs == Run.open(run.path).config.training.max_epochs == 2


def test_a_run_whose_config_lacks_the_networks_defaults_is_resumed_and_completed(
    one_epoch: Path, tiny_volumes: Path, tmp_path: Path
) -> None:
    """As version 0.1.0 wrote them."""
    shutil.copytree(one_epoch, tmp_path / "run")
    document = yaml.safe_load((tmp_path / "run" / CONFIG).read_text())
    assert document["network"]["act"] == "relu"
    document["network"] = {
        key: document["network"][key] for key in ("name", "channels", "steps", "dropout", "output", "weights", "reset")
    }
    (tmp_path / "run" / CONFIG).write_text(yaml.safe_dump(document))
    longer = config_of(tmp_path, tiny_volumes, training={"max_epochs": 2})
    run = train(longer, tmp_path / "run", device="cpu", resume=True)
    assert run.manifest["epochs"] == 2
    assert yaml.safe_load((run.path / CONFIG).read_text())["network"]["act"] == "relu"


def test_a_loss_that_is_not_finite_stops_with_epoch_cases_and_remedy(
    tiny_volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Breaks(assembly_module.SegmentationLoss):
        calls = 0

        def forward(self, logits, label):
            Breaks.calls += 1
            return super().forward(logits, label) * (float("nan") if Breaks.calls == 5 else 1.0)

    monkeypatch.setattr(assembly_module, "SegmentationLoss", Breaks)
    with pytest.raises(
        UserError,
        match=r"loss is nan in epoch 2, step 2, cases case_\d.*lower training\.learning_rate.*last good checkpoint is kept",
    ):
        train(config_of(tmp_path, tiny_volumes), tmp_path / "run", device="cpu")
    last = Run.open(tmp_path / "run").load_checkpoint(LAST)
    assert last["epoch"] == 1
    assert all(tensor.isfinite().all() for tensor in last["network"].values())


def test_early_stopping_counts_validations_without_a_better_dice(
    tiny_volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    always_half = replace(MEASURES["dice"], score=lambda evidence: torch.tensor([0.5], dtype=torch.float64))
    monkeypatch.setitem(MEASURES, "dice", always_half)
    config = config_of(tmp_path, tiny_volumes, training={"max_epochs": 9, "early_stopping": 2})
    run = train(config, tmp_path / "run", device="cpu")
    assert run.manifest["epochs"] == 3  # the first is the best, two more are no better
    run.update_manifest(state="training")  # as after a kill between the last epoch and the results
    assert train(config, run.path, resume=True, device="cpu").manifest["epochs"] == 3


def test_a_finished_run_is_resumed_without_its_data(tiny_volumes: Path, tmp_path: Path) -> None:
    data = shutil.copytree(tiny_volumes, tmp_path / "data")
    config = config_of(tmp_path, data, training={"max_epochs": 1})
    run = train(config, tmp_path / "run", device="cpu")
    shutil.rmtree(data)
    before = sorted(entry.name for entry in run.path.iterdir())
    assert train(config, run.path, resume=True, device="cpu").manifest == run.manifest
    assert sorted(entry.name for entry in run.path.iterdir()) == before  # no cache is left
    (run.path / BEST).unlink()
    with pytest.raises(UserError, match=r"has no best\.pt: it was removed after the training had finished"):
        run.load_checkpoint(BEST)


def test_validation_every_few_epochs_still_ends_with_one(tiny_volumes: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, tiny_volumes, training={"max_epochs": 3, "validate_every": 2})
    run = train(config, tmp_path / "run", device="cpu")
    with open(run.path / "metrics.csv") as file:
        assert [bool(row["validation_dice"]) for row in csv.DictReader(file)] == [False, True, True]


def test_pictures_with_three_channels_train_without_a_plane(tiny_pictures: Path, tmp_path: Path) -> None:
    config = config_of(
        tmp_path,
        tiny_pictures,
        window={"plane": None},
        preprocessing={"intensity": {"kind": "unit"}},
        training={"max_epochs": 1},
    )
    manifest = train(config, tmp_path / "run", device="cpu").manifest
    assert (manifest["in_channels"], manifest["image_dims"]) == (3, 2)


def test_three_dimensional_windows_and_sigmoid_train(tiny_volumes: Path, tmp_path: Path) -> None:
    config = config_of(
        tmp_path,
        tiny_volumes,
        window={"size": [12, 12, 6], "plane": None, "batch_size": 2},
        network={"output": "sigmoid"},
        preprocessing={"spacing_mm": [3, 3, 4]},
        sampling={"windows_per_epoch": 24},
        training={"max_epochs": 4, "learning_rate": 0.03},
        postprocessing=[{"step": "largest_components", "label": "ball"}],
    )
    manifest = train(config, tmp_path / "run", device="cpu").manifest
    assert manifest["results"]["test"]["ball"]["dice"] > 0.7


def test_a_validation_set_without_foreground_is_refused(tmp_path: Path) -> None:
    root = write_volumes(tmp_path / "data")
    empty = nib.load(root / "labels/case_2.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros(empty.shape, np.uint8), empty.affine), root / "labels/case_2.nii.gz")
    with pytest.raises(UserError, match="no validation case holds the label ball"):
        train(config_of(tmp_path, root), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_every_bad_label_is_reported_and_the_good_cases_stay_preprocessed(tmp_path: Path) -> None:
    root = write_volumes(tmp_path / "data")
    for name in ("case_0", "case_2"):
        label = nib.load(root / f"labels/{name}.nii.gz")
        nib.save(nib.Nifti1Image(np.asarray(label.dataobj) * 3, label.affine), root / f"labels/{name}.nii.gz")
    with pytest.raises(UserError) as caught:
        train(config_of(tmp_path, root), tmp_path / "run", device="cpu")
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert "case_0" in lines[0] and "3 (" in lines[0] and "case_2" in lines[1]
    assert [entry.name for entry in (tmp_path / "run").iterdir()] == ["cache"]
    assert len(list((tmp_path / "run/cache").iterdir())) == 2


def test_mixed_channels_are_refused_with_both_cases(tmp_path: Path) -> None:
    from PIL import Image

    root = write_pictures(tmp_path / "data")
    Image.open(root / "images/case_1.png").convert("L").save(root / "images/case_1.png")
    config = config_of(tmp_path, root, window={"plane": None}, preprocessing={"intensity": {"kind": "unit"}})
    with pytest.raises(UserError, match="case_1 has 1 channel and case case_0 has 3"):
        train(config, tmp_path / "run", device="cpu")


def test_masks_of_0_and_65535_are_trained_on(tmp_path: Path) -> None:
    from PIL import Image

    root = write_pictures(tmp_path / "data")
    for path in (root / "labels").glob("*.png"):
        Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint16) * 65535).save(path)
    config = config_of(
        tmp_path,
        root,
        data={"labels": {"ball": [255, 65535]}},
        window={"plane": None},
        preprocessing={"intensity": {"kind": "unit"}},
        training={"max_epochs": 1},
    )
    run = train(config, tmp_path / "run", device="cpu")
    from r2seg.inference.segmenter import Segmenter

    Segmenter.from_run(run.path, "cpu").segment(root / "images/case_3.png").write(tmp_path / "out.png")
    assert set(np.unique(np.asarray(Image.open(tmp_path / "out.png")))) <= {0, 255}


def test_training_starts_from_the_weights_of_a_run(tiny_run: Path, tiny_volumes: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, tiny_volumes, network={"weights": str(tiny_run)}, training={"max_epochs": 1})
    manifest = train(config, tmp_path / "run", device="cpu").manifest
    assert manifest["results"]["test"]["ball"]["dice"] > 0.9  # one epoch from scratch gives nothing


def test_weights_that_do_not_fit_need_a_reset(tiny_run: Path, tiny_volumes: Path, tmp_path: Path) -> None:
    network = {"weights": str(tiny_run), "output": "sigmoid"}  # one channel instead of two
    with pytest.raises(UserError, match=r"network\.weights: .*head.*reset"):
        train(config_of(tmp_path, tiny_volumes, network=network), tmp_path / "run", device="cpu")
    network["reset"] = ["head"]
    config = config_of(tmp_path, tiny_volumes, network=network, training={"max_epochs": 1})
    train(config, tmp_path / "other", device="cpu")


def test_a_pretrained_backbone_has_its_own_learning_rate(tmp_path: Path, tiny_pictures: Path) -> None:
    from r2seg.networks import build_network

    trained = build_network("TernausNet", spatial_dims=2, in_channels=3, out_channels=5, num_filters=2)
    torch.save(trained.state_dict(), tmp_path / "weights.pt")
    config = config_of(
        tmp_path,
        tiny_pictures,
        window={"size": [32, 32], "plane": None, "batch_size": 2},
        sampling={"windows_per_epoch": 2},
        preprocessing={"intensity": {"kind": "unit"}},
        network={
            "name": "TernausNet",
            "weights": str(tmp_path / "weights.pt"),
            "reset": ["head"],
            "num_filters": 2,
        },
        training={"max_epochs": 1, "learning_rate": 1e-3, "backbone_learning_rate": 1e-5},
    )
    run = train(config, tmp_path / "run", device="cpu")
    last = run.load_checkpoint(LAST)
    assert all(name.startswith("encoder.") for name in last["pretrained"])
    rates = {group["initial_lr"] for group in last["optimizer"]["param_groups"]}
    assert rates == {1e-3, 1e-5}
    longer = config.model_copy(update={"training": config.training.model_copy(update={"max_epochs": 2})})
    train(longer, run.path, device="cpu", resume=True)
    with pytest.raises(UserError, match=r"backbone_learning_rate is 1e-05 but no part of TernausNet is pretrained"):
        fresh = config.network.model_copy(update={"weights": None, "reset": ()})
        train(config.model_copy(update={"network": fresh}), tmp_path / "none", device="cpu")
