"""What a training would do: everything is checked and one batch is tried, nothing is kept."""

from __future__ import annotations

import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from r2seg.config import Config, build_configured_network
from r2seg.data.cache import cache_cases
from r2seg.data.layouts import find_cases
from r2seg.data.sampling import WindowSampler
from r2seg.data.splits import split_cases
from r2seg.devices import autocast, autocast_dtype
from r2seg.training.losses import SegmentationLoss
from r2seg.training.preparation import check_cached


@dataclass(frozen=True)
class TrainingPlan:
    """The figures of a dry run; its text is the page that is printed."""

    name: str
    parts: dict[str, list[str]]
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
    memory: str

    def __str__(self) -> str:
        lines = [f"plan of {self.name}: config and data are sound; nothing was written"]
        for part, ids in self.parts.items():
            shown = ", ".join(ids[:6]) + (f" and {len(ids) - 6} more" if len(ids) > 6 else "")
            lines.append(f"  {part:<11}{len(ids)} cases: {shown}" if ids else f"  {part:<11}none")
        lines.append(f"  {'grids':<11}{', '.join(self.shapes[:6])}{' …' if len(self.shapes) > 6 else ''}")
        shares = ", ".join(f"{label} {share:.2%}" for label, share in self.label_shares.items())
        lines.append(f"  {'labels':<11}{shares} of the training voxels")
        lines.append(f"  {'network':<11}{self.network}, {self.num_parameters:,} parameters")
        lines.append(
            f"  {'epoch':<11}{self.windows_per_epoch} windows in {self.steps_per_epoch} steps of {self.batch_shape}; {self.max_epochs} epochs"
        )
        minutes = self.seconds_per_step * self.steps_per_epoch * self.max_epochs / 60
        time_needed = f"{minutes / 60:.1f} h" if minutes > 90 else f"{max(minutes, 1):.0f} min"
        lines.append(
            f"  {'one step':<11}loss {self.first_loss:.4f}, {self.seconds_per_step:.2f} s; "
            f"about {time_needed} for all epochs, validation not counted"
        )
        lines.append(f"  {'memory':<11}{self.memory}")
        return "\n".join(lines)


def plan_training(config: Config, device: torch.device) -> TrainingPlan:
    """Reads every case, builds the network and runs two batches forward and backward (the second one is timed).

    Raises:
        UserError: What ``train`` would refuse.
    """
    cases = find_cases(config.data)
    parts = split_cases(cases, config.data.split, config.seed)
    with tempfile.TemporaryDirectory(prefix="r2seg-plan-") as folder:
        everything = cache_cases([case for members in parts.values() for case in members], config, Path(folder))
        by_id = {case.id: case for case in everything}
        cached = {part: [by_id[case.id] for case in members] for part, members in parts.items()}
        facts = check_cached(cached, config)
        network = build_configured_network(config, facts["in_channels"]).to(device)
        sampler = WindowSampler(
            cached["train"], config.window, config.sampling, config.augmentation, seed=config.seed, device=device
        )
        loss_function = SegmentationLoss(config.training.loss, config.network.output)
        dtype = autocast_dtype(device, config.training.precision, trains_dims=config.spatial_dims)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        for step in range(2):
            batch = sampler.batch(0, step)
            begin = time.perf_counter()
            with autocast(device, dtype):
                logits = network(batch["image"])
            loss = loss_function(logits, batch["label"])
            loss.backward()
            first_loss = loss.item()
            seconds = time.perf_counter() - begin
        voxels = np.zeros(len(config.data.labels) + 1)
        for case in cached["train"]:
            voxels += np.bincount(case.label.reshape(-1), minlength=256)[: len(voxels)]
    if device.type == "cuda":
        memory = f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB on {device} at the peak"
    else:
        memory = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB in the process at the peak"
    return TrainingPlan(
        name=config.name,
        parts={part: [case.id for case in members] for part, members in parts.items()},
        shapes=tuple(sorted({"x".join(map(str, case.grid.shape)) for case in everything})),
        label_shares={
            name: float(count / voxels.sum()) for name, count in zip(config.data.labels, voxels[1:], strict=True)
        },
        network=config.network.name,
        num_parameters=sum(parameter.numel() for parameter in network.parameters()),
        windows_per_epoch=sampler.steps_per_epoch * config.window.batch_size,
        steps_per_epoch=sampler.steps_per_epoch,
        max_epochs=config.training.max_epochs,
        batch_shape=tuple(batch["image"].shape),
        first_loss=first_loss,
        seconds_per_step=seconds,
        memory=memory,
    )
