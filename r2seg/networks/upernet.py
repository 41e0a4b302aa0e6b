"""UPerNet (Xiao et al., arXiv:1807.10221): a feature pyramid over any encoder, with pyramid pooling on its deepest map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from r2seg.networks.act_norm import Norm, make_act, make_norm, norm_name
from r2seg.networks.backbone_network import BackboneNetwork
from r2seg.networks.base import Encoder
from r2seg.networks.blocks import Unit, make_conv, make_conv_layer
from r2seg.networks.conv_encoder import ConvEncoder
from r2seg.networks.options import check_positive, takes_options_of

# Encoders of our own units, by name: six levels, so that the deepest map is at 1/32 as in a backbone.
_UNITS: dict[str, dict[str, Any]] = {
    "plain": {},
    "residual": {"residual": True},
    "recurrent": {"steps": 2},
    "recurrent_residual": {"steps": 2, "residual": True},
}
_CHANNELS = (16, 32, 64, 128, 256, 512)


class UPerNet(BackboneNetwork):
    """UPerNet: pyramid pooling and a feature pyramid over the maps of any encoder; the logits at 1/4 are resized to the image.

    Large receptive field for little memory: widths of 256 at a quarter of the resolution. For fine vessels choose ``finest: 1``
    or a U-Net. Arguments, shape and errors beyond these are described in
    :class:`~r2seg.networks.backbone_network.BackboneNetwork`.

    Args:
        backbone: A torchvision name such as "resnet50", or "timm:NAME"; or units of our own: ``plain``, ``residual``,
            ``recurrent`` (RU-Net's) or ``recurrent_residual`` (R2U-Net's). In Python, an Encoder as well.
        backbone_options: For units of our own: ``channels`` (default: 16 to 512 in six levels), ``strides``, ``steps``,
            ``norm_per_step`` and the other options of :class:`~r2seg.networks.blocks.Unit`.
        finest: Reduction of the finest map that takes part, at which the logits are computed.
        pyramid_channels: Width of the feature pyramid.
        pool_channels: Width of each pooled map.
        pool_sizes: Bins per axis of each pooled map.
        norm: Normalization in the decoder.
        auxiliary: Add a second head on the second-deepest map, for deep supervision through ``forward_with_auxiliary``; the
            original weights its loss by 0.4.
    """

    @takes_options_of(BackboneNetwork)
    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        backbone: str | Encoder = "resnet50",
        backbone_options: Mapping[str, Any] | None = None,
        finest: int = 4,
        pyramid_channels: int = 256,
        pool_channels: int = 512,
        pool_sizes: Sequence[int] = (1, 2, 3, 6),
        norm: Norm = "batch",
        auxiliary: bool = False,
        **options: Any,
    ) -> None:
        if not pool_sizes or min(pool_sizes) < 1:
            raise ValueError(f"pool_sizes is {list(pool_sizes)}: give bins per axis, such as [1, 2, 3, 6]")
        check_positive(finest=finest, pyramid_channels=pyramid_channels, pool_channels=pool_channels)
        super().__init__(
            spatial_dims, in_channels, out_channels, backbone=backbone, unit_options=backbone_options, **options
        )
        reductions = [max(reduction) for reduction in self.encoder.reductions]
        self.first = sum(reduction < finest for reduction in reductions)
        if len(reductions) - self.first < 2:
            raise ValueError(
                f"finest is {finest} but the encoder's maps are at reductions {reductions}: give one that leaves two"
            )
        widths = self.encoder.channels[self.first :]
        self.decoder = UPerDecoder(
            widths, channels=pyramid_channels, pool_channels=pool_channels, pool_sizes=pool_sizes, norm=norm
        )
        self.head = make_conv(2, pyramid_channels, out_channels, 1, bias=True)
        self.auxiliary_head = (
            nn.Sequential(
                make_conv_layer(2, widths[-2], max(1, widths[-2] // 4), norm=norm),
                make_conv(2, max(1, widths[-2] // 4), out_channels, 1, bias=True),
            )
            if auxiliary
            else None
        )
        self._finish(norm_name(norm))

    def make_encoder(
        self,
        backbone: str | Encoder,
        *,
        pretrained: bool | str,
        freeze: bool,
        unit_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> nn.Module:
        """Return the encoder: units of our own, what the caller made, or else a backbone of torchvision or timm."""
        if isinstance(backbone, str) and backbone not in _UNITS:
            if unit_options:
                raise ValueError(f"backbone_options is for {', '.join(_UNITS)}; {backbone} has none: leave it out")
            return super().make_encoder(backbone, pretrained=pretrained, freeze=freeze, **options)
        if pretrained or freeze:
            raise ValueError(
                f"backbone {backbone} has no pretrained weights to load or keep: leave pretrained and freeze_backbone out"
            )
        return (
            _make_unit_encoder(backbone, self.in_channels, unit_options or {})
            if isinstance(backbone, str)
            else backbone
        )

    def forward(self, image: Tensor) -> Tensor:
        if not torch.jit.is_scripting():
            self.check_image(image)
        return _resize(self.head(self.decoder(self.encoder(image)[self.first :])), image)

    @torch.jit.unused
    def forward_with_auxiliary(self, image: Tensor) -> list[Tensor]:
        """Return the logits and, if built with ``auxiliary``, those of the second head: for training only.

        Shape: (B, in_channels, H, W) -> one or two times (B, out_channels, H, W).
        """
        self.check_image(image)
        maps = self.encoder(image)[self.first :]
        logits = [self.head(self.decoder(maps))]
        if self.auxiliary_head is not None:
            logits.append(self.auxiliary_head(maps[-2]))
        return [_resize(x, image) for x in logits]


class UPerDecoder(nn.Module):
    """Pyramid pooling on the deepest map, a top-down feature pyramid on the others, all fused on the finest.

    Shape: [(B, in_channels[i], *S_i)], finest first -> (B, channels, *S_0).
    """

    def __init__(
        self, in_channels: Sequence[int], *, channels: int, pool_channels: int, pool_sizes: Sequence[int], norm: Norm
    ) -> None:
        super().__init__()
        self.pooling = PyramidPooling(in_channels[-1], pool_channels, pool_sizes, norm)
        self.deepest = make_conv_layer(2, self.pooling.out_channels, channels, norm=norm)
        self.laterals = nn.ModuleList(make_conv_layer(2, width, channels, 1, norm=norm) for width in in_channels[:-1])
        self.smooths = nn.ModuleList(make_conv_layer(2, channels, channels, norm=norm) for _ in in_channels[:-1])
        self.fuse = make_conv_layer(2, len(in_channels) * channels, channels, norm=norm)

    def forward(self, maps: list[Tensor]) -> Tensor:
        x = self.deepest(self.pooling(maps[-1]))
        laterals: list[Tensor] = []
        for index, lateral in enumerate(self.laterals):
            laterals.append(lateral(maps[index]))
        sums: list[Tensor] = [x]
        for index in range(len(laterals)):  # from the second-deepest up
            lateral_map = laterals[len(laterals) - 1 - index]
            x = lateral_map + _resize(x, lateral_map)
            sums.append(x)
        levels: list[Tensor] = []
        for index, smooth in enumerate(self.smooths):  # finest first
            levels.append(_resize(smooth(sums[len(sums) - 1 - index]), laterals[0]))
        levels.append(_resize(sums[0], laterals[0]))
        return self.fuse(torch.cat(levels, dim=1))


class PyramidPooling(nn.Module):
    """The map itself and its averages over 1, 2, 3 and 6 bins per axis, each convolved and resized to the map; concatenated.

    Pyramid pooling of PSPNet (Zhao et al., arXiv:1612.01105), in UPerNet's order: normalization after resizing. The 1x1
    convolution commutes with the resizing, so it runs on the few bins.

    Shape: (B, in_channels, *S) -> (B, in_channels + len(sizes) * channels, *S).
    """

    def __init__(self, in_channels: int, channels: int, sizes: Sequence[int], norm: Norm) -> None:
        super().__init__()
        self.pools = nn.ModuleList(_PooledMap(in_channels, channels, size, norm) for size in sizes)
        self.out_channels = in_channels + len(sizes) * channels

    def forward(self, x: Tensor) -> Tensor:
        maps: list[Tensor] = [x]
        for pool in self.pools:
            maps.append(pool(x))
        return torch.cat(maps, dim=1)


class _PooledMap(nn.Module):
    def __init__(self, in_channels: int, channels: int, size: int, norm: Norm) -> None:
        super().__init__()
        self.size = size
        self.conv = make_conv(2, in_channels, channels, 1, bias=norm_name(norm) == "none")
        self.norm = make_norm(2, channels, norm)
        self.act = make_act("relu", inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(_resize(self.conv(average_bins(x, self.size)), x)))


def average_bins(x: Tensor, num_bins: int) -> Tensor:
    """Return what ``F.adaptive_avg_pool2d`` gives, by two matrix products: the pooling layer would be exported for one size only.

    y = P_h x P_w^T,  row i of P averages pixels floor(i n / k) to ceil((i + 1) n / k), n pixels and k bins.

    Shape: (B, C, H, W) -> (B, C, num_bins, num_bins).
    """
    rows = _averaging_matrix(num_bins, x.shape[2], x)
    columns = _averaging_matrix(num_bins, x.shape[3], x)
    return torch.matmul(torch.matmul(rows, x), columns.transpose(0, 1))


def _averaging_matrix(num_bins: int, num_pixels: int, like: Tensor) -> Tensor:
    bins = torch.arange(num_bins, device=like.device).unsqueeze(1)
    pixels = torch.arange(num_pixels, device=like.device).unsqueeze(0)
    starts = torch.div(bins * num_pixels, num_bins, rounding_mode="floor")
    ends = torch.div((bins + 1) * num_pixels + num_bins - 1, num_bins, rounding_mode="floor")
    inside = ((pixels >= starts) & (pixels < ends)).to(like.dtype)
    return inside / (ends - starts).to(like.dtype)


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=(like.shape[2], like.shape[3]), mode="bilinear", align_corners=False)


def _make_unit_encoder(backbone: str, in_channels: int, options: Mapping[str, Any]) -> ConvEncoder:
    unit_options = _UNITS[backbone] | dict(options)
    channels = unit_options.pop("channels", _CHANNELS)
    strides = unit_options.pop("strides", None)
    try:
        return ConvEncoder(2, in_channels, channels, strides, unit=partial(Unit, 2, **unit_options))
    except TypeError as error:
        raise ValueError(
            f"backbone_options {dict(options)} do not fit {backbone} ({error}): give channels, strides, and options of its unit"
        ) from error
