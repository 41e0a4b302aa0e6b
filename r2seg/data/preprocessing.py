"""The deterministic chain from a file's voxels to what a network sees, and back.

Two steps. ``WorkingGrid`` is geometry: a volume's axes are ordered R, A, S and, where a spacing is set, resampled; pictures keep
their grid. ``Intensity`` is statistics of the whole case, then a pure function of any part of it. Both work slab by slab,
so that no float copy of a large volume is ever held. The same two serve training, validation and inference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from r2seg.data.images import IGNORE, Image

if TYPE_CHECKING:
    from r2seg.config import Preprocessing

# Spatial axis that each plane slices: a volume's axes are ordered R, A, S.
PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}

# Relative change of a voxel size below which two spacings are one: below any scanner's own precision.
_SAME_SPACING = 1e-3


@dataclass(frozen=True)
class WorkingGrid:
    """The way from a file's grid to the working grid and back.

    Attributes:
        order: File axis that becomes each working axis; (0, 1) for pictures.
        flips: Working axes that run against the file's.
        oriented_shape: Shape after ordering and flipping, before resampling.
        shape: Shape of the working grid.
    """

    order: tuple[int, ...]
    flips: tuple[bool, ...]
    oriented_shape: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def of(
        cls, shape: Sequence[int], affine: np.ndarray | None, spacing_mm: Sequence[float] | None = None
    ) -> WorkingGrid:
        """The grid of an image with this shape and affine.

        A volume's axes are matched to right, anterior and superior by the affine's largest shares (nibabel's
        ``io_orientation``), for oblique and sheared affines too. Where a spacing is set, the number of voxels is rounded and
        the extent kept, so the working voxel can differ from ``spacing_mm`` by less than half a voxel over the whole axis.
        """
        if len(shape) == 2:
            return cls((0, 1), (False, False), tuple(shape), tuple(shape))
        from nibabel.orientations import io_orientation

        if affine is None:
            order, flips = (0, 1, 2), (False, False, False)
            oriented = tuple(shape)
            return cls(order, flips, oriented, oriented)
        orientation = io_orientation(affine)
        order = tuple(int(axis) for axis in np.argsort(orientation[:, 0]))
        flips = tuple(bool(orientation[axis, 1] < 0) for axis in order)
        oriented = tuple(int(shape[axis]) for axis in order)
        working = oriented
        if spacing_mm is not None:
            own = np.linalg.norm(affine[:3, :3], axis=0)
            working = tuple(
                size if abs(own[axis] / wanted - 1) < _SAME_SPACING else max(1, round(size * own[axis] / wanted))
                for size, axis, wanted in zip(oriented, order, spacing_mm, strict=True)
            )
        return cls(order, flips, oriented, working)

    @property
    def resampled(self) -> bool:
        """Whether the working grid has other voxels than the file."""
        return self.shape != self.oriented_shape

    def orient(self, array: np.ndarray) -> np.ndarray:
        """A view of an array (..., *file axes) with its last axes in working order."""
        lead = array.ndim - len(self.order)
        view = array.transpose(*range(lead), *(lead + axis for axis in self.order))
        return view[(..., *(slice(None, None, -1) if flip else slice(None) for flip in self.flips))]

    def restore_orientation(self, array: np.ndarray) -> np.ndarray:
        """The inverse of ``orient``, a view again."""
        lead = array.ndim - len(self.order)
        view = array[(..., *(slice(None, None, -1) if flip else slice(None) for flip in self.flips))]
        return view.transpose(*range(lead), *(lead + int(axis) for axis in np.argsort(self.order)))

    @cached_property
    def forward_weights(self) -> tuple[np.ndarray | None, ...]:
        """One matrix an axis from oriented to working samples; None where the axis keeps its samples."""
        return tuple(_linear_weights(old, new) for old, new in zip(self.oriented_shape, self.shape, strict=True))

    @cached_property
    def backward_weights(self) -> tuple[np.ndarray | None, ...]:
        """One matrix an axis from working to oriented samples; None where the axis keeps its samples."""
        return tuple(_linear_weights(new, old) for old, new in zip(self.oriented_shape, self.shape, strict=True))


def _linear_weights(old: int, new: int) -> np.ndarray | None:
    """Weights (new, old) of linear interpolation over one extent cut into ``old`` and ``new`` equal voxels.

    Voxel centres lie at (i + 1/2) / n. When there are fewer new voxels, the triangle widens to the new voxel, which averages
    instead of picking (antialiasing). Of a triangle that reaches beyond the extent the part inside counts. Rows sum to 1. This is
    ``torch.nn.functional.interpolate`` with align_corners=False, and antialias=True where voxels get fewer.
    """
    if old == new:
        return None
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    reach = max(1.0, old / new)
    first = np.floor(centres - reach).astype(int)
    weights = np.zeros((new, old))
    for offset in range(int(np.ceil(2 * reach)) + 2):
        index = first + offset
        share = np.where((index >= 0) & (index < old), np.clip(1 - np.abs(index - centres) / reach, 0, None), 0)
        weights[np.arange(new), np.clip(index, 0, old - 1)] += share
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _weigh(array: np.ndarray, weights: np.ndarray | None, axis: int) -> np.ndarray:
    """``weights @ array`` along one axis, of weights whose rows are zero but for a few neighbours.

    Neighbour after neighbour instead of a product of matrices, whose sums depend on how the library cuts them: so a part of an
    image has the very values that the whole has, and training sees what inference sees.
    """
    if weights is None:
        return array
    if not weights.size:
        return array.take(np.zeros(len(weights), dtype=int), axis=axis)
    used = weights > 0
    first, rows = used.argmax(1), np.arange(len(weights))
    result = None
    for offset in range(int(used.sum(1).max())):
        index = np.minimum(first + offset, weights.shape[1] - 1)
        share = np.where(first + offset < weights.shape[1], weights[rows, index], np.float32(0))
        part = array.take(index, axis=axis)
        part *= share.reshape([-1 if each == axis else 1 for each in range(array.ndim)])
        result = part if result is None else np.add(result, part, out=result)
    return result


def resample_part(oriented: np.ndarray, grid: WorkingGrid, bounds: Sequence[tuple[int, int]]) -> np.ndarray:
    """The box of working samples [start, stop) of each spatial axis, of an oriented array (C, *S).

    Returns the array's own dtype where nothing is resampled (a view), else float32.
    """
    lead = oriented.ndim - len(grid.shape)
    weights: list[np.ndarray | None] = []
    parts = [slice(None)] * lead
    for matrix, (start, stop) in zip(grid.forward_weights, bounds, strict=True):
        if matrix is None:
            parts.append(slice(start, stop))
        else:
            matrix = matrix[start:stop]
            used = np.flatnonzero(matrix.any(0))
            needed = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 0)
            parts.append(needed)
            matrix = matrix[:, needed]
        weights.append(matrix)
    box = oriented[tuple(parts)]
    if not grid.resampled:
        return box
    box = box.astype(np.float32)
    # The axes that shrink most go first: less work for the rest.
    for axis in sorted(range(len(weights)), key=lambda each: grid.shape[each] / grid.oriented_shape[each]):
        box = _weigh(box, weights[axis], lead + axis)
    return box


def resample_slab(oriented: np.ndarray, grid: WorkingGrid, axis: int, start: int, stop: int) -> np.ndarray:
    """``resample_part`` of a slab: working samples [start, stop) along one spatial axis, all along the others."""
    bounds = [(0, size) for size in grid.shape]
    bounds[axis] = (start, stop)
    return resample_part(oriented, grid, bounds)


def resample_indices(oriented: np.ndarray, grid: WorkingGrid) -> np.ndarray:
    """A class-index map (*S) on the working grid: each voxel takes the class with the largest interpolated share."""
    if not grid.resampled:
        return oriented
    best = np.full(grid.shape, -1.0, dtype=np.float32)
    result = np.zeros(grid.shape, dtype=np.uint8)
    for index in np.unique(oriented):
        share = resample_slab((oriented == index)[None], grid, 0, 0, grid.shape[0])[0]
        better = share > best
        result[better] = index
        best[better] = share[better]
    return result


def unresample(slabs: Iterable[tuple[slice, Tensor]], grid: WorkingGrid, axis: int) -> Iterator[tuple[slice, Tensor]]:
    """Slabs (K, ...) of a map on the working grid, in order along ``axis``, brought to the oriented grid slab by slab.

    Linear interpolation in each axis, in float32. No more working slices are held than the next oriented slice needs.
    """
    if not grid.resampled:
        yield from slabs
        return
    along = grid.backward_weights[axis]
    across = [
        (other, weights) for other, weights in enumerate(grid.backward_weights) if other != axis and weights is not None
    ]
    last_needed = None if along is None else along.shape[1] - 1 - np.argmax((along > 0)[:, ::-1], axis=1)
    held: Tensor | None = None
    held_from = done = 0
    for part, slab in slabs:
        slab = slab.float()
        for other, weights in across:
            slab = _weigh_tensor(slab, weights, 1 + other)
        if along is None:
            yield part, slab
            continue
        held = slab if held is None else torch.cat([held, slab], dim=1 + axis)
        ready = int(np.searchsorted(last_needed, part.stop, side="left"))
        if ready > done:
            rows = along[done:ready, held_from : held_from + held.shape[1 + axis]]
            yield slice(done, ready), _weigh_tensor(held, rows, 1 + axis)
            done = ready
        if done < along.shape[0]:
            drop = int(np.argmax(along[done] > 0)) - held_from
            if drop > 0:
                held = held.narrow(1 + axis, drop, held.shape[1 + axis] - drop)
                held_from += drop


def _weigh_tensor(tensor: Tensor, weights: np.ndarray, axis: int) -> Tensor:
    matrix = torch.from_numpy(np.ascontiguousarray(weights)).to(tensor.device)
    # Inference runs under autocast, which would do this product, too, in 8 bits of mantissa.
    with torch.autocast(tensor.device.type, enabled=False):
        return torch.movedim(torch.tensordot(matrix, tensor, dims=([1], [axis])), 0, axis)


def pad_to(tensor: Tensor, size: Sequence[int], value: float | None = None) -> Tensor:
    """The tensor with its last ``len(size)`` axes padded to at least ``size``: the one rule for images smaller than a window.

    Half of what is missing goes before, the (larger) rest behind. Training's windows and inference's are padded by it, so that
    the network meets the same borders in both.

    Args:
        tensor: Any dtype, so labels can follow their image.
        size: Least size of each of the last axes.
        value: What to pad with; the edge is repeated where it is left out.

    Shape: (..., *S) -> (..., *max(S, size)).
    """
    for axis, target in enumerate(size, start=-len(size)):
        length = tensor.shape[axis]
        if length < target:
            before = (target - length) // 2
            index = torch.arange(-before, target - before, device=tensor.device)
            outside = (index < 0) | (index >= length)
            tensor = tensor.index_select(axis, index.clamp_(0, length - 1))
            if value is not None:
                tensor = tensor.index_fill(axis, outside.nonzero()[:, 0], value)
    return tensor


@dataclass(frozen=True)
class Intensity:
    """A clip and a linear map per channel: y = (clip(x, low, high) - shift) * factor.

    Every kind of the config comes down to these four numbers a channel, taken once from the whole case.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    shift: tuple[float, ...]
    factor: tuple[float, ...]

    def __call__(self, values: Tensor, channel_axis: int = 0) -> Tensor:
        """Float32 values for the network.

        Shape: (C, ...) -> (C, ...), or (B, C, ...) with ``channel_axis=1``.
        """
        view = [1] * values.ndim
        view[channel_axis] = -1
        low, high, shift, factor = (
            torch.tensor(numbers, dtype=torch.float32, device=values.device).view(view)
            for numbers in (self.low, self.high, self.shift, self.factor)
        )
        return values.to(torch.float32).clamp(low, high).sub_(shift).mul_(factor)

    def of_channels(self, part: slice) -> Intensity:
        """The map of some of the channels."""
        return Intensity(self.low[part], self.high[part], self.shift[part], self.factor[part])


