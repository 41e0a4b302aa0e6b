"""Training windows: which are drawn from the cached cases, with foreground balance.

How rotated and scaled windows are cut is in cutting.py; how intensities are changed and windows mirrored, in augmentation.py.

Everything random in step s of epoch e follows from (seed, e, s): a resumed run draws what an uninterrupted one draws, and
any step can be drawn without those before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from r2seg.data.augmentation import Windows, augment, flip_axes
from r2seg.data.cache import CachedCase
from r2seg.data.cutting import cut_boxes, draw_turns, interpolate, keep_some_straight, place_turned
from r2seg.data.geometry import PLANES, pad_to
from r2seg.data.images import IGNORE
from r2seg.data.intensity import Intensity, clip_each, scale_each
from r2seg.data.preprocessing import neighbouring

if TYPE_CHECKING:
    from r2seg.config import Augmentation, Sampling, Window


class WindowSampler:
    """Batches of windows and their labels.

    A case is drawn first, each with the same probability, so that short volumes count as much as long ones. The share
    ``sampling.foreground`` of the windows comes from cases that have labels: such a window holds a voxel of a label, drawn
    uniformly from the case's labels, at a uniformly drawn place in the window. The others lie anywhere in any case. If an image is
    smaller than the window, or a rotated window reaches beyond it, its edge is repeated, as in ``WindowInferer``, and the label
    there is ignored.

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
        """One batch: ``image`` (B, C, *window) float32 (2.5-D: C with the neighbouring slices), ``label`` (B, *window) int64 class indices, ``case`` ids."""
        return self._finish(self._draw(epoch, step), epoch, step)

    def _draw(self, epoch: int, step: int) -> dict[str, Any]:
        rng = np.random.default_rng([self.seed, epoch, step])
        size = self.window.batch_size
        # Counted over all windows so far: a batch of one or two keeps the share too.
        before = (epoch * self.steps_per_epoch + step) * size
        share = self.sampling.foreground
        num_foreground = round((before + size) * share) - round(before * share) if self.labelled else 0
        places = [self._place(rng, index < num_foreground) for index in range(size)]
        if self.augmentation.rotate_degrees or self.augmentation.scale:
            drawn = self._cut_turned(places, np.random.default_rng([self.seed, epoch, step, 3]))
        else:
            drawn = self._cut_straight(places)
        if self.device.type == "cuda":
            drawn = {name: tensor.pin_memory() for name, tensor in drawn.items()}
        return {**drawn, "cases": [place.case for place in places]}

    def _place(self, rng: np.random.Generator, foreground: bool) -> _Place:
        """A case, a voxel of it if one must be in the window, and the window's slices in the working grid; never beyond it."""
        cases = self.labelled if foreground else self.cases
        case = cases[rng.integers(len(cases))]
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
        return _Place(case, voxel, tuple(parts))

    def _axes(self, case: CachedCase) -> list[int]:
        """The case's spatial axes that the windows have."""
        dims = case.label.ndim
        plane = PLANES[self.window.plane_in_volumes] if len(self.window.size) < dims else None
        return [axis for axis in range(dims) if axis != plane]

    def _shown(self, case: CachedCase, parts: Sequence[slice]) -> np.ndarray:
        """Voxels of a part of a case, as a view where that is possible; of a slice of a volume also those of its neighbours.

        Shape: (C, *window's axes), with ``window.num_slices`` times the case's channels for slices of volumes.
        """
        voxels = np.asarray(case.voxels)
        if len(self.window.size) == case.label.ndim:
            return voxels[(slice(None), *parts)]
        axis = PLANES[self.window.plane_in_volumes]
        own = parts[axis].start
        if not self.window.neighbours:
            return voxels[(slice(None), *parts[:axis], own, *parts[axis + 1 :])]
        shown = neighbouring([own], self.window.neighbours, case.label.shape[axis])[:, 0]
        return np.concatenate([voxels[(slice(None), *parts[:axis], each, *parts[axis + 1 :])] for each in shown])

    def _intensities(self, cases: Sequence[CachedCase]) -> list[Intensity]:
        """The intensity map of each case's windows."""
        return [case.intensity.repeated(self.window.num_slices) for case in cases]

    def _cut_straight(self, places: Sequence[_Place]) -> dict[str, Tensor]:
        images, labels = [], []
        for place in places:
            case, parts = place.case, place.parts
            label = case.label[parts]
            if len(self.window.size) < case.label.ndim:
                label = label.take(0, axis=PLANES[self.window.plane_in_volumes])
            voxels = np.ascontiguousarray(self._shown(case, parts), dtype=np.float32)
            pixels = case.intensity.repeated(len(voxels) // len(case.voxels))(torch.from_numpy(voxels))
            images.append(pad_to(pixels, self.window.size))
            labels.append(pad_to(torch.from_numpy(np.ascontiguousarray(label)), self.window.size, IGNORE))
        return {"image": torch.stack(images), "label": torch.stack(labels)}

    def _cut_turned(self, places: Sequence[_Place], rng: np.random.Generator) -> dict[str, Tensor]:
        images, labels = [], []
        spacing_mm, voxels, corners = np.empty((3, len(places), len(self.window.size)))
        for index, place in enumerate(places):
            case = place.case
            axes = self._axes(case)
            # The slice of a volume; axes that the window has are kept whole.
            parts = tuple(slice(None) if axis in axes else part for axis, part in enumerate(place.parts))
            images.append(self._shown(case, parts))
            labels.append(np.asarray(case.label)[tuple(part if part == slice(None) else part.start for part in parts)])
            spacing_mm[index] = [case.spacing_mm[axis] for axis in axes]
            voxels[index] = np.nan if place.voxel is None else place.voxel[axes]
            corners[index] = [place.parts[axis].start for axis in axes]
        strength = self.augmentation
        turns = draw_turns(spacing_mm, strength.rotate_degrees, strength.scale, rng)
        extents, size = np.array([label.shape for label in labels]), self.window.size
        centres = place_turned(extents, size, turns, voxels, rng)
        # pad_to puts the smaller half of what is missing first.
        straight = corners - np.maximum(size - extents, 0) // 2 + (np.array(size) - 1) / 2
        turns, centres = keep_some_straight(extents, size, turns, centres, straight, rng)
        boxes = cut_boxes(images, labels, size, turns, centres)
        pixels = clip_each(self._intensities([place.case for place in places]), torch.from_numpy(boxes.image))
        return {"image": pixels, "label": torch.from_numpy(boxes.label), "theta": torch.from_numpy(boxes.theta)}

    def _finish(self, drawn: dict[str, Any], epoch: int, step: int) -> dict[str, Any]:
        cases = drawn["cases"]
        image, label, *theta = (
            drawn[name].to(self.device, non_blocking=True) for name in ("image", "label", "theta") if name in drawn
        )
        if theta:
            image, label = interpolate(image, label, theta[0], self.window.size)
            image = scale_each(self._intensities(cases), image)
        rng = np.random.default_rng([self.seed, epoch, step, 1])
        axes = flip_axes(self.window, pictures=cases[0].label.ndim == 2)
        windows = augment(Windows(image, label, axes), self.augmentation, rng)
        return {"image": windows.image, "label": windows.label.long(), "case": [case.id for case in cases]}


class _Place(NamedTuple):
    """Where a window was drawn: its case, the labelled voxel that it must hold, and its slices before any rotation."""

    case: CachedCase
    voxel: np.ndarray | None
    parts: tuple[slice, ...]
