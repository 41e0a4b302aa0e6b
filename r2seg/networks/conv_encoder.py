"""The encoder of the U-Net family: units at decreasing resolution. Encoders on backbones are in ``torchvision_encoder``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from r2seg.networks.base import by


class ConvEncoder(nn.Module):
    """Units with max-pooling between them; one map per level, the first at the image's own resolution.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Channels of the image.
        channels: Width of each level, the finest first.
        strides: Pooling before each level but the first: a number, or one per axis for anisotropic pooling such as
            [1, 2, 2]. None halves every axis each time.
        unit: Maker of a level, ``unit(in_channels, out_channels)``, that keeps the size.

    Shape: (B, in_channels, *S) -> [(B, channels[i], *floor(S / reductions[i]))].

    Raises:
        ValueError: No channels, a width below 1, or strides that do not fit the channels or the axes.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        channels: Sequence[int],
        strides: Sequence[int | Sequence[int]] | None = None,
        *,
        unit: Callable[[int, int], nn.Module],
    ) -> None:
        super().__init__()
        if not channels or min(channels) < 1:
            raise ValueError(
                f"channels is {list(channels)}: give the width of each level, the finest first, such as [16, 32, 64]"
            )
        per_axis = _strides_per_axis(spatial_dims, len(channels) - 1, strides)
        reductions = [(1,) * spatial_dims]
        for stride in per_axis:
            reductions.append(tuple(before * factor for before, factor in zip(reductions[-1], stride, strict=True)))
        self.channels = tuple(channels)
        self.reductions = tuple(reductions)
        pool = (nn.MaxPool2d, nn.MaxPool3d)[spatial_dims - 2]
        self.pools = nn.ModuleList([nn.Identity()] + [pool(stride, stride) for stride in per_axis])
        self.units = nn.ModuleList(
            unit(before, width) for before, width in zip([in_channels, *channels], channels, strict=False)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        x = image
        for pool, unit in zip(self.pools, self.units):  # noqa: B905 (strict is unknown to TorchScript)
            x = unit(pool(x))
            maps.append(x)
        return maps


def _strides_per_axis(
    spatial_dims: int, num_strides: int, strides: Sequence[int | Sequence[int]] | None
) -> list[tuple[int, ...]]:
    if strides is None:
        return [(2,) * spatial_dims] * num_strides
    if len(strides) != num_strides:
        raise ValueError(
            f"strides has {len(strides)} entries but channels has {num_strides + 1} levels: give one stride between two "
            f"levels, {num_strides} in total"
        )
    per_axis = [(entry,) * spatial_dims if isinstance(entry, int) else tuple(entry) for entry in strides]
    for stride in per_axis:
        if len(stride) != spatial_dims or min(stride) < 1:
            raise ValueError(
                f"strides holds {by(stride)}: give a number from 1, or {spatial_dims} of them, one per spatial axis"
            )
    return per_axis
