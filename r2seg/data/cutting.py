"""Rotated and scaled training windows, cut straight from their images: where they lie, the boxes that hold them, the interpolation.

A window is not cut first and turned then, because its corners would be invented: the box of the image that the turned window
needs is read, and the window is interpolated from it. Which cases and voxels are drawn is in sampling.py; changes of intensities
and mirroring are in augmentation.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from r2seg.data.images import IGNORE


@dataclass(frozen=True, eq=False)
class Turns:
    """A rotation and a scale for each of B windows with D axes.

    Attributes:
        steps: (B, D, D); one voxel along the window's axis b is ``steps[:, :, b]`` voxels of the image.
        scale: (B,); above 1 things look larger.
    """

    steps: np.ndarray
    scale: np.ndarray


def draw_turns(spacing_mm: np.ndarray, degrees: float, scale: float, rng: np.random.Generator) -> Turns:
    """Rotations by up to ``degrees`` about each axis, and scales of 1 - ``scale`` to 1 + ``scale``, both uniform.

    Both act in millimetres, so that anisotropic images are not sheared.

    Args:
        spacing_mm: Voxel size (B, D) along the windows' axes.
        degrees: Largest angle.
        scale: Largest relative change of size.
        rng: Source of the numbers.
    """
    batch, dims = spacing_mm.shape
    factors = rng.uniform(1 - scale, 1 + scale, size=(batch,))
    planes = ((0, 1),) if dims == 2 else ((0, 1), (0, 2), (1, 2))
    angles = np.radians(rng.uniform(-degrees, degrees, (len(planes), batch)))
    matrix = np.eye(dims) / factors[:, None, None]
    for (first, second), angle in zip(planes, angles, strict=True):
        turn = np.tile(np.eye(dims), (batch, 1, 1))
        turn[:, first, first] = turn[:, second, second] = np.cos(angle)
        turn[:, second, first] = np.sin(angle)
        turn[:, first, second] = -turn[:, second, first]
        matrix = turn @ matrix
    return Turns(matrix * spacing_mm[:, None, :] / spacing_mm[:, :, None], factors)


def place_turned(
    extents: np.ndarray, size: Sequence[int], turns: Turns, voxels: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Centres (B, D) of turned windows, in voxels of their images.

    Before its rotation the scaled window lies inside the image, uniformly; where the image is smaller, it is centred as
    ``pad_to`` centres it. A window that must hold a voxel is drawn around it, with the voxel uniformly anywhere in the window,
    and moved towards the inside of the image as far as the voxel stays in it.

    Args:
        extents: Size (B, D) of the images along the windows' axes.
        size: Size of the windows.
        turns: Of the windows.
        voxels: Voxel (B, D) that a window must hold; NaN if there is none.
        rng: Source of the numbers.
    """
    window = np.array(size)
    half = (window - 1) / 2
    reach = half / turns.scale[:, None]
    missing = np.maximum(window - extents, 0)
    middle = np.where(missing > 0, half - missing // 2, (extents - 1) / 2)
    small = 2 * reach > extents - 1
    low, high = np.where(small, middle, reach), np.where(small, middle, extents - 1 - reach)
    centres = rng.uniform(low, high)
    offsets = rng.integers(0, window, centres.shape) - half
    holds = ~np.isnan(voxels).any(axis=1)
    if holds.any():
        low, high, voxels, offsets, steps = (numbers[holds] for numbers in (low, high, voxels, offsets, turns.steps))
        inside = np.clip(voxels - _times(steps, offsets), low, high)
        offsets = np.clip(np.rint(_times(np.linalg.inv(steps), voxels - inside) + half), 0, window - 1) - half
        centres[holds] = voxels - _times(steps, offsets)
    return centres


def keep_some_straight(
    extents: np.ndarray,
    size: Sequence[int],
    turns: Turns,
    centres: np.ndarray,
    straight: np.ndarray,
    rng: np.random.Generator,
) -> tuple[Turns, np.ndarray]:
    """Turns and centres, with every second window that reaches beyond its image left as it is without rotation and scale.

    A window as large as its image always reaches beyond it when it is turned, and its border is then hardly ever trained on.
    Inference sees such images straight, their border on the window's border: without straight windows in training, networks
    paint false positives there.

    Args:
        extents: Size (B, D) of the images along the windows' axes.
        size: Size of the windows.
        turns: Of the windows.
        centres: Centres (B, D) of the turned windows.
        straight: Centres (B, D) of the windows without rotation and scale.
        rng: Source of the numbers.
    """
    reach = _reach(turns.steps, size)
    beyond = ((centres - reach < -0.5) | (centres + reach > extents - 0.5)).any(axis=1)
    chosen = beyond & (rng.random(len(centres)) < 0.5)
    steps = np.where(chosen[:, None, None], np.eye(len(size)), turns.steps)
    return Turns(steps, np.where(chosen, 1.0, turns.scale)), np.where(chosen[:, None], straight, centres)


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of B images, and the affine maps of the windows in them.

    Attributes:
        image: (B, C, *box) float32.
        label: (B, *box) uint8 class indices.
        theta: (B, D, D + 1) as ``torch.nn.functional.affine_grid`` takes them, from the window to its box.
    """

    image: np.ndarray
    label: np.ndarray
    theta: np.ndarray


def cut_boxes(
    images: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    size: Sequence[int],
    turns: Turns,
    centres: np.ndarray,
) -> Boxes:
    """The part of each image that its window needs, read from memory-mapped arrays, all of one size.

    Args:
        images: (C, *S) each.
        labels: Class indices (*S) each.
        size: Size of the windows.
        turns: Of the windows.
        centres: Of the windows, in voxels.
    """
    extents = np.array([label.shape for label in labels])
    window = np.array(size)
    reach = _reach(turns.steps, size)
    # Interpolation reads one voxel further. Beyond the image nothing is read.
    start = np.clip(np.floor(centres - reach).astype(int), 0, extents - 1)
    stop = np.clip(np.floor(centres + reach).astype(int) + 2, 1, extents)
    box = (stop - start).max(axis=0)
    start = np.maximum(np.minimum(start, extents - box), 0)
    image = np.empty((len(images), len(images[0]), *box), dtype=np.float32)
    label_boxes = np.full((len(images), *box), IGNORE, dtype=np.uint8)
    for index, (whole, label, first) in enumerate(zip(images, labels, start, strict=True)):
        parts = tuple(slice(a, a + length) for a, length in zip(first, box, strict=True))
        piece = whole[(slice(None), *parts)]
        held = tuple(slice(length) for length in piece.shape[1:])
        image[index][(slice(None), *held)] = piece
        label_boxes[index][held] = label[parts]
        for axis, had in enumerate(piece.shape[1:]):
            if had < box[axis]:  # a smaller image than others of the batch: its edge is repeated
                along = np.moveaxis(image[index], 1 + axis, 0)
                along[had:] = along[had - 1]
    theta = np.empty((len(images), len(size), len(size) + 1))
    # grid_sample's [-1, 1] goes from edge to edge, and its axes count from the last.
    theta[:, ::-1, -2::-1] = turns.steps * window / box[:, None]
    theta[:, ::-1, -1] = (2 * (centres - start) + 1) / box - 1
    return Boxes(image, label_boxes, theta.astype(np.float32))


def interpolate(image: Tensor, label: Tensor, theta: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Windows from their boxes: linear interpolation of images, the nearest voxel of labels.

    Beyond the image its edge is repeated, as ``WindowInferer`` does, and the label is ``IGNORE``.

    Shape: image (B, C, *box), label (B, *box) uint8, theta (B, D, D + 1) -> (B, C, *size), (B, *size) uint8.
    """
    grid = _affine_grid(theta, size)
    pixels = F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)
    shifted = label[:, None].float().sub_(IGNORE)  # so that what lies outside, sampled as 0, becomes IGNORE
    indices = F.grid_sample(shifted, grid, mode="nearest", padding_mode="zeros", align_corners=False)[:, 0]
    return pixels, indices.add_(IGNORE).to(torch.uint8)


def _affine_grid(theta: Tensor, size: Sequence[int]) -> Tensor:
    """``torch.nn.functional.affine_grid`` with align_corners=False, axis by axis: several times as fast on a CPU."""
    dims = len(size)
    grid = theta[:, :, -1].view(-1, *[1] * dims, dims)
    for axis, length in enumerate(size):
        places = (torch.arange(length, device=theta.device, dtype=theta.dtype) * 2 + 1) / length - 1
        along = places[:, None] * theta[:, None, :, dims - 1 - axis]  # (B, length, D)
        grid = grid + along.view(-1, *(length if other == axis else 1 for other in range(dims)), dims)
    return grid


def _reach(steps: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Half the extent (B, D) of turned windows along the axes of their images, from the centre of a voxel to that of another."""
    return (np.abs(steps) * ((np.array(size) - 1) / 2)).sum(axis=2)


def _times(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Products (B, D) of matrices (B, D, D) and vectors (B, D)."""
    return (matrices @ vectors[:, :, None])[:, :, 0]
