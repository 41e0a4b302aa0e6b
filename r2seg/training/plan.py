"""A dry run of a training: everything is checked, two steps are tried, and nothing is kept."""

from __future__ import annotations

import math
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ignite.engine import Engine, Events

from r2seg.config import Config
from r2seg.data_check.check import DataCheck, check_data
from r2seg.data_check.tables import finding_lines
from r2seg.errors import counted, some
from r2seg.metrics import IGNORE, label_mask
from r2seg.training.assembly import Assembly, assemble, explained_out_of_memory
from r2seg.training.cases import TrainingCases, cache_parts
from r2seg.training.progress import TrainingProgress


@dataclass(frozen=True)
class TrainingPlan:
    """The figures of a dry run; ``str`` gives the page that is printed.

    Attributes:
        name: The config's name.
        parts: Ids of the cases of each part.
        num_groups: Number of groups (patients) in each part.
        check: What the data are, and warnings about them.
        warnings: What else a person should know, one line each.
        shapes: Sizes of the working grids, such as "512x512x120".
        label_shares: Label -> share of the voxels of the training cases, 0 to 1.
        network: Name of the network.
        num_parameters: Of the network.
        windows_per_epoch: Whole batches, so at least ``sampling.windows_per_epoch``.
        steps_per_epoch: Batches per epoch.
        max_epochs: Epochs.
        batch_shape: (B, C, *window).
        first_loss: Loss of the first step.
        seconds_per_step: Forward, backward and update, without drawing the batch.
        seconds_per_validation: Prediction of all validation cases, estimated from the smallest one by the number of voxels.
        num_validations: How often that happens.
        memory: Peak of the memory, in words.
    """

    name: str
    parts: dict[str, list[str]]
    num_groups: dict[str, int]
    check: DataCheck
    warnings: list[str]
    shapes: tuple[str, ...]
    label_shares: dict[str, float]
    network: str
    num_parameters: int
    windows_per_epoch: int
    steps_per_epoch: int
    max_epochs: int
    batch_shape: tuple[int, ...]
    first_loss: float
    seconds_per_step: float
    seconds_per_validation: float
    num_validations: int
    memory: str

    def __str__(self) -> str:
        lines = [f"plan of {self.name}: config and data are sound; nothing was written"]
        for part, ids in self.parts.items():
            groups = counted(self.num_groups[part], "group")
            held = f"{counted(len(ids), 'case')} in {groups}: {some(ids, 6)}" if ids else "none"
            lines.append(f"  {part:<11}{held}")
        lines.append(f"  {'grids':<11}{', '.join(self.shapes[:6])}{' …' if len(self.shapes) > 6 else ''}")
        shares = ", ".join(f"{label} {share:.2%}" for label, share in self.label_shares.items())
        lines.append(f"  {'labels':<11}{shares} of the training voxels")
        lines.append(f"  {'network':<11}{self.network}, {self.num_parameters:,} parameters")
        lines.append(
            f"  {'epoch':<11}{self.windows_per_epoch} windows in {self.steps_per_epoch} steps of {self.batch_shape}; {self.max_epochs} epochs"
        )
        lines.append(f"  {'one step':<11}loss {self.first_loss:.4f}, {self.seconds_per_step:.2f} s")
        minutes = self.seconds / 60
        time_needed = f"{minutes / 60:.1f} h" if minutes > 90 else f"{max(minutes, 1):.0f} min"
        validations = f"{counted(self.num_validations, 'validation')} of {self.seconds_per_validation:.1f} s"
        with_them = f"with {validations}" if self.num_validations else "without validation"
        lines.append(f"  {'time':<11}about {time_needed} for all epochs, {with_them}")
        lines.append(f"  {'memory':<11}{self.memory}")
        lines += [f"  {line}" for _, line in finding_lines(self.check)]
        lines += [f"  warning: {text}" for text in self.warnings]
        return "\n".join(lines)

    @property
    def seconds(self) -> float:
        """Estimated duration of the training: its steps and its validations."""
        steps = self.seconds_per_step * self.steps_per_epoch * self.max_epochs
        return steps + self.seconds_per_validation * self.num_validations


