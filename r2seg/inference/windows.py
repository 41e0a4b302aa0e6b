"""Sliding windows as a MONAI inferer: one mechanism for pictures, slices of volumes, and volumes.

It does not deal with files, preprocessing or classes: an image goes in, logits on the image's own grid come out, a slab at a time,
with memory that does not grow with the number of slices. How windows are placed, batched and blended is in slabs.py.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor
from monai.inferers import Inferer
from torch import Tensor, nn

from r2seg.data.geometry import PLANES
from r2seg.inference.slabs import SlicedImage, Sweep, plain

BLENDS = ("gaussian", "constant")


class WindowInferer(Inferer):
    """Network applied window by window: 2-D windows on pictures, 2-D windows on the slices of volumes, 3-D windows on volumes.

    Windows are evenly spread (``window_starts``), images smaller than the window are padded by edge replication (``pad_to``)
    and cropped afterwards, and overlapping logits are averaged in float32 with MONAI's weights: for "gaussian" a bell of sigma =
    size / 8 with a floor of 1e-3. If one window covers a whole plane, its logits are not changed. Batches are full for any
    number of windows per slice; only the last one of an image may be smaller. No gradients are recorded.

    Volumes have axes ordered R, A, S. For 2-D windows on volumes, ``size`` is along the two axes of the plane, in their order:
    (A, S) for sagittal, (R, S) for coronal, (R, A) for axial.

    Args:
        size: Window, 2 or 3 numbers of pixels or voxels.
        plane: "axial", "coronal" or "sagittal" for 2-D windows on volumes, else None.
        overlap: Least overlap of neighbouring windows as a fraction of the window, 0 <= overlap < 1.
        batch_size: Windows per call of the network.
        blend: "gaussian" or "constant".

    Raises:
        ValueError: An argument is out of range or, at inference, does not fit the image.
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

        The plane's axis for 2-D windows on volumes; for 3-D windows the axis with the most windows, which keeps the
        accumulators smallest; 0 for pictures, which come as one slab.

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
        if len(shape) == 2:
            return 0
        if self.plane is not None:
            return PLANES[self.plane]
        if len(self.size) == 2:
            planes = ", ".join(sorted(PLANES))
            raise ValueError(
                f"{window} is 2-D, the image {list(shape)} a volume, and no plane is given: give one of {planes}"
            )
        return min(range(3), key=lambda axis: self.size[axis] / shape[axis])

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Logits of whole images; ``args`` and ``kwargs`` are passed to the network.

        Returns:
            float32 on the inputs' device, whatever device the network is on; a MetaTensor with the inputs' metadata if the
            inputs are one. The network gets plain tensors.

        Shape: (B, C, *S) -> (B, K, *S).

        Raises:
            ValueError: Window, image and network's output do not fit together.
            TypeError: The network does not return one tensor.
        """
        images = plain(inputs)
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
        # Slabs pay off if the whole must be copied anyway, to its device or into its axis order; else one slab is the result.
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
                del part  # else it would be in memory together with the next slab
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
            TypeError: The network does not return one tensor.
        """
        image = plain(image)
        shape = tuple(image.shape)
        axis = self.stream_axis(shape[1:])
        device = _device_of(network, image) if device is None else torch.device(device)
        if len(shape) == 4:
            return self._slabs(image, axis, network, device)
        picture = torch.as_tensor(image[(slice(None),) * 3])
        slabs = self._slabs(plain(picture)[:, None], 0, network, device)
        return ((slice(0, shape[1]), logits[:, 0]) for _, logits in slabs)

    def _slabs(
        self,
        image: Tensor | SlicedImage,
        axis: int,
        network: Callable[[Tensor], Tensor],
        device: torch.device,
        block: int | None = None,
    ) -> Iterator[tuple[slice, Tensor]]:
        """``stream`` for (C, X, Y, Z), where 2-D windows lie on slices along ``axis``; ``block`` is that of ``Sweep``."""
        sweep = Sweep(
            image,
            axis,
            network,
            device,
            size=self.size,
            overlap=self.overlap,
            batch_size=self.batch_size,
            blend=self.blend,
            block=block,
        )
        yield from sweep.slabs()


def _device_of(network: Callable, image: Any) -> torch.device:
    if isinstance(network, nn.Module):
        for tensor in itertools.chain(network.parameters(), network.buffers()):
            return tensor.device
    return image.device if isinstance(image, Tensor) else torch.device("cpu")
