"""The two contracts of this room: what an encoder returns and what every segmentation network is.

A network is encoder + decoder + head. The encoder declares the channels and reductions of its maps, so that a decoder is
built without a dummy forward; a decoder resizes to the skip it gets, so that any image size passes.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class Encoder(Protocol):
    """Image to a list of feature maps, the finest first.

    Attributes:
        channels: Feature channels of each map, such as (64, 128, 256, 512).
        reductions: Cumulative reduction of each map per axis, such as ((4, 4), (8, 8), (16, 16), (32, 32)).

    Shape: (B, C, *S) -> [(B, channels[i], *about S / reductions[i])]; sizes are floored or ceiled by the encoder.
    """

    channels: tuple[int, ...]
    reductions: tuple[tuple[int, ...], ...]

    def __call__(self, image: Tensor) -> list[Tensor]: ...


class SegmentationNetwork(nn.Module):
    """Base of every network here: image in, logits on the image's own grid out.

    Subclasses take ``spatial_dims, in_channels, out_channels`` and then their own, JSON-plain options, and build from those
    three alone.

    Shape: (B, in_channels, *S) -> (B, out_channels, *S); always one tensor, always logits.
    """

    spatial_dims: int
    in_channels: int
    out_channels: int

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims is {spatial_dims}: give 2 for images and slices or 3 for volumes")
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
            if value < 1:
                raise ValueError(f"{name} is {value}: give 1 or more")
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.out_channels = out_channels
