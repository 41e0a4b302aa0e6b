"""The dry run: it tells what a training would do, refuses what a training would refuse, and leaves nothing behind."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from tiny import write_config, write_pictures, write_volumes

from r2seg.config import Config, load_config
from r2seg.errors import UserError
from r2seg.training import assembly as assembly_module
from r2seg.training.cases import window_warnings
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
    for part in ("2 cases in 2 groups: case_0, case_1", "22x18x7", "R2UNet", "3 steps of (4, 1, 16, 16)"):
        assert part in str(plan)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["config.yaml"]


def test_the_plan_counts_the_patients_of_each_part(tmp_path: Path) -> None:
    root = write_volumes(tmp_path / "data", count=6)
    for file in [*root.glob("*/case_*.nii.gz")]:
        number = int(file.name[5])
        file.rename(file.parent / f"p{number // 2}_{number}.nii.gz")
    data = {"group": r"(p\d)", "split": {"train": ["p0", "p1"], "validation": ["p2"]}}
    plan = str(plan_training(config_of(tmp_path, root, data=data), CPU))
    assert "4 cases in 2 groups: p0_0, p0_1, p1_2, p1_3" in plan
    assert "2 cases in 1 group: p2_4, p2_5" in plan


def test_copies_of_an_image_are_named_in_the_plan_on_the_terminal_and_in_the_manifest(tmp_path: Path) -> None:
    root = write_volumes(tmp_path / "data")
    for folder in ("images", "labels"):
        shutil.copy(root / folder / "case_0.nii.gz", root / folder / "twin.nii.gz")
    split = {"train": ["case_0", "case_1", "twin"], "validation": ["case_2"], "test": ["case_3"]}
    config = config_of(tmp_path, root, data={"split": split}, training={"max_epochs": 1})
    told = "warning: the images of the cases case_0 and twin are identical; they are kept in one part of the split"
    assert told in str(plan_training(config, CPU))
    progress = Messages()
    run = train(config, tmp_path / "run", device="cpu", progress=progress)
    assert told in progress.lines
    assert run.manifest["warnings"] == [told.removeprefix("warning: ")]
    config = config_of(tmp_path, root, data={"split": {"train": ["case_0", "case_1"], "validation": ["twin"]}})
    with pytest.raises(
        UserError, match="'case_0' into train and the case 'twin' into validation, but their images are"
    ):
        plan_training(config, CPU)


@pytest.mark.parametrize(
    ("size", "text"),
    [([2, 16], "a window shows a small part of them"), ([16, 30], "most of a window is padding"), ([16, 16], None)],
)
def test_a_window_of_quite_another_size_than_the_images_is_warned_of(
    size, text, tiny_volumes: Path, tmp_path: Path
) -> None:
    config = config_of(
        tmp_path, tiny_volumes, window={"size": size}, network={"name": "R2UNet", "channels": [2, 2], "steps": 1}
    )
    warnings = plan_training(config, CPU).warnings
    if text is None:
        assert warnings == []
    else:
        assert warnings[0].startswith(f"window.size is {size} and the training images are typically [22, 18]: ")
        assert text in warnings[0]


def test_a_small_window_shows_enough_of_narrow_structures(tmp_path: Path) -> None:
    config = config_of(tmp_path, tmp_path, window={"size": [48, 48], "plane": None})
    label = np.zeros((900, 900), np.uint8)
    label[:, ::60] = label[:, 1::60] = label[:, 2::60] = 1  # bands of 3 pixels
    assert window_warnings([SimpleNamespace(label=label)], config) == []
    label[:, :450] = 1
    assert "a window shows a small part of them" in window_warnings([SimpleNamespace(label=label)], config)[0]


def test_the_estimated_time_includes_validation(
    tiny_volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = assembly_module.segment_prepared

    def slowly(*arguments, **options):
        time.sleep(0.5)
        return predict(*arguments, **options)

    monkeypatch.setattr(assembly_module, "segment_prepared", slowly)
    split = {"train": ["case_0"], "validation": ["case_1", "case_2", "case_3"], "test": []}
    recipe = {"max_epochs": 100, "validate_every": 3}
    plan = plan_training(config_of(tmp_path, tiny_volumes, data={"split": split}, training=recipe), CPU)
    # Three cases of at least half a second each, after every third epoch, after the last one, and once more at the end.
    assert plan.num_validations == 35
    assert 1.5 <= plan.seconds_per_validation < 15
    steps = plan.seconds_per_step * plan.steps_per_epoch * 100
    assert plan.seconds == pytest.approx(steps + 35 * plan.seconds_per_validation)
    assert "with 35 validations of " in str(plan)


def test_a_loss_that_is_not_finite_promises_no_checkpoint_where_there_is_none(
    tiny_volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Breaks(assembly_module.SegmentationLoss):
        def forward(self, logits, label):
            return super().forward(logits, label) * float("nan")

    monkeypatch.setattr(assembly_module, "SegmentationLoss", Breaks)
    config = config_of(tmp_path, tiny_volumes)
    for attempt in (lambda: plan_training(config, CPU), lambda: train(config, tmp_path / "run", device="cpu")):
        with pytest.raises(UserError, match="loss is nan in epoch 1") as caught:
            attempt()
        assert "checkpoint" not in str(caught.value)


class Messages(TrainingProgress):
    """Keeps the lines of text."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)


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
    "missing direction": (
        {"augmentation": {"flip": ["left-right", "up-down"]}},
        "augmentation.flip names up-down, which axial slices do not have: they have left-right and front-back",
    ),
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


def test_smeared_masks_that_were_cut_are_named(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "data")
    for name in ("case_1", "case_2"):
        mask = Image.open(root / f"labels/{name}.png").resize((187, 150), Image.Resampling.NEAREST)
        picture = Image.open(root / f"images/{name}.png").resize((187, 150))
        (root / f"labels/{name}.png").unlink()
        mask.save(root / f"labels/{name}.jpg", quality=80)
        picture.save(root / f"images/{name}.png")
    config = config_of(tmp_path, root, window={"plane": None}, preprocessing={"intensity": {"kind": "unit"}})
    told = "warning: 2 masks are smeared, as by JPEG, and were cut (0/255 at 128, colours to the nearest): case_1.jpg, case_2.jpg"
    assert told in str(plan_training(config, CPU))
    with pytest.raises(UserError, match=r"case_1\.jpg: holds undeclared label values"):
        plan_training(
            config.model_copy(update={"data": config.data.model_copy(update={"labels": {"a": (1,), "b": (2,)}})}), CPU
        )
