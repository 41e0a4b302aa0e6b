"""The two contracts of this package: what an encoder returns and what every segmentation network is.

A network is encoder + decoder + head. The encoder declares the channels and reductions of its maps, so that a decoder is
built without a dummy forward pass; a decoder fits what it upsampled to the skip it gets, so that any image size passes.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from r2seg.networks.options import SIZES


@runtime_checkable
class Encoder(Protocol):
    """Image to a list of feature maps, the finest first.

    Attributes:
        channels: Feature channels of each map, such as (64, 128, 256, 512).
        reductions: Cumulative reduction of each map per axis, such as ((4, 4), (8, 8), (16, 16), (32, 32)).

    Shape: (B, C, *S) -> [(B, channels[i], *about S / reductions[i])]; sizes are rounded down or up by the encoder.
    """

    channels: tuple[int, ...]
    reductions: tuple[tuple[int, ...], ...]

    def __call__(self, image: Tensor) -> list[Tensor]: ...


class SegmentationNetwork(nn.Module):
    """Base of every network here: image in, logits on the image's own grid out.

    Subclasses take ``spatial_dims, in_channels, out_channels`` and then their own, JSON-plain options, and build from those
    three alone. They have an ``encoder``, set ``least_size``, call :meth:`_finish` at the end of their constructor, and
    :meth:`check_image` first in ``forward``.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Channels of the image.
        out_channels: Channels of the logits.

    Attributes:
        supported_spatial_dims: What the class takes as ``spatial_dims``: (2, 3), or (2,) for networks on 2-D backbones.
        least_size: Smallest image that the deepest level can still represent, pixels per axis.
        deepest_norm: Normalization of the deepest map: ``batch``, ``instance``, ``group`` or ``none``.
        given_options: Options the network was built with, by name, without the three that all share.

    Shape: (B, in_channels, *S) -> (B, out_channels, *S); always one tensor, always logits.

    Raises:
        ValueError: A number of axes or channels that the class does not take.
    """

    supported_spatial_dims: tuple[int, ...] = (2, 3)
    if TYPE_CHECKING:  # TorchScript would read this annotation, and fails on it
        given_options: dict[str, Any]

    def __new__(cls, *arguments: Any, **options: Any) -> SegmentationNetwork:
        network = super().__new__(cls)
        # Set here, so that no subclass has to; copying and unpickling call this without arguments and restore it themselves.
        if arguments or options:
            given = inspect.signature(cls.__init__).bind_partial(network, *arguments, **options).arguments
            kept = {name: value for name, value in list(given.items())[1:] if name not in SIZES}
            object.__setattr__(network, "given_options", kept)  # nn.Module's own needs __init__ first
        return network

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        if spatial_dims not in self.supported_spatial_dims:
            choices = {2: "2 for images and slices", 3: "3 for volumes"}
            give = " or ".join(choices[dims] for dims in self.supported_spatial_dims)
            raise ValueError(f"spatial_dims is {spatial_dims}: {type(self).__name__} takes {give}")
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
            if value < 1:
                raise ValueError(f"{name} is {value}: give 1 or more")
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.least_size: tuple[int, ...] = (1,) * spatial_dims
        self.deepest_norm = "none"

    def _finish(self, deepest_norm: str = "none") -> None:
        """Complete a network whose parts are all there: its memory format, and the norm that :meth:`check_image` asks about."""
        self.deepest_norm = deepest_norm
        # Channels-last kernels make every map channels-last: a training step on a CPU takes a fifth to a quarter less time.
        self.to(memory_format=(torch.channels_last, torch.channels_last_3d)[self.spatial_dims - 2])

    @torch.jit.unused
    def forward_with_auxiliary(self, image: Tensor) -> list[Tensor]:
        """Return the logits and, from networks built with auxiliary heads, those of the heads: for training only.

        Shape: (B, in_channels, *S) -> [(B, out_channels, *S)], the network's own logits first.
        """
        return [self(image)]

    @torch.jit.unused
    def check_image(self, image: Tensor) -> None:
        """Refuse an image that this network cannot take; say what it takes.

        Raises:
            ValueError: The image has another number of axes or channels, is smaller than ``least_size``, or leaves the
                deepest map a single value per channel where its normalization needs two.
        """
        if torch.jit.is_tracing():  # sizes are tensors there; comparing them would freeze them into the trace
            return
        if image.ndim != self.spatial_dims + 2:
            raise ValueError(
                f"image has {image.ndim} axes: {type(self).__name__} with spatial_dims {self.spatial_dims} takes "
                f"(batch, channels, {self.spatial_dims} spatial axes)"
            )
        if image.shape[1] != self.in_channels:
            raise ValueError(
                f"image has {image.shape[1]} channels but {type(self).__name__} was built with in_channels {self.in_channels}"
            )
        size = image.shape[2:]
        if any(given < least for given, least in zip(size, self.least_size, strict=True)):
            raise ValueError(
                f"image is {by(size)} pixels: {type(self).__name__} needs at least {by(self.least_size)}; "
                "pad the image or use fewer levels"
            )
        if self.deepest_norm == "instance" or (self.deepest_norm == "batch" and self.training):
            self._check_deepest_map(image)

    def _check_deepest_map(self, image: Tensor) -> None:
        reduction = self.encoder.reductions[-1]
        num_values = 1 if self.deepest_norm == "instance" else image.shape[0]
        # least_size leaves the deepest map one pixel, and each further reduction adds another.
        for length, least, factor in zip(image.shape[2:], self.least_size, reduction, strict=True):
            num_values *= 1 + (length - least) // factor
        if num_values < 2:
            larger = (*self.least_size[:-1], self.least_size[-1] + reduction[-1])
            batch = "" if self.deepest_norm == "instance" else ", or two images per batch"
            raise ValueError(
                f"image is {by(image.shape[2:])} pixels, one in the deepest map, and {self.deepest_norm} norm needs two "
                f"there: give at least {by(larger)}{batch}"
            )


def by(size: Iterable[int]) -> str:
    """Return a size in words: (16, 32) -> "16 x 32"."""
    return " x ".join(str(int(length)) for length in size)