# Values looked at for percentiles: enough for a tenth of a percentile, and bounded for large volumes.
_PERCENTILE_SAMPLES = 2_000_000


def measure_intensity(array: np.ndarray, preprocessing: Preprocessing) -> Intensity:
    """The intensity map of a case, from its file's values (C, *S)."""
    kind = preprocessing.intensity
    infinite = float("inf")
    if kind.kind == "hu_window":
        count = len(array)
        return Intensity(
            (kind.low,) * count, (kind.high,) * count, (kind.low,) * count, (1 / (kind.high - kind.low),) * count
        )
    rows = []
    for channel in array:
        if kind.kind == "unit":
            low, high = (0.0, float(np.iinfo(channel.dtype).max)) if channel.dtype.kind in "ui" else (0.0, 1.0)
            rows.append((low, high, low, 1 / (high - low)))
        elif kind.kind == "percentile":
            step = max(1, channel.size // _PERCENTILE_SAMPLES)
            low, high = (float(value) for value in np.percentile(channel.ravel("K")[::step], (kind.low, kind.high)))
            rows.append((low, high, low, 1 / (high - low) if high > low else 0.0))
        else:
            mean, deviation = _mean_and_deviation(channel)
            rows.append((-infinite, infinite, mean, 1 / deviation if deviation > 0 else 0.0))
    return Intensity(*(tuple(column) for column in zip(*rows, strict=True)))


def _mean_and_deviation(channel: np.ndarray) -> tuple[float, float]:
    """Mean and population standard deviation, part by part in memory order, so that no float64 copy of the volume is made."""
    flat = channel.ravel("K")
    parts = [flat[start : start + (1 << 20)] for start in range(0, flat.size, 1 << 20)]
    mean = sum(float(part.sum(dtype=np.float64)) for part in parts) / flat.size
    variance = sum(float(np.square(part.astype(np.float64) - mean).sum()) for part in parts) / flat.size
    return mean, variance**0.5


class PreparedImage:
    """A case as the network sees it, made only where it is looked at.

    Slicing gives float32 tensors of the working grid; nothing is computed before. It serves wherever a tensor (C, *S) is
    only sliced, as in ``WindowInferer.stream``; slices have step 1.

    Args:
        oriented: Voxels (C, *S) in working order: a file's, or a cache's.
        grid: Where the working grid lies; of an already resampled cache, ``WorkingGrid.of`` its own shape.
        intensity: The case's intensity map.
    """

    def __init__(self, oriented: np.ndarray, grid: WorkingGrid, intensity: Intensity) -> None:
        self.oriented = oriented
        self.grid = grid
        self.intensity = intensity
        self.shape = torch.Size((len(oriented), *grid.shape))

    @property
    def ndim(self) -> int:
        """Axes with the channels."""
        return len(self.shape)

    def __getitem__(self, parts: slice | tuple[slice, ...]) -> Tensor:
        parts = parts if isinstance(parts, tuple) else (parts,)
        if len(parts) > self.ndim or not all(isinstance(part, slice) and part.step in (None, 1) for part in parts):
            raise IndexError(
                f"a prepared image of shape {tuple(self.shape)} is cut by slices of step 1, not by {parts}"
            )
        parts = (*parts, *(slice(None),) * (self.ndim - len(parts)))
        bounds = [part.indices(size)[:2] for part, size in zip(parts, self.shape, strict=True)]
        channels, *box = [(start, max(start, stop)) for start, stop in bounds]
        values = resample_part(self.oriented[slice(*channels)], self.grid, box)
        intensity = self.intensity.of_channels(slice(*channels))
        return intensity(_as_tensor(values))


def _as_tensor(array: np.ndarray) -> Tensor:
    """The array in a type that torch computes with, the machine's byte order, and one piece of memory."""
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.float32 if array.dtype.itemsize > 2 else np.int32)
    array = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False))
    # numpy calls a flipped axis of length 1 contiguous, torch does not.
    return torch.from_numpy(array.copy() if any(stride < 0 for stride in array.strides) else array)


def prepare_image(image: Image, preprocessing: Preprocessing) -> PreparedImage:
    """The image of a case as the network sees it, by the one chain of training and inference."""
    grid = WorkingGrid.of(image.shape, image.affine, preprocessing.spacing_mm if image.spatial_dims == 3 else None)
    return PreparedImage(grid.orient(image.array), grid, measure_intensity(image.array, preprocessing))


def outside_to_ignore(indices: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Class indices with every pixel outside the field of view set to ``IGNORE``."""
    return indices if mask is None else np.where(mask > 0, indices, np.uint8(IGNORE))
