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

from r2seg.data.geometry import PLANES, pad_to

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
        try:
            self.size = tuple(operator.index(n) for n in size)
        except TypeError:
            raise ValueError(f"window size is {size!r}: give 2 or 3 whole numbers") from None
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
        stacks = [images.movedim(1, 0)] if pictures else list(images)
        # Slabs pay where the whole must be copied anyway, to its device or into its axis order; else one slab is the result.
        in_slabs = device != images.device or (images.ndim == 5 and len(self.size) == 2)
        logits = None
        for item, stack in enumerate(stacks):
            for slab, part in self._slabs(stack, axis, call, device, None if in_slabs else stack.shape[1 + axis]):
                if len(stacks) == 1 and slab == slice(0, stack.shape[1 + axis]):
                    logits = (part.movedim(1, 0) if pictures else part[None]).to(images.device).contiguous()
                    continue
                if logits is None:
                    logits = part.new_empty((len(images), len(part), *images.shape[2:]), device=images.device)
                whole = logits.movedim(1, 0) if pictures else logits[item]
                whole.narrow(1 + axis, slab.start, slab.stop - slab.start).copy_(part)
                del part  # or it would lie beside the next slab
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
        image = _plain(image)
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
        self,
        image: Tensor | SlicedImage,
        axis: int,
        network: Callable[[Tensor], Tensor],
        device: torch.device,
        block: int | None = None,
    ) -> Iterator[tuple[slice, Tensor]]:
        """``stream`` for (C, X, Y, Z), where 2-D windows lie on slices along ``axis``.

        Windows are taken in blocks of ``block`` rows, a row being all windows that start at one index of the axis; a slab is
        given when its block is done. By default a block has as many slices as a batch has windows, or one row of 3-D windows.
        Buffers hold a range of the axis: (range, C, H, W) for 2-D windows, so that the same window of consecutive slices is
        one region and a batch needs no gathering; (1, C, X, Y, Z) for 3-D windows.
        """
        planar = len(self.size) == 2
        shape = tuple(image.shape[1:])
        length = shape[axis]
        depth = 1 if planar else self.size[axis]
        plane = [n for i, n in enumerate(shape) if i != axis]
        sides = [n for i, n in enumerate(self.size) if planar or i != axis]
        rows = window_starts(length, depth, self.overlap)
        corners = itertools.product(
            *(window_starts(n, side, self.overlap) for n, side in zip(plane, sides, strict=True))
        )
        places = [tuple(slice(n, n + side) for n, side in zip(corner, sides, strict=True)) for corner in corners]
        alone = len(places) == 1 and (planar or len(rows) == 1)  # one window covers all: nothing to blend
        if alone or block is None:
            block = self.batch_size if planar else 1
        windows = [
            (row, place)
            for first in range(0, len(rows), block)
            for place in range(len(places))
            for row in range(first, min(first + block, len(rows)))
        ]
        dim = 0 if planar else 2 + axis
        pixels, sums, totals = _Range(dim), _Range(dim), _Range(dim)
        if not alone:
            weight = _to_device(compute_importance_map(self.size, mode=self.blend, dtype=torch.float32), device)
        if planar and not alone:
            plane_total = weight.new_zeros([max(n) for n in zip(plane, sides, strict=True)])
            for place in places:
                plane_total[place] += weight

        def end_of(batch: list[tuple[int, int]]) -> int:
            """Where the last block of a batch ends; beyond ``length`` where a volume is smaller than its window."""
            last = max(row for row, _ in batch) // block * block + block - 1
            return rows[min(last, len(rows) - 1)] + depth

        def load(batch: list[tuple[int, int]]) -> None:
            stop = end_of(batch)
            if stop > pixels.stop:
                index = [slice(None)] * 4
                index[1 + axis] = slice(pixels.stop, min(stop, length))
                slab = _to_device(_plain(torch.as_tensor(image[tuple(index)])), device)
                slab = slab if slab.is_floating_point() else slab.float()
                slab = slab.movedim(1 + axis, 0).contiguous() if planar else slab[None]
                size = list(self.size)
                if not planar:
                    size[axis] = stop - pixels.stop
                pixels.append(pad_to(slab, size), stop)

        def region(buffer: _Range, start: int, extent: int, place: int) -> Tensor:
            along = slice(start - buffer.start, start - buffer.start + extent)
            index = [slice(None), slice(None), *places[place]]
            if planar:
                index[0] = along
            else:
                index.insert(dim, along)
            return buffer.tensor[tuple(index)]

        for first in range(0, len(windows), self.batch_size):
            batch = windows[first : first + self.batch_size]
            rest = windows[first + self.batch_size : first + 2 * self.batch_size]
            if planar:  # the same place in consecutive slices is one region
                runs = [(place, list(run)) for place, run in itertools.groupby(batch, key=operator.itemgetter(1))]
                regions = [(run[0][0], len(run), place) for place, run in runs]
            else:
                regions = [(rows[row], depth, place) for row, place in batch]
            load(batch)
            logits = _run(network, torch.cat([region(pixels, *r) for r in regions]))
            if not alone:
                grid = list(pixels.tensor.shape)
                sums.grow(end_of(batch), logits, [*grid[:1], logits.shape[1], *grid[2:]])
                for r, part in zip(regions, logits.split([r[1] if planar else 1 for r in regions]), strict=True):
                    region(sums, *r).addcmul_(part, weight)
                if not planar:
                    totals.grow(end_of(batch), logits, [1, 1, *grid[2:]])
                    for r in regions:
                        region(totals, *r).add_(weight)
                del logits, part
            start, done = pixels.start, rows[rest[0][0] // block * block] if rest else pixels.stop
            if start == done:
                continue
            pixels.drop(done)
            if not alone:
                logits = sums.drop(done)
                total = plane_total if planar else totals.drop(done)
                # Divided in place only where that keeps no rest of the buffer alive.
                logits = logits.div_(total) if sums.tensor is None else logits / total
            if rest and device.type != "cpu":
                load(rest)  # the device still computes: the next slab is made meanwhile
            done = min(done, length)
            logits = crop_to(logits, plane if planar else [*shape[:axis], done - start, *shape[axis + 1 :]])
            yield slice(start, done), logits.movedim(0, 1 + axis) if planar else logits[0]
            del logits


class _Range:
    """A range of a long tensor along one axis: grows at its end, is dropped from its start."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.start = self.stop = 0
        self.tensor: Tensor | None = None

    def append(self, tensor: Tensor, stop: int) -> None:
        self.tensor = tensor if self.tensor is None else torch.cat([self.tensor, tensor], self.dim)
        self.stop = stop

    def grow(self, stop: int, like: Tensor, shape: list[int]) -> None:
        """Appends zeros; ``shape`` says the other axes."""
        if stop > self.stop:
            shape[self.dim] = stop - self.start
            grown = like.new_zeros(shape)
            if self.tensor is not None:
                grown.narrow(self.dim, 0, self.stop - self.start).copy_(self.tensor)
            self.tensor, self.stop = grown, stop

    def drop(self, stop: int) -> Tensor:
        """What lay before ``stop``."""
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
            "pass a function that picks the output to be used"
        )
    if logits.ndim != windows.ndim or len(logits) != len(windows) or logits.shape[2:] != windows.shape[2:]:
        raise ValueError(
            f"the network made {list(logits.shape)} of windows {list(windows.shape)}: "
            "logits must have the batch and spatial sizes of the windows"
        )
    return _plain(logits).float()


def _plain(tensor: Any) -> Any:
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
