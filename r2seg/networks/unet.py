"""The U-Net decoder, the base of the U-Nets of our own units, and those of them without recurrence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from r2seg.networks.base import SegmentationNetwork, by
from r2seg.networks.blocks import (
    Act,
    AttentionGate,
    Norm,
    Skip,
    Unit,
    Upsample,
    fit_to,
    make_conv,
    make_upsample,
    norm_name,
)
from r2seg.networks.conv_encoder import ConvEncoder
from r2seg.networks.options import choose, takes_options_of


class UNetDecoder(nn.Module):
    """From the maps of any :class:`~r2seg.networks.base.Encoder` back to the resolution of the finest one.

    One stage per skip, from the coarsest map up: upsample by the ratio of the two maps' reductions, fit to the skip, gate
    the skip if asked for, join the two, convolve. Each stage is as wide as its skip.

    Args:
        encoder_channels: The encoder's ``channels``, finest first.
        reductions: The encoder's ``reductions``, finest first.
        unit: Maker of a stage's convolutions, ``unit(in_channels, out_channels)``.
        up: Maker of a stage's upsampling, ``up(in_channels, out_channels, stride)`` with one stride per axis.
        gate: Maker of a skip's gate, ``gate(gate_channels, skip_channels)``, or None.
        skip: ``concat``, the skip first, or ``add``.

    Attributes:
        out_channels: Channels of the result.

    Shape: [(B, encoder_channels[i], *about S / reductions[i])] -> (B, encoder_channels[0], *size of the finest map).

    Raises:
        ValueError: An unknown ``skip``, or reductions that are not multiples of each other.
    """

    def __init__(
        self,
        encoder_channels: Sequence[int],
        reductions: Sequence[Sequence[int]],
        *,
        unit: Callable[[int, int], nn.Module],
        up: Callable[[int, int, Sequence[int]], nn.Module],
        gate: Callable[[int, int], nn.Module] | None = None,
        skip: Skip = "concat",
    ) -> None:
        super().__init__()
        add = choose("skip", skip, {"concat": False, "add": True})
        coarse_to_fine = [tuple(reduction) for reduction in reversed(reductions)]
        strides = [_ratio(coarse, fine) for coarse, fine in pairwise(coarse_to_fine)]
        stages = []
        for (before, width), stride in zip(pairwise(reversed(encoder_channels)), strides, strict=True):
            stage = _Stage(
                up(before, width, stride),
                unit(width if add else 2 * width, width),
                gate(width, width) if gate else None,
                add=add,
            )
            stages.append(stage)
        self.stages = nn.ModuleList(stages)
        self.out_channels = encoder_channels[0]

    def forward(self, maps: list[Tensor]) -> Tensor:
        x = maps[-1]
        for index, stage in enumerate(self.stages):
            x = stage(x, maps[len(maps) - 2 - index])
        return x


class _Stage(nn.Module):
    """One step up: upsample, fit to the skip, gate the skip, join the two, convolve."""

    __constants__ = ["add", "gated"]

    def __init__(self, up: nn.Module, unit: nn.Module, gate: nn.Module | None, *, add: bool) -> None:
        super().__init__()
        self.up = up
        self.unit = unit
        self.gated = gate is not None
        if gate is not None:
            self.gate = gate
        self.add = add

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = fit_to(self.up(x), skip)
        if self.gated:
            skip = self.gate(x, skip)
        if self.add:
            x = skip + x
        else:
            x = torch.cat((skip, x), dim=1)
        return self.unit(x)


class UNet(SegmentationNetwork):
    """Units down, units up, skips between, a 1x1 convolution to the logits: what the U-Nets here have in common.

    The named networks choose the unit.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Channels of the image.
        out_channels: Channels of the logits.
        channels: Width of each level, the finest first.
        strides: Pooling between two levels: a number, or one per axis for anisotropic pooling such as [1, 2, 2]; None
            halves every axis each time.
        act: ``relu, leaky_relu, elu, gelu, silu`` or ``prelu``.
        norm: ``batch, instance, group`` or ``none``. Instance or group for batches of one or two volumes.
        dropout: Probability that a whole channel of a unit's output is zeroed in training.
        upsample: ``deconv`` (transposed convolution), or ``nearest`` or ``linear`` interpolation and a convolution.
        skip: ``concat`` or ``add`` the encoder's map to the decoder's.
        checkpoint_activations: Compute the units again in the backward pass instead of keeping their activations: about
            a third more time, far less memory, the same weights.
        unit_options: What the named network gives its :class:`~r2seg.networks.blocks.Unit` beyond these.

    Shape: (B, in_channels, *S) -> (B, out_channels, *S), any S from ``least_size``.

    Raises:
        ValueError: An option that does not fit; in ``forward``, an image that is too small, naming the least size.
    """

    attention: bool = False

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        channels: Sequence[int] = (64, 128, 256, 512, 1024),
        strides: Sequence[int | Sequence[int]] | None = None,
        act: Act = "relu",
        norm: Norm = "batch",
        dropout: float = 0.0,
        upsample: Upsample = "deconv",
        skip: Skip = "concat",
        checkpoint_activations: bool = False,
        **unit_options: Any,
    ) -> None:
        super().__init__(spatial_dims, in_channels, out_channels)
        unit_options |= {"dropout": dropout, "checkpoint_activations": checkpoint_activations}
        unit = partial(Unit, spatial_dims, act=act, norm=norm, **unit_options)
        up = partial(make_upsample, spatial_dims, upsample=upsample, act=act, norm=norm)
        gate = partial(AttentionGate, spatial_dims, norm=norm) if self.attention else None
        self.encoder = ConvEncoder(spatial_dims, in_channels, channels, strides, unit=unit)
        self.decoder = UNetDecoder(
            self.encoder.channels, self.encoder.reductions, unit=unit, up=up, gate=gate, skip=skip
        )
        self.head = make_conv(spatial_dims, self.decoder.out_channels, out_channels, 1, bias=True)
        self.least_size = self.encoder.reductions[-1]
        self._finish(norm_name(norm))

    def forward(self, image: Tensor) -> Tensor:
        if not torch.jit.is_scripting():
            self.check_image(image)
        return self.head(self.decoder(self.encoder(image)))


class PlainUNet(UNet):
    """U-Net: two convolutions per level (Ronneberger et al., arXiv:1505.04597), padded so that sizes stay.

    Options as in :class:`UNet`.
    """

    residual: bool = False

    @takes_options_of(UNet)
    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, **options: Any) -> None:
        super().__init__(spatial_dims, in_channels, out_channels, residual=self.residual, **options)


class ResidualUNet(PlainUNet):
    """U-Net of residual units, y = x' + F(x') with x' the projected input: R2U-Net without its recurrence.

    Options as in :class:`UNet`.
    """

    residual = True


class AttentionUNet(PlainUNet):
    """U-Net with an attention gate on every skip (Oktay et al., arXiv:1804.03999).

    Options as in :class:`UNet`.
    """

    attention = True


def _ratio(coarse: tuple[int, ...], fine: tuple[int, ...]) -> tuple[int, ...]:
    if any(big % small for big, small in zip(coarse, fine, strict=True)):
        raise ValueError(
            f"reductions {by(coarse)} and {by(fine)} of two neighbouring maps are not multiples of each other"
        )
    return tuple(big // small for big, small in zip(coarse, fine, strict=True))
