"""U-Net on any classification backbone of torchvision (or timm), after mkisantal/backboned-unet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from r2seg.networks.act_norm import Norm, make_norm, norm_name
from r2seg.networks.backbone_network import BackboneNetwork
from r2seg.networks.blocks import fit_to, make_conv, make_conv_layer
from r2seg.networks.options import check_positive, choose, takes_options_of


class BackbonedUNet(BackboneNetwork):
    """U-Net whose encoder is a classification backbone, pretrained if asked for: the usual choice for small colour data sets.

    Each block of the decoder doubles the size, joins the backbone's map of that size if there is one, and convolves, up to
    the image's own grid. Structure and defaults follow the public code of mkisantal/backboned-unet. Arguments, shape and errors
    beyond these are described in :class:`~r2seg.networks.backbone_network.BackboneNetwork`.

    Args:
        decoder_channels: Width of each block, coarsest first, one for each halving down to the deepest map.
        upsample: ``deconv``: transposed convolution (kernel 4), then one convolution. ``bilinear``: interpolation, then two
            convolutions.
        decoder_norm: Normalization in the decoder.
        skips: Reductions whose maps join the decoder, such as [4, 8, 16]; None takes all, [] none.
    """

    @takes_options_of(BackboneNetwork)
    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        backbone: str = "resnet34",
        decoder_channels: Sequence[int] = (256, 128, 64, 32, 16),
        upsample: Literal["deconv", "bilinear"] = "deconv",
        decoder_norm: Norm = "batch",
        skips: Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        check_positive(decoder_channels=decoder_channels)
        super().__init__(spatial_dims, in_channels, out_channels, backbone=backbone, **options)
        reductions = [rows for rows, _ in self.encoder.reductions]
        num_blocks = reductions[-1].bit_length() - 1
        if len(decoder_channels) != num_blocks:
            raise ValueError(
                f"decoder_channels has {len(decoder_channels)} widths but {backbone} reduces by {reductions[-1]}: "
                f"give {num_blocks}, one for each doubling"
            )
        joined = reductions[:-1] if skips is None else list(skips)
        if not set(joined) <= set(reductions[:-1]):
            raise ValueError(
                f"skips is {joined} but {backbone} has maps at reductions {reductions[:-1]}: choose from those"
            )
        blocks, before = [], self.encoder.channels[-1]
        for index, width in enumerate(decoder_channels):
            reduction = 2 ** (num_blocks - 1 - index)
            level = reductions.index(reduction) if reduction in reductions else -1
            skip_channels = self.encoder.channels[level] if reduction in joined else 0
            blocks.append(_UpBlock(before, skip_channels, width, level, reduction == 1, upsample, decoder_norm))
            before = width
        self.decoder = nn.ModuleList(blocks)
        self.head = make_conv(2, before, out_channels, 1, bias=True)
        self._finish()

    def forward(self, image: Tensor) -> Tensor:
        if not torch.jit.is_scripting():
            self.check_image(image)
        maps = self.encoder(image)
        x = maps[-1]
        for block in self.decoder:
            x = block(x, maps, image)
        return self.head(x)


class _UpBlock(nn.Module):
    """Double the size, fit it to the encoder's map of that size (or, at the end, to the image), join the map, convolve."""

    __constants__ = ["is_last", "joins", "level"]

    def __init__(
        self, in_channels: int, skip_channels: int, width: int, level: int, is_last: bool, upsample: str, norm: Norm
    ) -> None:
        super().__init__()
        self.level = level
        self.joins = skip_channels > 0
        self.is_last = is_last
        if choose("upsample", upsample, {"deconv": True, "bilinear": False}):
            deconv = nn.ConvTranspose2d(in_channels, width, 4, stride=2, padding=1, bias=norm_name(norm) == "none")
            self.up = nn.Sequential(deconv, make_norm(2, width, norm), nn.ReLU(inplace=True))
            self.convs = nn.Sequential(make_conv_layer(2, width + skip_channels, width, norm=norm))
        else:
            self.up = nn.Upsample(scale_factor=2.0, mode="bilinear")
            self.convs = nn.Sequential(
                make_conv_layer(2, in_channels + skip_channels, width, norm=norm),
                make_conv_layer(2, width, width, norm=norm),
            )

    def forward(self, x: Tensor, maps: list[Tensor], image: Tensor) -> Tensor:
        x = self.up(x)
        if self.level >= 0:
            x = fit_to(x, maps[self.level])
            if self.joins:
                x = torch.cat((x, maps[self.level]), dim=1)
        elif self.is_last:
            x = fit_to(x, image)
        return self.convs(x)
