"""The U-Net decoder, the network it makes with any encoder, and the U-Nets without recurrence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

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
    choose,
    fit_to,
    make_conv,
    make_upsample,
)
from r2seg.networks.encoders import ConvEncoder

CHANNELS = (64, 128, 256, 512, 1024)


class UNetDecoder(nn.Module):
    """From the maps of any :class:`~r2seg.networks.base.Encoder` back to the image's resolution.

    One stage per skip, from the coarsest map up: upsample by the ratio of the two maps' reductions, fit to the skip, gate
    the skip if asked, fuse, convolve. Where the encoder's finest map is coarser than the image, more entries in
    ``channels`` than skips add stages without a skip; together they lead to the image's own grid.

    Args:
        spatial_dims: 2 or 3.
        encoder_channels: The encoder's ``channels``, finest first.
        reductions: The encoder's ``reductions``, finest first.
        channels: Width of each stage's output, **coarsest first** (the order they run in); None mirrors the encoder.
        unit: Maker of a stage's convolutions, ``unit(in_channels, out_channels)``.
        up: Maker of a stage's upsampling, ``up(in_channels, out_channels, stride)`` with one stride per axis.
        gate: Maker of a skip's gate, ``gate(gate_channels, skip_channels)``, or None.
        skip: ``concat`` or ``add``; the sum needs stages as wide as their skips.
        skip_first: Concatenate the skip before the upsampled map, or after it.

    Attributes:
        out_channels: Channels of the result.

    Shape: [(B, encoder_channels[i], *about S / reductions[i])], image (B, C, *S) -> (B, out_channels, *S), or the finest
        map's grid where there are no stages without a skip.

    Raises:
        ValueError: Widths that do not fit the maps, or reductions that are no multiples of each other.
    """

    def __init__(
        self,
        spatial_dims: int,
        encoder_channels: Sequence[int],
        reductions: Sequence[Sequence[int]],
        *,
        channels: Sequence[int] | None = None,
        unit: Callable[[int, int], nn.Module],
        up: Callable[[int, int, Sequence[int]], nn.Module],
        gate: Callable[[int, int], nn.Module] | None = None,
        skip: Skip = "concat",
        skip_first: bool = True,
    ) -> None:
        super().__init__()
        skips = tuple(reversed(encoder_channels[:-1]))
        channels = skips if channels is None else tuple(channels)
        num_more = len(channels) - len(skips)
        if num_more < 0:
            raise ValueError(
                f"the decoder has {len(channels)} widths for {len(skips)} skips: give at least one per skip"
            )
        coarse_to_fine = [tuple(reduction) for reduction in reversed(reductions)]
        strides = [_ratio(coarse, fine) for coarse, fine in pairwise(coarse_to_fine)]
        strides += _split(coarse_to_fine[-1], num_more)
        stages, before = [], encoder_channels[-1]
        for index, (width, stride) in enumerate(zip(channels, strides, strict=True)):
            if index < len(skips):
                stage = _SkipStage(
                    up(before, width, stride),
                    unit(_fused_channels(skip, width, skips[index]), width),
                    gate(width, skips[index]) if gate else None,
                    add=choose("skip", skip, {"concat": False, "add": True}),
                    skip_first=skip_first,
                )
            else:
                stage = nn.Sequential(up(before, width, stride), unit(width, width))
            stages.append(stage)
            before = width
        self.stages = nn.ModuleList(stages[: len(skips)])
        self.last_stages = nn.ModuleList(stages[len(skips) :])
        self.out_channels = before

    def forward(self, maps: list[Tensor], image: Tensor) -> Tensor:
        x = maps[-1]
        for index, stage in enumerate(self.stages):
            x = stage(x, maps[len(maps) - 2 - index])
        for stage in self.last_stages:
            x = stage(x)
        if len(self.last_stages) > 0:
            x = fit_to(x, image)
        return x


class _SkipStage(nn.Module):
    """One step up: upsample, fit to the skip, gate it, fuse, convolve."""

    __constants__ = ["add", "gated", "skip_first"]

    def __init__(self, up: nn.Module, unit: nn.Module, gate: nn.Module | None, *, add: bool, skip_first: bool) -> None:
        super().__init__()
        self.up = up
        self.unit = unit
        self.gated = gate is not None
        if gate is not None:
            self.gate = gate
        self.add = add
        self.skip_first = skip_first

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = fit_to(self.up(x), skip)
        if self.gated:
            skip = self.gate(x, skip)
        if self.add:
            x = skip + x
        elif self.skip_first:
            x = torch.cat((skip, x), dim=1)
        else:
            x = torch.cat((x, skip), dim=1)
        return self.unit(x)


class UNet(SegmentationNetwork):
    """Units down, units up, skips between, a 1x1 convolution to the logits: what the U-Nets here have in common.

    The named networks choose the unit; their options are described in :class:`PlainUNet`.
    """

    attention: bool = False

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        channels: Sequence[int],
        strides: Sequence[int | Sequence[int]] | None,
        skip: Skip,
        upsample: Upsample,
        act: Act,
        norm: Norm,
        **unit_options,
    ) -> None:
        super().__init__(spatial_dims, in_channels, out_channels)
        unit = partial(Unit, spatial_dims, act=act, norm=norm, **unit_options)
        up = partial(make_upsample, spatial_dims, upsample=upsample, act=act, norm=norm)
        gate = partial(AttentionGate, spatial_dims, norm=norm) if self.attention else None
        self.encoder = ConvEncoder(spatial_dims, in_channels, channels, strides, unit=unit)
        self.decoder = UNetDecoder(
            spatial_dims, self.encoder.channels, self.encoder.reductions, unit=unit, up=up, gate=gate, skip=skip
        )
        self.head = make_conv(spatial_dims, self.decoder.out_channels, out_channels, 1, bias=True)
        self.norm = norm
        self.least_size = self.encoder.reductions[-1]
        # Channels-last kernels make every map channels-last: a training step on a CPU takes a fifth to a quarter less time.
        self.to(memory_format=(torch.channels_last, torch.channels_last_3d)[spatial_dims - 2])

    def forward(self, image: Tensor) -> Tensor:
        if not torch.jit.is_scripting():
            self.check_image(image)
        return self.head(self.decoder(self.encoder(image), image))

    @torch.jit.unused
    def check_image(self, image: Tensor) -> None:
        """Refuse what the base class refuses, and a deepest level with nothing to normalize over."""
        super().check_image(image)
        if torch.jit.is_tracing() or not (self.norm == "instance" or (self.norm == "batch" and self.training)):
            return
        num_values = 1 if self.norm == "instance" else image.shape[0]
        for size, reduction in zip(image.shape[2:], self.least_size, strict=True):
            num_values *= size // reduction
        if num_values < 2:
            larger = (*self.least_size[:-1], 2 * self.least_size[-1])
            batch = "" if self.norm == "instance" else ", or two images a batch"
            raise ValueError(
                f"image is {by(image.shape[2:])} pixels, one at the deepest level, and {self.norm} norm needs two "
                f"there: give at least {by(larger)}{batch}"
            )


class PlainUNet(UNet):
    """U-Net: two convolutions a level (Ronneberger et al., arXiv:1505.04597), padded so that sizes stay.

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

    Shape: (B, in_channels, *S) -> (B, out_channels, *S), any S from ``least_size``.

    Raises:
        ValueError: An option that does not fit; in ``forward``, an image that is too small, naming the least size.
    """

    residual: bool = False

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        channels: Sequence[int] = CHANNELS,
        strides: Sequence[int | Sequence[int]] | None = None,
        act: Act = "relu",
        norm: Norm = "batch",
        dropout: float = 0.0,
        upsample: Upsample = "deconv",
        skip: Skip = "concat",
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__(
            spatial_dims,
            in_channels,
            out_channels,
            channels=channels,
            strides=strides,
            act=act,
            norm=norm,
            dropout=dropout,
            upsample=upsample,
            skip=skip,
            checkpoint_activations=checkpoint_activations,
            residual=self.residual,
        )


class ResidualUNet(PlainUNet):
    """U-Net of residual units, y = x' + F(x') with x' the projected input: R2U-Net without its recurrence.

    Options as in :class:`PlainUNet`.
    """

    residual = True


class AttentionUNet(PlainUNet):
    """U-Net with an attention gate on every skip (Oktay et al., arXiv:1804.03999).

    Options as in :class:`PlainUNet`.
    """

    attention = True


def _fused_channels(skip: Skip, width: int, skip_width: int) -> int:
    if skip == "add" and width != skip_width:
        raise ValueError(
            f"skip 'add' cannot add {width} decoder channels to {skip_width} of the encoder: make them equal"
        )
    return width if skip == "add" else width + skip_width


def _ratio(coarse: tuple[int, ...], fine: tuple[int, ...]) -> tuple[int, ...]:
    if any(big % small for big, small in zip(coarse, fine, strict=True)):
        raise ValueError(
            f"reductions {by(coarse)} and {by(fine)} of two neighbouring maps are no multiples of each other"
        )
    return tuple(big // small for big, small in zip(coarse, fine, strict=True))


def _split(reduction: tuple[int, ...], num_stages: int) -> list[tuple[int, ...]]:
    """Split a reduction into one stride per stage: (4, 4) in two stages is (2, 2), (2, 2)."""
    strides = []
    for left in range(num_stages, 0, -1):
        stride = tuple(length if left == 1 else min(length, 2) for length in reduction)
        reduction = _ratio(reduction, stride)
        strides.append(stride)
    return strides
