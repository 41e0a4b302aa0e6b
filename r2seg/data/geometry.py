"""The working grid that a network sees, and the way there and back: axis order, orientation, voxel size, padding.

``WorkingGrid`` says how a file's grid and the working grid relate; the functions resample parts of an image to it, and maps back
from it, slab by slab, so that no float copy of a large volume is ever held. Intensities are in intensity.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from r2seg.data.images.mask_values import values_in
from r2seg.labels import MOST_OVERLAPPING
from r2seg.metrics import IGNORE, label_mask

# Spatial axis that each plane slices: a volume's axes are ordered R, A, S.
PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}

# Relative change of a voxel size below which two spacings count as equal: below any scanner's precision.
_SAME_SPACING = 1e-3


@dataclass(frozen=True)
class WorkingGrid:
    """How a file's grid and the working grid relate.

    Attributes:
        order: File axis that becomes each working axis; (0, 1) for pictures, whose axes are rows and columns.
        flips: For each working axis, whether it runs against the file's.
        oriented_shape: Shape after ordering and flipping, before resampling.
        shape: Shape of the working grid.
    """

    order: tuple[int, ...]
    flips: tuple[bool, ...]
    oriented_shape: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def of(
        cls,
        shape: Sequence[int],
        affine: np.ndarray | None,
        spacing_mm: Sequence[float] | None = None,
        picture_shape: Sequence[int] | None = None,
    ) -> WorkingGrid:
        """The grid of an image with this shape and affine.

        A volume's axes are matched to right, anterior and superior by the affine's largest components (nibabel's
        ``io_orientation``), for oblique and sheared affines too. If a spacing is set, the number of voxels is rounded and the
        extent kept, so the working voxels can differ from ``spacing_mm`` by less than half a voxel over the whole axis.

        Args:
            shape: (*S) of the file.
            affine: (4, 4) voxel index -> RAS+ millimetres, or None.
            spacing_mm: Wanted voxel size along R, A and S; the file's own by default. Pictures ignore it.
            picture_shape: Wanted rows and columns of a picture; its own by default. Volumes ignore it.
        """
        if len(shape) == 2:
            return cls((0, 1), (False, False), tuple(shape), tuple(picture_shape or shape))
        from nibabel.orientations import io_orientation

        if affine is None:
            return cls((0, 1, 2), (False, False, False), tuple(shape), tuple(shape))
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
        """Whether the working grid has different voxels from the file."""
        return self.shape != self.oriented_shape

    def orient(self, array: np.ndarray) -> np.ndarray:
        """A view of an array (..., *file axes) with its last axes in working order."""
        lead = array.ndim - len(self.order)
        view = array.transpose(*range(lead), *(lead + axis for axis in self.order))
        return view[(..., *(slice(None, None, -1) if flip else slice(None) for flip in self.flips))]

    def restore_orientation(self, array: np.ndarray) -> np.ndarray:
        """The inverse of ``orient``, also a view."""
        lead = array.ndim - len(self.order)
        view = array[(..., *(slice(None, None, -1) if flip else slice(None) for flip in self.flips))]
        return view.transpose(*range(lead), *(lead + int(axis) for axis in np.argsort(self.order)))

    def file_voxel(self, index: Sequence[int]) -> tuple[int, ...]:
        """The voxel of the file's grid at the centre of a voxel of the working grid."""
        voxel = [0] * len(self.order)
        for i, size, old, axis, flip in zip(
            index, self.shape, self.oriented_shape, self.order, self.flips, strict=True
        ):
            along = (2 * i + 1) * old // (2 * size)
            voxel[axis] = old - 1 - along if flip else along
        return tuple(voxel)

    @cached_property
    def forward_weights(self) -> tuple[np.ndarray | None, ...]:
        """One matrix per axis from oriented to working samples; None for an axis that keeps its samples."""
        return tuple(_linear_weights(old, new) for old, new in zip(self.oriented_shape, self.shape, strict=True))

    @cached_property
    def backward_weights(self) -> tuple[np.ndarray | None, ...]:
        """One matrix per axis from working to oriented samples; None for an axis that keeps its samples."""
        return tuple(_linear_weights(new, old) for old, new in zip(self.oriented_shape, self.shape, strict=True))


