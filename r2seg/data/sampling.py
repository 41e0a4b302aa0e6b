"""Training windows: drawn from cached cases with foreground balance, augmented in batches on the device.

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
import torch.nn.functional as F
from torch import Tensor

from r2seg.data.cache import CachedCase
from r2seg.data.images import IGNORE
from r2seg.data.preprocessing import PLANES, pad_to

if TYPE_CHECKING:
    from r2seg.config import Augmentation, Sampling, Window


class WindowSampler:
    """Batches of windows and their labels.

    A case is drawn first, each with the same chance, so that long volumes do not drown short ones. Of all windows the share
    ``sampling.foreground`` is of cases that have labels and holds a voxel of a label drawn evenly from those of the case, at a
    place in the window drawn evenly; the others lie anywhere in any case. Where an image is smaller than the window its edge is
    repeated, as in ``WindowInferer``, and the label there is ignored.

    Args:
        cases: Cached training cases.
        window: Size, plane and batch size.
        sampling: Windows per epoch, foreground share.
        augmentation: Strengths of the random changes.
        seed: Of everything drawn.
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
        """Batches of an epoch from a step on; the next one is read while the current one is used."""
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
        is_picture = drawn["cases"][0].label.ndim == 2
        image, label = augment(
            image, label, self.augmentation, rng, np.array(spacings), _flip_axes(self.window, is_picture)
        )
        return {"image": image, "label": label.long(), "case": [case.id for case in drawn["cases"]]}


def _flip_axes(window: Window, is_picture: bool) -> dict[str, int]:
    """Spatial axis of a window that each anatomical direction runs along."""
    if is_picture:
        return {"up-down": 0, "left-right": 1}
    names = ["left-right", "front-back", "up-down"]
    if len(window.size) == 2:
        del names[PLANES[window.plane_in_volumes]]
    return {name: axis for axis, name in enumerate(names)}


def augment(
    image: Tensor,
    label: Tensor,
    strength: Augmentation,
    rng: np.random.Generator,
    spacing_mm: np.ndarray,
    flip_axes: dict[str, int],
) -> tuple[Tensor, Tensor]:
    """Random mirroring, rotation, scale, brightness, contrast and noise of a batch, each window its own.

    Rotation and scale act in millimetres, so that anisotropic windows are not sheared. Beyond the window the image repeats
    its edge and the label is ignored. Strengths of intensity are in units of the preprocessed intensities.

    Args:
        image: (B, C, *S) float32.
        label: (B, *S) uint8 class indices.
        strength: The config's augmentation section.
        rng: Source of every number; noise is drawn on the image's device with a seed from it.
        spacing_mm: Voxel size (B, len(S)).
        flip_axes: Spatial axis of each direction that the windows have.

    Shape: image (B, C, *S) and label (B, *S) keep theirs.
    """
    batch, dims = len(image), image.ndim - 2
    device = image.device
    for direction in strength.flip:
        if direction in flip_axes:
            axis = flip_axes[direction]
            chosen = torch.from_numpy(rng.random(batch) < 0.5).to(device)
            image = torch.where(chosen.view(-1, *[1] * (dims + 1)), image.flip(2 + axis), image)
            label = torch.where(chosen.view(-1, *[1] * dims), label.flip(1 + axis), label)
    if strength.rotate_degrees or strength.scale:
        image, label = _rotate_and_scale(image, label, strength, rng, spacing_mm)
    if strength.contrast or strength.brightness:
        shape = (batch, image.shape[1], *[1] * dims)
        gain = torch.from_numpy(rng.uniform(1 - strength.contrast, 1 + strength.contrast, shape).astype(np.float32))
        offset = torch.from_numpy(rng.uniform(-strength.brightness, strength.brightness, shape).astype(np.float32))
        centre = image.mean(dim=tuple(range(2, image.ndim)), keepdim=True)
        image = (image - centre) * gain.to(device) + centre + offset.to(device)
    if strength.noise:
        generator = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
        level = torch.from_numpy(rng.uniform(0, strength.noise, (batch, *[1] * (dims + 1))).astype(np.float32)).to(
            device
        )
        image = image + level * torch.randn(image.shape, generator=generator, device=device)
    return image, label


def _rotate_and_scale(
    image: Tensor, label: Tensor, strength: Augmentation, rng: np.random.Generator, spacing_mm: np.ndarray
) -> tuple[Tensor, Tensor]:
    batch, dims = len(image), image.ndim - 2
    size = np.array(image.shape[2:], dtype=np.float64)
    theta = np.zeros((batch, dims, dims + 1))
    limit = math.radians(strength.rotate_degrees)
    for index in range(batch):
        matrix = np.eye(dims) / rng.uniform(1 - strength.scale, 1 + strength.scale)
        for first, second in ((0, 1),) if dims == 2 else ((0, 1), (0, 2), (1, 2)):
            angle = rng.uniform(-limit, limit)
            turn = np.eye(dims)
            turn[[first, second], [first, second]] = math.cos(angle)
            turn[first, second], turn[second, first] = -math.sin(angle), math.sin(angle)
            matrix = turn @ matrix
        # Millimetres -> voxels -> grid_sample's [-1, 1] over the window, whose axes count from the last.
        to_unit = 2 / (spacing_mm[index] * size)
        matrix = to_unit[:, None] * matrix / to_unit[None, :]
        theta[index, :, :dims] = matrix[::-1, ::-1]
    grid = F.affine_grid(
        torch.from_numpy(theta.astype(np.float32)).to(image.device), list(image.shape), align_corners=False
    )
    image = F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)
    shifted = label[:, None].float() - IGNORE  # so that what lies outside, sampled as 0, becomes IGNORE
    label = (F.grid_sample(shifted, grid, mode="nearest", padding_mode="zeros", align_corners=False) + IGNORE)[:, 0]
    return image, label.round().to(torch.uint8)
