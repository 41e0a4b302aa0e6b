"""Sliding windows: where they lie, how they are batched, and how their logits are blended into slabs, in order.

One mechanism serves pictures, slices of volumes and volumes. It knows neither files nor preprocessing nor classes: an image
goes in, logits on the image's own grid come out, a slab at a time, with memory that does not grow with the number of slices.
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
from monai.inferers import Inferer
from torch import Tensor, nn

PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}
"""Spatial axis that each plane slices, on volumes whose axes are ordered R, A, S."""

BLENDS = ("gaussian", "constant")


class SlicedImage(Protocol):
    """What ``WindowInferer.stream`` asks of an image: a Tensor, or a volume that makes its slabs when asked.

    ``image[index]`` gets one slice per axis of ``shape``; all are ``slice(None)`` but the streaming axis's, which is
    ``slice(start, stop)``. Every index of that axis is asked for exactly once, in order.
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


def pad_to(tensor: Tensor, size: Sequence[int]) -> Tensor:
    """The tensor with its last ``len(size)`` axes padded to at least ``size`` by repeating the edge.

    Half of what is missing goes before, the (larger) rest behind. Training must pad its windows with this function too, so
    that the network meets the same borders in inference. Any dtype, so labels can follow their image.

    Shape: (..., *S) -> (..., *max(S, size)).
    """
    for axis, target in enumerate(size, start=-len(size)):
        length = tensor.shape[axis]
        if length < target:
            before = (target - length) // 2
            index = torch.arange(-before, target - before, device=tensor.device).clamp_(0, length - 1)
            tensor = tensor.index_select(axis, index)
    return tensor