def _linear_weights(old: int, new: int) -> np.ndarray | None:
    """Weights (new, old) of linear interpolation over one extent cut into ``old`` and ``new`` equal voxels.

    Voxel centres lie at (i + 1/2) / n. When there are fewer new voxels, the triangle widens to the new voxel, which averages
    instead of picking (antialiasing). If a triangle reaches beyond the extent, only the part inside counts. Rows sum to 1. This
    is ``torch.nn.functional.interpolate`` with align_corners=False, and antialias=True if voxels get fewer.
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
    """``weights @ array`` along one axis in float32, for weights whose rows are zero except for a few neighbours.

    Neighbour by neighbour instead of as a matrix product, whose sums depend on how the library divides them: a part of an image
    has exactly the values that the whole has, so training sees what inference sees. Works in the array's own order of memory, a
    slice at a time, so that what is added up stays in the processor's cache.
    """
    if weights is None:
        return array
    # From the slowest to the fastest; the strides of axes with one sample mean nothing.
    memory = sorted(range(array.ndim), key=lambda each: (array.shape[each] > 1, -abs(array.strides[each])))
    source, along = array.transpose(memory), memory.index(axis)
    result = np.empty([*source.shape[:along], len(weights), *source.shape[along + 1 :]], np.float32)
    if weights.size:
        used = weights > 0
        neighbours = used.argmax(1) + np.arange(used.sum(1).max())[:, None]
        inside = neighbours < weights.shape[1]
        neighbours = np.minimum(neighbours, weights.shape[1] - 1)
        shares = np.where(inside, weights[np.arange(len(weights)), neighbours], np.float32(0))
        add_up = _add_columns if along == array.ndim - 1 else _add_rows
        add_up(source, result, neighbours, shares, along)
    return result.transpose(np.argsort(memory))


def _add_rows(source: np.ndarray, result: np.ndarray, neighbours: np.ndarray, shares: np.ndarray, along: int) -> None:
    """Each row of ``result`` along an axis as the sum of its neighbours (N, rows) in ``source`` times their shares."""
    source, result = np.moveaxis(source, along, 0), np.moveaxis(result, along, 0)
    part = np.empty(result.shape[1:], np.float32)
    for row, total in enumerate(result):
        np.multiply(source[neighbours[0, row]], shares[0, row], out=total, dtype=np.float32, casting="unsafe")
        for index, share in zip(neighbours[1:, row], shares[1:, row], strict=True):
            total += np.multiply(source[index], share, out=part, dtype=np.float32, casting="unsafe")


def _add_columns(
    source: np.ndarray, result: np.ndarray, neighbours: np.ndarray, shares: np.ndarray, along: int
) -> None:
    """``_add_rows`` along the last axis, where neighbours have to be gathered: plane by plane of the last two axes."""
    part = np.empty(result.shape[-2:], np.float32)
    for place in np.ndindex(source.shape[:-2]):
        values, total = np.ascontiguousarray(source[place], np.float32), result[place]
        for number, (index, share) in enumerate(zip(neighbours, shares, strict=True)):
            np.take(values, index, axis=-1, out=part if number else total, mode="clip")
            if number:
                total += np.multiply(part, share, out=part)
            else:
                total *= share


def resample(oriented: np.ndarray, grid: WorkingGrid, bounds: Sequence[tuple[int, int]] | None = None) -> np.ndarray:
    """An oriented array (C, *S) on the working grid, or a box of it.

    Args:
        oriented: The array in working order, on the oriented grid.
        grid: Where the working grid lies.
        bounds: Working samples [start, stop) along each spatial axis; all by default.

    Returns:
        A view in the array's own dtype if nothing is resampled, else float32.
    """
    if bounds is None:
        bounds = [(0, size) for size in grid.shape]
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
    # The axes that shrink most go first: less work for the rest.
    for axis in sorted(range(len(weights)), key=lambda each: grid.shape[each] / grid.oriented_shape[each]):
        box = _weigh(box, weights[axis], lead + axis)
    return box


def resample_indices(oriented: np.ndarray, grid: WorkingGrid, *, overlapping: bool = False) -> np.ndarray:
    """A class-index map (*S) on the working grid: each voxel takes the class with the largest interpolated share.

    Of a map of overlapping labels each bit is resampled by itself: a voxel has a label that covers more than half of what is known
    of it, and is ignored if more than half of it is.
    """
    if not grid.resampled:
        return oriented
    if overlapping:
        ignored = resample((oriented == IGNORE)[None], grid)[0]
        bits = np.zeros(grid.shape, dtype=np.uint8)
        for label in range(1, MOST_OVERLAPPING + 1):
            mask = label_mask(oriented, label, overlapping=True)
            if mask.any():
                bits |= np.uint8(1 << (label - 1)) * (resample(mask[None], grid)[0] > (1 - ignored) / 2)
        bits[ignored > 0.5] = IGNORE
        return bits
    result = np.zeros(grid.shape, dtype=np.uint8)
    box = _labelled_box(oriented, grid)
    best = inner = np.zeros(0)
    for index in values_in(oriented):
        share = resample((oriented == index)[None], grid, box)[0]
        if not best.size:
            best, inner = share, np.full_like(share, index, dtype=np.uint8)
            continue
        np.copyto(inner, index, where=share > best)
        np.maximum(best, share, out=best)
    result[tuple(slice(*bounds) for bounds in box)] = inner
    return result


def _labelled_box(oriented: np.ndarray, grid: WorkingGrid) -> list[tuple[int, int]]:
    """The part [start, stop) of each working axis beyond which all samples are weighed from background alone."""
    box = []
    for axis, weights in enumerate(grid.forward_weights):
        labelled = oriented.any(axis=tuple(other for other in range(oriented.ndim) if other != axis))
        reached = np.flatnonzero(labelled if weights is None else weights[:, labelled].any(axis=1))
        box.append((int(reached[0]), int(reached[-1]) + 1) if len(reached) else (0, 0))
    return box


def unresample(slabs: Iterable[tuple[slice, Tensor]], grid: WorkingGrid, axis: int) -> Iterator[tuple[slice, Tensor]]:
    """Slabs (K, ...) of a map on the working grid, in order along ``axis``, resampled to the oriented grid slab by slab.

    Linear interpolation along each axis, in float32. Only the working slices that the next oriented slice needs are held.
    """
    if not grid.resampled:
        yield from slabs
        return
    along = grid.backward_weights[axis]
    across = [
        (other, weights) for other, weights in enumerate(grid.backward_weights) if other != axis and weights is not None
    ]
    last_needed = np.zeros(0) if along is None else along.shape[1] - 1 - np.argmax((along > 0)[:, ::-1], axis=1)
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
    # Inference runs under autocast, which would also compute this product with 8 bits of mantissa.
    with torch.autocast(tensor.device.type, enabled=False):
        return torch.movedim(torch.tensordot(matrix, tensor, dims=([1], [axis])), 0, axis)


def pad_to(tensor: Tensor, size: Sequence[int], value: float | None = None) -> Tensor:
    """The tensor with its last ``len(size)`` axes padded to at least ``size``: the one rule for images smaller than a window.

    Half of what is missing goes before, the (larger) rest behind. The windows of training and of inference are padded by it, so
    that the network meets the same borders in both.

    Args:
        tensor: Any dtype, so labels can follow their image.
        size: Least size of each of the last axes.
        value: What to pad with; by default the edge is repeated.

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