def plan_training(
    config: Config, device: torch.device, on_case: Callable[[int, int], None] | None = None
) -> TrainingPlan:
    """Checks the data, assembles the training as ``train`` does, and runs two steps (the second is timed) and one validation
    case, if there is one.

    Args:
        config: The experiment.
        device: Where it is to be trained.
        on_case: Called with the number of cases checked and of all cases after each.

    Raises:
        UserError: What ``train`` would refuse; all that is wrong with the data at once.
    """
    check = check_data(config, on_case=on_case)
    split = check.raise_errors()
    with tempfile.TemporaryDirectory(prefix="r2seg-plan-") as folder:
        cases = TrainingCases.of(cache_parts(split.parts, config, Path(folder)), config)
        cases.check_flips(config)
        with explained_out_of_memory(config, device):
            assembly = assemble(config, cases, device, TrainingProgress())
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            first_loss, seconds = _try_two_steps(assembly)
            seconds_per_validation = _try_validation(assembly)
        known, voxels = 0, np.zeros(len(config.data.labels))
        for case in cases.parts["train"]:
            known += int((case.label != IGNORE).sum())
            voxels += [
                label_mask(case.label, index, config.data.overlapping).sum() for index in range(1, len(voxels) + 1)
            ]
    if device.type == "cuda":
        memory = f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB on {device} at the peak"
    else:
        memory = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB in the process at the peak"
    sampler, network = assembly.sampler, assembly.network
    return TrainingPlan(
        name=config.name,
        parts=cases.ids,
        num_groups=split.num_groups,
        check=check,
        warnings=list(cases.warnings),
        shapes=tuple(
            sorted({"x".join(map(str, case.grid.shape)) for members in cases.parts.values() for case in members})
        ),
        label_shares={
            name: float(count / max(known, 1)) for name, count in zip(config.data.labels, voxels, strict=True)
        },
        network=config.network.name,
        num_parameters=sum(parameter.numel() for parameter in network.parameters()),
        windows_per_epoch=sampler.steps_per_epoch * config.window.batch_size,
        steps_per_epoch=sampler.steps_per_epoch,
        max_epochs=config.training.max_epochs,
        batch_shape=(config.window.batch_size, cases.in_channels * config.window.num_slices, *config.window.size),
        first_loss=first_loss,
        seconds_per_step=seconds,
        seconds_per_validation=seconds_per_validation,
        # Every few epochs, and at the end in any case; then the best checkpoint is scored once more.
        num_validations=math.ceil(config.training.max_epochs / config.training.validate_every) + 1
        if cases.parts["validation"]
        else 0,
        memory=memory,
    )


def _try_two_steps(assembly: Assembly) -> tuple[float, float]:
    """Loss of the first training step, and seconds of the second one."""
    batches = [assembly.sampler.batch(0, step) for step in range(2)]
    trainer = assembly.make_trainer(batches, epochs=1, steps_per_epoch=len(batches))
    losses: list[float] = []
    seconds: list[float] = []

    @trainer.on(Events.ITERATION_STARTED)
    def before_step() -> None:
        seconds.append(-_now(assembly.device))

    @trainer.on(Events.ITERATION_COMPLETED)
    def after_step(engine: Engine) -> None:
        seconds[-1] += _now(assembly.device)
        losses.append(engine.state.output["loss"])

    trainer.run()
    return losses[0], seconds[-1]


def _try_validation(assembly: Assembly) -> float:
    """Seconds that the prediction of all validation cases takes, from that of the smallest one; 0 if there are none."""
    cases = assembly.cases.parts["validation"]
    if not cases:
        return 0.0
    smallest = min(cases, key=lambda case: case.label.size)
    assembly.network.eval()
    begun = _now(assembly.device)
    with torch.inference_mode():
        assembly.segment(smallest)
    seconds = _now(assembly.device) - begun
    return seconds * sum(case.label.size for case in cases) / smallest.label.size


def _now(device: torch.device) -> float:
    """The time in seconds, after all that the device was asked to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