def crop_to(tensor: Tensor, size: Sequence[int]) -> Tensor:
    """A view of the tensor with its last ``len(size)`` axes cropped to at most ``size``: undoes ``pad_to``.

    Shape: (..., *S) -> (..., *min(S, size)).
    """
    for axis, target in enumerate(size, start=-len(size)):
        if tensor.shape[axis] > target:
            tensor = tensor.narrow(axis, (tensor.shape[axis] - target) // 2, target)
    return tensor


class WindowInferer(Inferer):
    """Network applied window by window: 2-D windows on pictures, 2-D windows on the slices of volumes, 3-D windows on volumes.

    Windows are evenly spread (``window_starts``), images smaller than the window are padded by edge replication (``pad_to``)
    and cropped after, and overlapping logits are averaged in float32 with MONAI's weights: for "gaussian" a bell of sigma =
    size / 8 with a floor of 1e-3. Where one window covers a whole plane, its logits pass untouched. Batches are full whatever
    the number of windows of a slice; only the last one of an image may be smaller. No gradients are recorded.

    Volumes have axes ordered R, A, S. For 2-D windows on volumes, ``size`` is along the two axes that are left when the
    plane's own is taken away, in their order: (A, S) for sagittal, (R, S) for coronal, (R, A) for axial.

    Args:
        size: Window, 2 or 3 numbers of pixels or voxels.
        plane: "axial", "coronal" or "sagittal" for 2-D windows on volumes, else None.
        overlap: Least overlap of neighbouring windows as a fraction of the window, 0 <= overlap < 1.
        batch_size: Windows per call of the network.
        blend: "gaussian" or "constant".

    Raises:
        ValueError: An argument is out of range, or, at inference, it does not fit the image.
    """

    def __init__(
        self,
        size: Sequence[int],
        plane: str | None = None,
        *,
        overlap: float = 0.25,
        batch_size: int = 4,
        blend: str = "gaussian",
    ) -> None:
        super().__init__()
        self.size = tuple(operator.index(n) for n in size)
        self.plane = plane
        self.overlap = float(overlap)
        self.batch_size = operator.index(batch_size)
        self.blend = blend
        if len(self.size) not in (2, 3) or min(self.size) < 1:
            raise ValueError(f"window size is {list(size)}: give 2 or 3 numbers of at least 1")
        if plane is not None and plane not in PLANES:
            raise ValueError(f"window plane is {plane!r}: give one of {', '.join(sorted(PLANES))}")
        if plane is not None and len(self.size) == 3:
            raise ValueError(
                f"window size {list(size)} is 3-D but plane is {plane!r}: drop the plane, or give two numbers"
            )
        if not 0 <= self.overlap < 1:
            raise ValueError(f"window overlap is {overlap}: give a fraction of the window, 0 <= overlap < 1")
        if self.batch_size < 1:
            raise ValueError(f"window batch_size is {batch_size}: give 1 or more")
        if blend not in BLENDS:
            raise ValueError(f"window blend is {blend!r}: give one of {', '.join(BLENDS)}")

    def stream_axis(self, shape: Sequence[int]) -> int:
        """Spatial axis along which ``stream`` gives slabs of an image with spatial shape ``shape`` (*S).

        The plane's axis for 2-D windows on volumes; for 3-D windows the axis that holds the most windows, which keeps the
        accumulators smallest; 0 for pictures, which come whole.

        Raises:
            ValueError: Window and image do not fit together, or the image is empty.
        """
        shape, window = tuple(shape), f"window size {list(self.size)}"
        if len(shape) not in (2, 3) or min(shape) < 1:
            raise ValueError(f"image shape {list(shape)}: expected 2 or 3 spatial axes, none of them empty")
        if len(shape) == 2 and len(self.size) == 3:
            raise ValueError(f"{window} is 3-D but the image {list(shape)} is a picture: give two numbers")
        if len(shape) == 2 and self.plane is not None:
            raise ValueError(f"window plane is {self.plane!r} but the image {list(shape)} is a picture: drop the plane")
        if len(shape) == 3 and len(self.size) == 2 and self.plane is None:
            planes = ", ".join(sorted(PLANES))
            raise ValueError(
                f"{window} is 2-D, the image {list(shape)} a volume, and no plane is given: give one of {planes}"
            )
        if len(shape) == 2:
            return 0
        if len(self.size) == 2:
            return PLANES[self.plane]
        return min(range(3), key=lambda axis: self.size[axis] / shape[axis])

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Logits of whole images; ``args`` and ``kwargs`` go on to the network.

        Returns:
            float32 on the inputs' device, whatever device the network is on; a MetaTensor with the inputs' meta data when
            the inputs are one. The network gets plain tensors.

        Shape: (B, C, *S) -> (B, K, *S).

        Raises:
            ValueError: Window, image and network's output do not fit together.
            TypeError: The network returns something else than one tensor.
        """
        images = _plain(inputs)
        if images.ndim not in (4, 5) or len(images) == 0:
            raise ValueError(
                f"inputs {list(images.shape)}: expected (B, C, H, W) or (B, C, X, Y, Z) with B of 1 or more"
            )
        axis = self.stream_axis(images.shape[2:])
        device = _device_of(network, images)

        def call(windows: Tensor) -> Tensor:
            return network(windows, *args, **kwargs)

        # A batch of pictures is a stack of slices, so that its windows share batches too.
        pictures = images.ndim == 4
        logits = None
        for item, volume in enumerate([images.movedim(1, 0)] if pictures else images):
            for slab, part in self._slabs(volume, axis, call, device):
                if logits is None:
                    logits = part.new_empty((len(images), len(part), *images.shape[2:]), device=images.device)
                whole = logits.movedim(1, 0) if pictures else logits[item]
                whole.narrow(1 + axis, slab.start, slab.stop - slab.start).copy_(part)
        if isinstance(inputs, MetaTensor):
            logits = MetaTensor(logits).copy_meta_from(inputs, copy_attr=False)
        return logits

    def stream(
        self,
        image: Tensor | SlicedImage,
        network: Callable[[Tensor], Tensor],
        *,
        device: torch.device | str | None = None,
    ) -> Iterator[tuple[slice, Tensor]]:
        """Logits slab by slab along ``stream_axis``, in order, each index once; at most about ``batch_size`` slices are held.

        Args:
            image: Tensor (C, *S), or anything with ``shape`` and slicing (``SlicedImage``).
            network: Windows (B, C, *size) -> logits (B, K, *size).
            device: Where windows are sent and logits stay; by default the network's own, or the image's for a plain function.

        Yields:
            The slab's slice along the streaming axis, and its logits (K, ...), float32, in the image's axis order.

        Raises:
            ValueError: Window, image and network's output do not fit together.
            TypeError: The network returns something else than one tensor.
        """
        shape = tuple(image.shape)
        axis = self.stream_axis(shape[1:])
        device = _device_of(network, image) if device is None else torch.device(device)
        if len(shape) == 4:
            return self._slabs(image, axis, network, device)
        picture = torch.as_tensor(image[(slice(None),) * 3])
        slabs = self._slabs(_plain(picture)[:, None], 0, network, device)
        return ((slice(0, shape[1]), logits[:, 0]) for _, logits in slabs)

    @torch.no_grad()
    def _slabs(
        self, image: Tensor | SlicedImage, axis: int, network: Callable[[Tensor], Tensor], device: torch.device
    ) -> Iterator[tuple[slice, Tensor]]:
        """``stream`` for (C, X, Y, Z): slices are stacked along ``axis`` where the window is 2-D.

        Buffers hold a range of the streaming axis: (range, C, H, W) for 2-D windows, so that the same window of consecutive
        slices is one region and a batch needs no gathering; (1, C, X, Y, Z) for 3-D windows.
        """
        planar = len(self.size) == 2
        shape = tuple(image.shape[1:])
        depth = 1 if planar else self.size[axis]
        others = [n for i, n in enumerate(shape) if i != axis]
        sides = [n for i, n in enumerate(self.size) if planar or i != axis]
        rows = window_starts(shape[axis], depth, self.overlap)
        starts = [window_starts(n, side, self.overlap) for n, side in zip(others, sides, strict=True)]
        places = [
            tuple(slice(start, start + side) for start, side in zip(corner, sides, strict=True))
            for corner in itertools.product(*starts)
        ]
        # Windows in order: blocks of slices, in a block place by place. One slice of 3-D windows is a block of its own.
        block = self.batch_size if planar else 1
        windows = [
            (row, place)
            for first in range(0, len(rows), block)
            for place in range(len(places))
            for row in range(first, min(first + block, len(rows)))
        ]
        alone = len(places) == 1 and (planar or len(rows) == 1)  # nothing to blend
        dim = 0 if planar else 2 + axis
        pixels, sums, totals = _Range(dim), _Range(dim), _Range(dim)
        weights = None if alone else self._weights(places, [max(*n) for n in zip(others, sides, strict=True)], device)

        def load(batch: list[tuple[int, int]]) -> None:
            stop = min(rows[max(row for row, _ in batch)] + depth, shape[axis])
            if stop > pixels.stop:
                index = [slice(None)] * 4
                index[1 + axis] = slice(pixels.stop, stop)
                slab = _to_device(_plain(torch.as_tensor(image[tuple(index)])), device)
                slab = slab if slab.is_floating_point() else slab.float()
                slab = slab.movedim(1 + axis, 0).contiguous() if planar else slab[None]
                # A streaming axis shorter than the window is padded too; it comes in one piece.
                pads = self.size if planar or shape[axis] < depth else (*self.size[:axis], 1, *self.size[axis + 1 :])
                pixels.append(pad_to(slab, pads), length=stop - pixels.stop)

        def region(buffer: _Range, start: int, length: int, place: int) -> Tensor:
            along = slice(start - buffer.start, start - buffer.start + length)
            index = [slice(None), slice(None), *places[place]]
            if planar:
                index[0] = along
            else:
                index.insert(dim, along)
            return buffer.tensor[tuple(index)]

        for first in range(0, len(windows), self.batch_size):
            batch, rest = (
                windows[first : first + self.batch_size],
                windows[first + self.batch_size :][: self.batch_size],
            )
            if planar:  # the same place in consecutive slices is one region
                groups = [(place, list(group)) for place, group in itertools.groupby(batch, key=operator.itemgetter(1))]
                regions = [(rows[group[0][0]], len(group), place) for place, group in groups]
            else:
                regions = [(rows[row], depth, place) for row, place in batch]
            load(batch)
            logits = _run(network, torch.cat([region(pixels, *r) for r in regions]))
            if not alone:
                stop = rows[max(row for row, _ in batch)] + depth
                _grow(sums, stop, logits.shape[1], logits, pixels)
                for r, part in zip(regions, logits.split([r[1] if planar else 1 for r in regions]), strict=True):
                    region(sums, *r).addcmul_(part, weights[r[2]])
                if not planar:
                    _grow(totals, stop, 1, logits, pixels)
                    for r in regions:
                        region(totals, *r).add_(weights[r[2]])
            done = rows[rest[0][0] // block * block] if rest else shape[axis]
            start = pixels.start
            if done == start:
                continue
            pixels.drop(done)
            if not alone:
                logits = sums.drop(done)
                if not planar:
                    logits = logits / totals.drop(done)
            if rest and device.type != "cpu":
                load(rest)  # the device still computes: the next slab is made meanwhile
            logits = crop_to(logits, others if planar else [*shape[:axis], done - start, *shape[axis + 1 :]])
            yield slice(start, done), logits.movedim(0, 1 + axis) if planar else logits[0]

    def _weights(self, places: list[tuple[slice, ...]], grid: list[int], device: torch.device) -> list[Tensor]:
        """Weight map of the window at each place; for 2-D windows already divided by the sum of weights on the plane."""
        weight = compute_importance_map(
            self.size, mode=self.blend, sigma_scale=0.125, device=device, dtype=torch.float32
        )
        if len(self.size) == 3:
            return [weight] * len(places)
        total = torch.zeros(grid, device=device)
        for place in places:
            total[place] += weight
        return [weight / total[place] for place in places]


class _Range:
    """A range of a long tensor along one axis: grows at its end, is dropped from its start."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.start = self.stop = 0
        self.tensor: Tensor | None = None

    def append(self, tensor: Tensor, length: int) -> None:
        self.tensor = tensor if self.tensor is None else torch.cat([self.tensor, tensor], self.dim)
        self.stop += length

    def drop(self, stop: int) -> Tensor:
        """What lay before ``stop``."""
        if stop == self.stop:
            head, self.tensor = self.tensor, None
        else:
            head = self.tensor.narrow(self.dim, 0, stop - self.start)
            self.tensor = self.tensor.narrow(self.dim, stop - self.start, self.stop - stop)
        self.start = stop
        return head


def _grow(sums: _Range, stop: int, channels: int, logits: Tensor, pixels: _Range) -> None:
    if stop > sums.stop:
        shape = list(pixels.tensor.shape)
        shape[1] = channels
        shape[sums.dim] = stop - sums.stop
        sums.append(logits.new_zeros(shape), length=stop - sums.stop)


def _run(network: Callable[[Tensor], Tensor], windows: Tensor) -> Tensor:
    """float32 logits of a batch of windows."""
    logits = network(windows)
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"the network returned a {type(logits).__name__}, not one tensor of logits (B, K, *S): "
            "pass a function that picks the output to be used"
        )
    if logits.ndim != windows.ndim or len(logits) != len(windows) or logits.shape[2:] != windows.shape[2:]:
        raise ValueError(
            f"the network made {list(logits.shape)} of windows {list(windows.shape)}: "
            "logits must have the batch and spatial sizes of the windows"
        )
    return _plain(logits).float()


def _plain(tensor: Tensor) -> Tensor:
    return tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor


def _device_of(network: Callable, image: Any) -> torch.device:
    if isinstance(network, nn.Module):
        for tensor in itertools.chain(network.parameters(), network.buffers()):
            return tensor.device
    return image.device if isinstance(image, Tensor) else torch.device("cpu")


def _to_device(slab: Tensor, device: torch.device) -> Tensor:
    if slab.device.type == "cpu" and device.type == "cuda":
        slab = slab.pin_memory()  # only a copy from pinned memory leaves the host free to launch the next kernels
    return slab.to(device, non_blocking=True)
