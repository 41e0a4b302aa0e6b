"""TernausNet (Iglovikov & Shvets, arXiv:1801.05746): U-Net on VGG11, and its well-known sequel on VGG16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from r2seg.networks.backbone_network import BackboneNetwork
from r2seg.networks.blocks import fit_to, make_conv, make_conv_layer
from r2seg.networks.options import choose, takes_options_of

# Output widths of the deconvolutions from the deepest map up, in units of num_filters, and their kernel, which doubles the size
# in either: the authors' two networks differ.
_DECODERS: dict[str, tuple[tuple[int, ...], dict[str, int]]] = {
    "vgg11": ((8, 8, 4, 2, 1), {"kernel_size": 3, "output_padding": 1}),
    "vgg16": ((8, 8, 8, 2, 1), {"kernel_size": 4}),
}
_MIDDLE_WIDTHS = (16, 16, 16, 8, 4)


class TernausNet(BackboneNetwork):
    """U-Net on a plain VGG without normalization: five skips, the deepest map pooled once more.

    Without BatchNorm the scale of the image matters: standardise it in preprocessing. Arguments, shape and errors beyond these
    are described in :class:`~r2seg.networks.backbone_network.BackboneNetwork`.

    Args:
        backbone: ``vgg11``, the paper's, or ``vgg16``.
        num_filters: Unit of the decoder's widths.
        upsample: ``deconv``: transposed convolutions, as in the paper. ``bilinear``: interpolation and two convolutions, which
            leaves no checkerboard.
    """

    @takes_options_of(BackboneNetwork)
    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        backbone: Literal["vgg11", "vgg16"] = "vgg11",
        num_filters: int = 32,
        upsample: Literal["deconv", "bilinear"] = "deconv",
        **options: Any,
    ) -> None:
        if num_filters < 1:
            raise ValueError(f"num_filters is {num_filters}: give 1 or more")
        widths, kernel = choose("backbone", backbone, _DECODERS)
        make_block = choose("upsample", upsample, {"deconv": _deconv_block(kernel), "bilinear": _bilinear_block})
        super().__init__(spatial_dims, in_channels, out_channels, backbone=backbone, **options)
        skips = self.encoder.channels[-2::-1]  # coarsest first
        blocks, before = [], self.encoder.channels[-1]
        for width, middle, skip in zip(widths, _MIDDLE_WIDTHS, skips, strict=True):
            blocks.append(make_block(before, num_filters * middle, num_filters * width))
            before = num_filters * width + skip
        self.decoder = nn.ModuleList(blocks)
        self.last = make_conv_layer(2, before, num_filters, norm="none")
        self.head = make_conv(2, num_filters, out_channels, 1, bias=True)
        self._finish()

    def forward(self, image: Tensor) -> Tensor:
        if not torch.jit.is_scripting():
            self.check_image(image)
        maps = self.encoder(image)
        x = maps[-1]
        for index, block in enumerate(self.decoder):
            skip = maps[len(maps) - 2 - index]
            x = torch.cat((fit_to(block(x), skip), skip), dim=1)
        return self.head(self.last(x))


def _deconv_block(kernel: dict[str, int]) -> Callable[[int, int, int], nn.Module]:
    def make(in_channels: int, middle: int, out_channels: int) -> nn.Module:
        return nn.Sequential(
            *make_conv_layer(2, in_channels, middle, norm="none"),
            nn.ConvTranspose2d(middle, out_channels, stride=2, padding=1, **kernel),
            nn.ReLU(inplace=True),
        )

    return make


def _bilinear_block(in_channels: int, middle: int, out_channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Upsample(scale_factor=2.0, mode="bilinear"),
        *make_conv_layer(2, in_channels, middle, norm="none"),
        *make_conv_layer(2, middle, out_channels, norm="none"),
    )
