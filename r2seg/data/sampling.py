"""Training windows: which are drawn from the cached cases, with foreground balance. How they are changed is in augmentation.py.

Everything random in step s of epoch e follows from (seed, e, s): a resumed run draws what an uninterrupted one draws, and
any step can be drawn without those before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from r2seg.data.augmentation import Windows, augment, flip_axes
from r2seg.data.cache import CachedCase
from r2seg.data.geometry import PLANES, pad_to
from r2seg.data.images import IGNORE

if TYPE_CHECKING:
    from r2seg.config import Augmentation, Sampling, Window


class WindowSampler:
    """Batches of windows and their labels.

    A case is drawn first, each with the same probability, so that short volumes count as much as long ones. The share
    ``sampling.foreground`` of the windows comes from cases that have labels: such a window holds a voxel of a label, drawn
    uniformly from the case's labels, at a uniformly drawn place in the window. The others lie anywhere in any case. If an image is
    smaller than the window, its edge is repeated, as in ``WindowInferer``, and the label there is ignored.

    Args:
        cases: Cached training cases.
        window: Size, plane and batch size.
        sampling: Windows per epoch, foreground share.
        augmentation: Strengths of the random changes.
        seed: Seed of everything drawn.
        device: Where batches are made.
    """

    def __init__(
        self,
        cases: Sequence[CachedCase],
        window: Window,
        sampling: Sampling,
        augmentation: Augmentation,
        *,
        seed: int,
        device: torch.device,
    ) -> None:
        self.cases = list(cases)
        self.labelled = [case for case in self.cases if case.foreground]
        self.window = window
        self.sampling = sampling
        self.augmentation = augmentation
        self.seed = seed
        self.device = device
        self.steps_per_epoch = math.ceil(sampling.windows_per_epoch / window.batch_size)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[dict[str, Any]]:
        """Batches of an epoch, starting at a step; the next one is read while the current one is used."""
        with ThreadPoolExecutor(1, thread_name_prefix="windows") as reader:
            coming = reader.submit(self._draw, epoch, first_step)
            for step in range(first_step, self.steps_per_epoch):
                drawn = coming.result()
                if step + 1 < self.steps_per_epoch:
                    coming = reader.submit(self._draw, epoch, step + 1)
                yield self._finish(drawn, epoch, step)

    def batch(self, epoch: int, step: int) -> dict[str, Any]:
        """One batch: ``image`` (B, C, *window) float32, ``label`` (B, *window) int64 class indices, ``case`` ids."""
        return self._finish(self._draw(epoch, step), epoch, step)

    def _draw(self, epoch: int, step: int) -> dict[str, Any]:
        rng = np.random.default_rng([self.seed, epoch, step])
        size = self.window.batch_size
        # Counted over all windows so far: a batch of one or two keeps the share too.
        before = (epoch * self.steps_per_epoch + step) * size
        share = self.sampling.foreground
        num_foreground = round((before + size) * share) - round(before * share) if self.labelled else 0
        images, labels, cases = [], [], []
        for index in range(size):
            cases_here = self.labelled if index < num_foreground else self.cases
            case = cases_here[rng.integers(len(cases_here))]
            parts = self._place(case, rng, index < num_foreground)
            voxels, label = case.voxels[(slice(None), *parts)], case.label[parts]
            if len(self.window.size) < case.label.ndim:
                axis = PLANES[self.window.plane_in_volumes]
                voxels, label = voxels.take(0, axis=1 + axis), label.take(0, axis=axis)
            pixels = case.intensity(torch.from_numpy(np.ascontiguousarray(voxels, dtype=np.float32)))
            images.append(pad_to(pixels, self.window.size))
            labels.append(pad_to(torch.from_numpy(np.ascontiguousarray(label)), self.window.size, IGNORE))
            cases.append(case)
        pixels, indices = torch.stack(images), torch.stack(labels)
        if self.device.type == "cuda":
            pixels, indices = pixels.pin_memory(), indices.pin_memory()
        return {"image": pixels, "label": indices, "cases": cases}

    def _place(self, case: CachedCase, rng: np.random.Generator, foreground: bool) -> tuple[slice, ...]:
        """Slices of a window in the working grid; never beyond it."""
        shape = case.label.shape
        size = list(self.window.size)
        if len(size) < len(shape):
            size.insert(PLANES[self.window.plane_in_volumes], 1)
        voxel = None
        if foreground:
            index = list(case.foreground)[rng.integers(len(case.foreground))]
            voxel = case.foreground[index][rng.integers(len(case.foreground[index]))]
        parts = []
        for axis, (extent, wanted) in enumerate(zip(shape, size, strict=True)):
            wanted = min(extent, wanted)
            low, high = 0, extent - wanted
            if voxel is not None:
                low, high = max(low, int(voxel[axis]) - wanted + 1), min(high, int(voxel[axis]))
            start = int(rng.integers(low, high + 1))
            parts.append(slice(start, start + wanted))
        return tuple(parts)

    def _finish(self, drawn: dict[str, Any], epoch: int, step: int) -> dict[str, Any]:
        image = drawn["image"].to(self.device, non_blocking=True)
        label = drawn["label"].to(self.device, non_blocking=True)
        plane = PLANES[self.window.plane_in_volumes]
        spacings = []
        for case in drawn["cases"]:
            in_plane = len(case.spacing_mm) > len(self.window.size)
            spacings.append([s for axis, s in enumerate(case.spacing_mm) if not (in_plane and axis == plane)])
        rng = np.random.default_rng([self.seed, epoch, step, 1])
        axes = flip_axes(self.window, pictures=drawn["cases"][0].label.ndim == 2)
        windows = augment(Windows(image, label, np.array(spacings), axes), self.augmentation, rng)
        return {"image": windows.image, "label": windows.label.long(), "case": [case.id for case in drawn["cases"]]}
