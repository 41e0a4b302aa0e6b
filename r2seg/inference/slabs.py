"""One pass of windows over one image: where they lie, how they are batched, and how their logits are blended into slabs.

``WindowInferer`` (windows.py) is the public class; it checks its arguments and chooses the axis. Only the range of slices that
unfinished windows need is held, so that memory does not grow with the number of slices.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from monai.data.meta_tensor import MetaTensor
from monai.data.utils import compute_importance_map
from torch import Tensor

from r2seg.data.geometry import pad_to

Window = tuple[int, int]  # index of its row and of its place in the plane
Region = tuple[int, int, int]  # first index and extent along the axis, and the place in the plane


class SlicedImage(Protocol):
    """What ``WindowInferer.stream`` needs of an image: a Tensor, or a volume that makes its slabs on request.

    ``image[index]`` gets one slice per axis of ``shape``; all are ``slice(None)`` but the streaming axis's, which is
    ``slice(start, stop)``. Every index of that axis is requested exactly once, in order.
    """

    @property
    def shape(self) -> Sequence[int]:
        """(C, *S)."""

    def __getitem__(self, index: tuple[slice, ...]) -> Tensor: ...


def window_starts(length: int, size: int, overlap: float) -> list[int]:
    """First indices of the fewest windows that cover an axis with at least this overlap, evenly spread.

    The first window begins at 0 and the last one ends at ``length``; steps differ by at most one and never exceed
    ``size * (1 - overlap)`` (at least 1). An axis no longer than the window has one window.
    """
    if length <= size:
        return [0]
    step = max(1, math.floor(size * (1 - overlap) + 1e-9))  # 10 * (1 - .9) is .99…
    last = length - size
    gaps = math.ceil(last / step)
    return [(2 * i * last + gaps) // (2 * gaps) for i in range(gaps + 1)]  # round half up, in integers


def crop_to(tensor: Tensor, size: Sequence[int]) -> Tensor:
    """A view of the tensor with its last ``len(size)`` axes cropped to at most ``size``: undoes ``pad_to``.

    Shape: (..., *S) -> (..., *min(S, size)).
    """
    for axis, target in enumerate(size, start=-len(size)):
        if tensor.shape[axis] > target:
            tensor = tensor.narrow(axis, (tensor.shape[axis] - target) // 2, target)
    return tensor


class Sweep:
    """Windows over (C, X, Y, Z), where 2-D windows lie on slices along ``axis``; ``slabs`` runs it, once.

    A row is all windows that start at one index of the axis. Windows are taken in blocks of rows; a slab is yielded when its block
    is done. Buffers hold a range of the axis: (range, C, H, W) for 2-D windows, so that the same window of consecutive slices is
    one region and a batch needs no gathering; (1, C, X, Y, Z) for 3-D windows.

    Args:
        image: The image.
        axis: Spatial axis along which slabs are yielded.
        network: Windows (B, C, *size) -> logits (B, K, *size).
        device: Where windows are sent and logits stay.
        size: Window, 2 or 3 numbers.
        overlap: Least overlap as a fraction of the window.
        batch_size: Windows per call of the network.
        blend: A mode of MONAI's ``compute_importance_map``.
        block: Rows per block; by default as many slices as a batch has windows, or one row of 3-D windows.
    """

    def __init__(
        self,
        image: Tensor | SlicedImage,
        axis: int,
        network: Callable[[Tensor], Tensor],
        device: torch.device,
        *,
        size: Sequence[int],
        overlap: float,
        batch_size: int,
        blend: str,
        block: int | None = None,
    ) -> None:
        self.image, self.axis, self.network, self.device = image, axis, network, device
        self.size, self.batch_size = size, batch_size
        self.planar = planar = len(size) == 2
        self.shape = tuple(image.shape[1:])
        self.length = self.shape[axis]
        self.depth = 1 if planar else size[axis]
        self.plane = [n for i, n in enumerate(self.shape) if i != axis]
        sides = [n for i, n in enumerate(size) if planar or i != axis]
        self.rows = window_starts(self.length, self.depth, overlap)
        corners = itertools.product(
            *(window_starts(n, side, overlap) for n, side in zip(self.plane, sides, strict=True))
        )
        self.places = [tuple(slice(n, n + side) for n, side in zip(corner, sides, strict=True)) for corner in corners]
        # One window covers all: nothing to blend.
        self.alone = len(self.places) == 1 and (planar or len(self.rows) == 1)
        if self.alone or block is None:
            block = batch_size if planar else 1
        self.block = block
        self.windows: list[Window] = [
            (row, place)
            for first in range(0, len(self.rows), block)
            for place in range(len(self.places))
            for row in range(first, min(first + block, len(self.rows)))
        ]
        self.dim = 0 if planar else 2 + axis
        self.pixels, self.sums, self.totals = _Range(self.dim), _Range(self.dim), _Range(self.dim)
        if not self.alone:
            self.weight = _to_device(compute_importance_map(size, mode=blend, dtype=torch.float32), device)
        if planar and not self.alone:
            self.plane_total = self.weight.new_zeros([max(n) for n in zip(self.plane, sides, strict=True)])
            for place in self.places:
                self.plane_total[place] += self.weight

    @torch.no_grad()
    def slabs(self) -> Iterator[tuple[slice, Tensor]]:
        """Each slab's slice along the axis and its logits (K, ...), float32, in the image's axis order."""
        for first in range(0, len(self.windows), self.batch_size):
            batch = self.windows[first : first + self.batch_size]
            rest = self.windows[first + self.batch_size : first + 2 * self.batch_size]
            regions = self._regions(batch)
            self._load(batch)
            logits = _run(self.network, torch.cat([self._view(self.pixels, *region) for region in regions]))
            if not self.alone:
                self._blend(logits, regions, self._end_of(batch))
                del logits
            start = self.pixels.start
            done = self.rows[rest[0][0] // self.block * self.block] if rest else self.pixels.stop
            if start == done:
                continue
            self.pixels.drop(done)
            if not self.alone:
                logits = self._mean_until(done)
            if rest and self.device.type != "cpu":
                self._load(rest)  # the device is still computing: the next slab is prepared meanwhile
            done = min(done, self.length)
            whole = [*self.shape[: self.axis], done - start, *self.shape[self.axis + 1 :]]
            logits = crop_to(logits, self.plane if self.planar else whole)
            yield slice(start, done), logits.movedim(0, 1 + self.axis) if self.planar else logits[0]
            del logits

    def _end_of(self, batch: Sequence[Window]) -> int:
        """Where the last block of a batch ends; beyond ``length`` if a volume is smaller than its window."""
        last = max(row for row, _ in batch) // self.block * self.block + self.block - 1
        return self.rows[min(last, len(self.rows) - 1)] + self.depth

    def _load(self, batch: Sequence[Window]) -> None:
        """Reads the slices that a batch needs and that are not held yet."""
        stop = self._end_of(batch)
        if stop <= self.pixels.stop:
            return
        index = [slice(None)] * 4
        index[1 + self.axis] = slice(self.pixels.stop, min(stop, self.length))
        slab = _to_device(plain(torch.as_tensor(self.image[tuple(index)])), self.device)
        slab = slab if slab.is_floating_point() else slab.float()
        slab = slab.movedim(1 + self.axis, 0).contiguous() if self.planar else slab[None]
        size = list(self.size)
        if not self.planar:
            size[self.axis] = stop - self.pixels.stop
        self.pixels.append(pad_to(slab, size), stop)

    def _regions(self, batch: Sequence[Window]) -> list[Region]:
        """The regions of the buffers that hold a batch's windows, in their order."""
        if not self.planar:
            return [(self.rows[row], self.depth, place) for row, place in batch]
        # The same place in consecutive slices is one region.
        runs = [(place, list(run)) for place, run in itertools.groupby(batch, key=operator.itemgetter(1))]
        return [(run[0][0], len(run), place) for place, run in runs]

    def _view(self, buffer: _Range, start: int, extent: int, place: int) -> Tensor:
        """A region of a buffer."""
        along = slice(start - buffer.start, start - buffer.start + extent)
        index = [slice(None), slice(None), *self.places[place]]
        if self.planar:
            index[0] = along
        else:
            index.insert(self.dim, along)
        return buffer.tensor[tuple(index)]

    def _blend(self, logits: Tensor, regions: Sequence[Region], end: int) -> None:
        """Adds a batch's weighted logits to the sums, and their weights to the totals."""
        grid = list(self.pixels.tensor.shape)
        self.sums.grow(end, logits, [*grid[:1], logits.shape[1], *grid[2:]])
        sizes = [extent if self.planar else 1 for _, extent, _ in regions]
        for region, part in zip(regions, logits.split(sizes), strict=True):
            self._view(self.sums, *region).addcmul_(part, self.weight)
        if not self.planar:
            self.totals.grow(end, logits, [1, 1, *grid[2:]])
            for region in regions:
                self._view(self.totals, *region).add_(self.weight)

    def _mean_until(self, done: int) -> Tensor:
        """The blended logits before ``done``, which leave the buffers."""
        logits = self.sums.drop(done)
        total = self.plane_total if self.planar else self.totals.drop(done)
        # Divided in place only if that does not keep the rest of the buffer alive.
        return logits.div_(total) if self.sums.tensor is None else logits / total


