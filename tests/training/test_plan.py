"""The dry run: it tells what a training would do, refuses what a training would refuse, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from tiny import write_config, write_volumes

from r2seg.config import Config, load_config
from r2seg.errors import UserError
from r2seg.training import assembly as assembly_module
from r2seg.training.plan import plan_training
from r2seg.training.progress import TrainingProgress
from r2seg.training.train import train

CPU = torch.device("cpu")


def config_of(folder: Path, root: Path, **changes) -> Config:
    return load_config(write_config(folder / "config.yaml", root, **changes))


def test_a_dry_run_plans_and_writes_nothing(
    tiny_volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = config_of(tmp_path, tiny_volumes)
    plan = plan_training(config, torch.device("cpu"))
    assert (plan.steps_per_epoch, plan.windows_per_epoch, plan.batch_shape) == (3, 12, (4, 1, 16, 16))
    assert plan.parts["test"] == ["case_3"]
    for part in ("2 cases: case_0, case_1", "22x18x7", "R2UNet", "3 steps of (4, 1, 16, 16)"):
        assert part in str(plan)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["config.yaml"]


class FirstLoss(TrainingProgress):
    """Keeps the loss of the first step."""

    loss: float | None = None

    def training(self, epoch, max_epochs, step, steps, loss) -> None:
        self.loss = loss if self.loss is None else self.loss


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_dry_run_takes_the_first_step_of_the_training(optimizer: str, tiny_volumes: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, tiny_volumes, training={"max_epochs": 1, "optimizer": optimizer})
    progress = FirstLoss()
    train(config, tmp_path / "run", device="cpu", progress=progress)
    assert plan_training(config, CPU).first_loss == progress.loss


def test_the_dry_run_refuses_a_loss_that_is_not_finite(
    tiny_volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Breaks(assembly_module.SegmentationLoss):
        def forward(self, logits, label):
            return super().forward(logits, label) * float("nan")

    monkeypatch.setattr(assembly_module, "SegmentationLoss", Breaks)
    with pytest.raises(UserError, match=r"loss is nan in epoch 1, step 1, cases case_\d"):
        plan_training(config_of(tmp_path, tiny_volumes), CPU)


def without_labels(root: Path, case: str) -> Path:
    file = write_volumes(root) / f"labels/{case}.nii.gz"
    label = nib.load(file)
    nib.save(nib.Nifti1Image(np.zeros(label.shape, np.uint8), label.affine), file)
    return root


REFUSED = {
    "backbone rate": (
        {"training": {"backbone_learning_rate": 1e-5}},
        "training.backbone_learning_rate is 1e-05 but no part of R2UNet is pretrained",
    ),
    "other weights": (
        {"network": {"name": "R2UNet", "channels": [4, 8], "steps": 1, "weights": "RUN", "output": "sigmoid"}},
        "network.weights: ",
    ),
    "reset alone": ({"network": {"reset": ["head"]}}, "network.reset ['head'] goes with network.weights"),
    "training precision": ({"training": {"precision": "fp16"}}, "precision fp16 is for CUDA devices, but this is cpu"),
    "inference precision": ({"infer": {"precision": "fp16"}}, "precision fp16 is for CUDA devices, but this is cpu"),
    "no label": ({}, "no validation case holds the label ball (of 1)"),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_the_dry_run_refuses_what_training_refuses_and_neither_leaves_a_folder(
    reason: str, tiny_run: Path, tiny_volumes: Path, tmp_path: Path
) -> None:
    changes, message = REFUSED[reason]
    root = without_labels(tmp_path / "data", "case_2") if reason == "no label" else tiny_volumes
    if reason == "other weights":
        changes = {"network": {**changes["network"], "weights": str(tiny_run)}}
    config = config_of(tmp_path, root, **changes)
    with pytest.raises(UserError) as in_dry_run:
        plan_training(config, CPU)
    with pytest.raises(UserError) as in_training:
        train(config, tmp_path / "runs/run", device="cpu")
    assert str(in_training.value) == str(in_dry_run.value)
    assert str(in_training.value).startswith(message)
    assert not (tmp_path / "runs").exists()


def test_a_refused_training_keeps_the_folder_that_was_there_before(tiny_volumes: Path, tmp_path: Path) -> None:
    """Such as one of an interrupted preprocessing."""
    (tmp_path / "run/cache").mkdir(parents=True)
    with pytest.raises(UserError):
        train(config_of(tmp_path, tiny_volumes, network={"reset": ["head"]}), tmp_path / "run", device="cpu")
    assert [entry.name for entry in (tmp_path / "run").iterdir()] == ["cache"]
    assert len(list((tmp_path / "run/cache").iterdir())) == 4
