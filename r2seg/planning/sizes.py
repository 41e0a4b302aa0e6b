"""Sizes of a plan: the working voxel size, 2-D or 3-D, the window, and the depth and widths of the network.

The rules are those of nnU-Net's fingerprint and plan (Isensee et al., Nature Methods 2021, doi:10.1038/s41592-020-01008-z, section
"rule-based parameters"), with smaller networks and windows on CPUs, as measured for the configs of this project.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from r2seg.errors import UserError
from r2seg.planning.facts import Machine, Summary, Wishes

PLANES = ("sagittal", "coronal", "axial")
# nnU-Net: voxels more than three times as long as wide are anisotropic.
ANISOTROPIC = 3.0
# Fewer slices than this leave a 3-D network nothing to learn along that axis.
_LEAST_SLICES = 16
# On a CPU, planes of the working grid larger than this are coarsened: four times the pixels take four times as long.
_LARGEST_CPU_PLANE = 320
# The coarsest map of the network keeps at least so many pixels along each axis.
_LEAST_MAP = {2: 8, 3: 4}
_MOST_LEVELS = {("cpu", 2): 5, ("cpu", 3): 4, ("gpu", 2): 6, ("gpu", 3): 5}
_BASE_WIDTH = {("cpu", 2): 16, ("cpu", 3): 8, ("gpu", 2): 32, ("gpu", 3): 32}
_LARGEST_WIDTH = {("cpu", 2): 256, ("cpu", 3): 128, ("gpu", 2): 512, ("gpu", 3): 320}
# Largest window, in pixels or voxels. CPU: 160x160 slices of chest CT at 2 mm gave Dice .984 in 3.5 minutes on two cores.
_LARGEST_WINDOW = {("cpu", 2): 160 * 160, ("cpu", 3): 64**3, ("gpu", 2): 512 * 512, ("gpu", 3): 128**3}
# Skin lesions, ISIC 2018, 105 pictures: Jaccard .840 at 128x96 after some four minutes on two cores; a step at twice the size takes
# four times as long.
_SMALL_PICTURE, _SHORT_BUDGET = 128, 1800.0
_LARGEST_PICTURE = {"cpu": 256 * 256, "gpu": 512 * 512}
# Vessels are thin and look alike everywhere: many small windows.
_FUNDUS_WINDOW = {"cpu": 64, "gpu": 256}
# Bytes of activations per window voxel and unit of base width in training: R2U-Net with 2 steps, both directions, all levels.
BYTES_PER_VOXEL_AND_WIDTH = 300
_SHARE_OF_MEMORY = 0.5
_BATCHES = {2: (2, 8), 3: (2, 4)}
# Of small windows a batch takes more.
_FUNDUS_BATCH = {"cpu": 16, "gpu": 8}


@dataclass(frozen=True)
class Sizes:
    """Sizes of a plan, each with its reason.

    Attributes:
        dims: 2 or 3.
        dims_reason: Why.
        spacing_mm: Working voxel size, or None to keep the files' own.
        spacing_reason: Why.
        plane: Plane of 2-D windows in volumes, else None.
        plane_reason: Why.
        resize: Longest side that pictures are resized to, or None.
        resize_reason: Why.
        shape: Typical size of the working grid, or of the pictures.
        window: Window.
        window_reason: Why.
        channels: Widths of the network's levels.
        strides: One list per level, or None where every axis is halved each time.
        network_reason: Why.
        batch_size: Windows per step.
        batch_reason: Why.
    """

    dims: int
    dims_reason: str
    spacing_mm: tuple[float, ...] | None
    spacing_reason: str
    plane: str | None
    plane_reason: str
    resize: int | None
    resize_reason: str
    shape: tuple[int, ...]
    window: tuple[int, ...]
    window_reason: str
    channels: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...] | None
    network_reason: str
    batch_size: int
    batch_reason: str


def plan_sizes(data: Summary, machine: Machine, wishes: Wishes) -> Sizes:
    """The sizes for a data set on a machine.

    Raises:
        UserError: 3-D is asked for and the images are pictures.
    """
    spacing, spacing_reason = _spacing(data, machine)
    shape = _working_shape(data, spacing)
    dims, dims_reason = _dims(data, machine, wishes, spacing, shape)
    plane, plane_reason = _plane(data, dims, spacing)
    resize, resize_reason = _resize(data, machine, wishes)
    if resize is not None:
        factor = resize / max(shape)
        shape = tuple(max(1, round(size * factor)) for size in shape)
    in_plane = [axis for axis in range(len(shape)) if plane is None or axis != PLANES.index(plane)]
    seen = tuple(shape[axis] for axis in in_plane)
    relative = np.ones(dims) if spacing is None or data.image_dims == 2 else np.array(spacing)[in_plane]
    where = "gpu" if machine.is_fast else "cpu"
    wanted, window_reason = _wanted_window(data, seen, dims, relative, where, machine)
    strides = _strides(wanted, relative, _MOST_LEVELS[where, dims] - 1, dims)
    total = np.prod(strides, axis=0, dtype=int) if strides else np.ones(dims, int)
    window = tuple(int(max(1, math.ceil(size / step)) * step) for size, step in zip(wanted, total, strict=True))
    base, largest = _BASE_WIDTH[where, dims], _LARGEST_WIDTH[where, dims]
    channels = tuple(min(largest, base * 2**level) for level in range(len(strides) + 1))
    by = "x".join(map(str, total))
    network_reason = (
        f"{len(channels)} levels: the window is divided by {by} down to {'x'.join(str(w // t) for w, t in zip(window, total, strict=True))}; "
        f"from {base} channels, {'for a CPU' if where == 'cpu' else 'for a GPU'}"
    )
    batch_size, batch_reason = _batch(window, base, dims, machine, data.kind.name)
    return Sizes(
        dims=dims,
        dims_reason=dims_reason,
        spacing_mm=spacing,
        spacing_reason=spacing_reason,
        plane=plane,
        plane_reason=plane_reason,
        resize=resize,
        resize_reason=resize_reason,
        shape=shape,
        window=window,
        window_reason=window_reason,
        channels=channels,
        strides=None if all(set(step) == {2} for step in strides) else tuple(strides),
        network_reason=network_reason,
        batch_size=batch_size,
        batch_reason=batch_reason,
    )


def _spacing(data: Summary, machine: Machine) -> tuple[tuple[float, ...] | None, str]:
    if data.spacings_mm is None:
        return None, "the files do not state their voxel size" if data.image_dims == 3 else ""
    median = np.median(data.spacings_mm, axis=0)
    least, most = data.spacings_mm.min(axis=0), data.spacings_mm.max(axis=0)
    same = (most / least < 1.001).all()
    text = "the voxel size of all files" if same else f"the median; the files have {_mm(least)} to {_mm(most)}"
    coarse = int(median.argmax())
    if median[coarse] > ANISOTROPIC * np.delete(median, coarse).max() and not same:
        # nnU-Net: thin slices keep their detail, thick ones are interpolated.
        finer = float(np.percentile(data.spacings_mm[:, coarse], 10))
        finer = max(finer, float(np.delete(median, coarse).max()))
        if finer < 0.999 * median[coarse]:
            median[coarse] = finer
            text += "; along the coarse axis the 10th percentile"
    shape = _working_shape(data, tuple(median))
    fine = [axis for axis in range(3) if median[axis] < 1.5 * median.min()]
    extent = max(shape[axis] for axis in fine)
    if not machine.is_fast and extent > _LARGEST_CPU_PLANE:
        factor = extent / (_LARGEST_CPU_PLANE * 0.8)
        own = _mm(median)
        median[fine] *= factor
        text += f"; coarsened from {own} because {extent} pixels across take {factor**2:.1f} times as long on a CPU"
    return tuple(float(f"{size:.3g}") for size in median), text


def _mm(spacing: np.ndarray) -> str:
    return "x".join(f"{size:.3g}" for size in spacing) + " mm"


def _working_shape(data: Summary, spacing: tuple[float, ...] | None) -> tuple[int, ...]:
    """The median size, on the working grid."""
    shapes = data.shapes.astype(float)
    if spacing is not None and data.spacings_mm is not None:
        shapes = shapes * data.spacings_mm / np.array(spacing)
    return tuple(int(max(1, round(size))) for size in np.median(shapes, axis=0))


def _dims(
    data: Summary, machine: Machine, wishes: Wishes, spacing: tuple[float, ...] | None, shape: tuple[int, ...]
) -> tuple[int, str]:
    if data.image_dims == 2:
        if wishes.dims == 3:
            raise UserError("--plan 3d: the images are pictures, which have two axes: leave it out")
        return 2, ""
    if wishes.dims is not None:
        return wishes.dims, f"--plan {wishes.dims}d"
    if not machine.is_fast:
        return 2, "2-D slices: a 3-D network takes many times as long on a CPU (--plan 3d for one)"
    if spacing is not None and max(spacing) > ANISOTROPIC * min(spacing):
        return (
            2,
            f"2-D slices: the voxels are {max(spacing) / min(spacing):.1f} times as long as wide, more than {ANISOTROPIC:g}",
        )
    if min(shape) < _LEAST_SLICES:
        return 2, f"2-D slices: the volumes have only {min(shape)} of them (--plan 3d for a 3-D network)"
    return 3, "3-D: nearly cubic voxels, and a GPU (--plan 2d for slices)"


def _plane(data: Summary, dims: int, spacing: tuple[float, ...] | None) -> tuple[str | None, str]:
    if data.image_dims == 2 or dims == 3:
        return None, ""
    if spacing is not None:
        coarse = int(np.argmax(spacing))
        if spacing[coarse] > 1.2 * min(spacing):
            return PLANES[coarse], f"the plane of the finest pixels; its slices are {spacing[coarse]:g} mm apart"
        return "axial", "the voxels are nearly cubic; slices as they are usually read"
    coarse = int(np.argmin(np.median(data.shapes, axis=0)))
    return PLANES[coarse], "across the axis with the fewest slices, as the files do not state their voxel size"


def _resize(data: Summary, machine: Machine, wishes: Wishes) -> tuple[int | None, str]:
    if data.image_dims == 3:
        return None, ""
    longest = int(np.median(data.shapes.max(axis=1)))
    if data.kind.name == "fundus":
        most = 2048 if machine.is_fast else 1024
        why = "thin vessels need the pixels"
    else:
        most = 512 if machine.is_fast else _SMALL_PICTURE if wishes.budget_seconds <= _SHORT_BUDGET else 256
        why = "a lesion or organ is seen as well at this size, and predictions are brought back to the pictures' own"
    if longest <= 1.25 * most:
        return None, ""
    return most, f"the pictures are typically {longest} pixels long; {why}"


def _wanted_window(
    data: Summary, seen: tuple[int, ...], dims: int, relative: np.ndarray, where: str, machine: Machine
) -> tuple[tuple[int, ...], str]:
    """The window before it is made divisible."""
    grid = "x".join(map(str, seen))
    if data.kind.name == "fundus":
        size = min(_FUNDUS_WINDOW[where], *seen)
        return (size,) * 2, f"part of a picture of {grid}: vessels look alike everywhere, so many small windows"
    if data.image_dims == 2:
        if math.prod(seen) <= _LARGEST_PICTURE[where]:
            return seen, f"whole pictures: they are typically {grid}"
        largest = _LARGEST_PICTURE[where]
    else:
        largest = _LARGEST_WINDOW[where, dims]
    width = _BASE_WIDTH[where, dims]
    fits = int(machine.memory * _SHARE_OF_MEMORY / (BYTES_PER_VOXEL_AND_WIDTH * width * _BATCHES[dims][0]))
    most = max(16**dims, min(largest, fits))
    # A cube of tissue, as far as the grid allows: coarse axes get fewer voxels.
    window = np.array(seen, float)
    if window.prod() > most:
        side = _side(np.array(seen, float), relative, most)
        window = np.minimum(window, side / relative)
    limit = "the memory at hand" if fits < largest else f"{'a GPU' if where == 'gpu' else 'a CPU'} in a reasonable time"
    whole = bool((window >= np.array(seen)).all())
    text = (
        f"whole slices of {grid}" if whole and dims == 2 else f"of a grid of typically {grid}; as much as suits {limit}"
    )
    return tuple(int(max(1, round(size))) for size in window), text


def _side(seen: np.ndarray, relative: np.ndarray, most: int) -> float:
    """Side in working units of the largest cube whose part inside the grid has at most so many voxels."""
    low, high = 0.0, float((seen * relative).max())
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(seen, middle / relative).prod() <= most else (low, middle)
    return low


def _strides(window: tuple[int, ...], relative: np.ndarray, most: int, dims: int) -> list[tuple[int, ...]]:
    """Pooling per level: an axis is halved while its voxels are not coarser than twice the finest, and its map stays large enough."""
    size, spacing = np.array(window, float), relative.astype(float).copy()
    strides: list[tuple[int, ...]] = []
    while len(strides) < most:
        roomy = size / 2 >= _LEAST_MAP[dims]
        if not roomy.any():
            break
        near = spacing <= 2 * spacing[roomy].min()
        step = np.where(roomy & near, 2, 1)
        strides.append(tuple(int(number) for number in step))
        size, spacing = size / step, spacing * step
    return strides


def _batch(window: tuple[int, ...], base: int, dims: int, machine: Machine, kind: str) -> tuple[int, str]:
    least, most = _BATCHES[dims]
    if kind == "fundus":
        most = _FUNDUS_BATCH["gpu" if machine.is_fast else "cpu"]
    each = math.prod(window) * base * BYTES_PER_VOXEL_AND_WIDTH
    fits = int(machine.memory * _SHARE_OF_MEMORY / each)
    size = max(least, min(most, fits))
    if size < most:
        return (
            size,
            f"as many as fit half of the {machine.memory / 2**30:.0f} GiB that are free, at about {each / 2**30:.1f} GiB each",
        )
    return (
        size,
        f"about {size * each / 2**30:.1f} GiB in training, of the {machine.memory / 2**30:.0f} GiB that are free",
    )