class _Range:
    """A range of a long tensor along one axis: it grows at its end and is dropped from its start."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.start = self.stop = 0
        self.tensor: Any = None  # a Tensor once something was appended, None while the range is empty

    def append(self, tensor: Tensor, stop: int) -> None:
        self.tensor = tensor if self.tensor is None else torch.cat([self.tensor, tensor], self.dim)
        self.stop = stop

    def grow(self, stop: int, like: Tensor, shape: list[int]) -> None:
        """Appends zeros; ``shape`` gives the other axes."""
        if stop > self.stop:
            shape[self.dim] = stop - self.start
            grown = like.new_zeros(shape)
            if self.tensor is not None:
                grown.narrow(self.dim, 0, self.stop - self.start).copy_(self.tensor)
            self.tensor, self.stop = grown, stop

    def drop(self, stop: int) -> Tensor:
        """Removes and returns what lies before ``stop``."""
        head = self.tensor.narrow(self.dim, 0, stop - self.start)
        rest = self.stop - stop
        self.tensor = self.tensor.narrow(self.dim, stop - self.start, rest) if rest else None
        self.start = stop
        return head


def _run(network: Callable[[Tensor], Tensor], windows: Tensor) -> Tensor:
    """float32 logits of a batch of windows."""
    logits = network(windows)
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"the network returned a {type(logits).__name__}, not one tensor of logits (B, K, *S): "
            "pass a function that picks the output to use"
        )
    if logits.ndim != windows.ndim or len(logits) != len(windows) or logits.shape[2:] != windows.shape[2:]:
        raise ValueError(
            f"the network made {list(logits.shape)} of windows {list(windows.shape)}: "
            "logits must have the batch and spatial sizes of the windows"
        )
    return plain(logits).float()


def plain(tensor: Any) -> Any:
    """The plain tensor of a MetaTensor; anything else as it is."""
    return tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor


def _to_device(slab: Tensor, device: torch.device) -> Tensor:
    if slab.device.type == "cpu" and device.type == "cuda":
        slab = slab.pin_memory()  # only copies from pinned memory leave the host free to launch the next kernels
    return slab.to(device, non_blocking=True)
