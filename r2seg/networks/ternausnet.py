"""TernausNet (Iglovikov & Shvets, arXiv:1801.05746): U-Net on VGG11, and its well-known sequel on VGG16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from r2seg.networks.blocks import choose, fit_to, make_conv, make_conv_layer
from r2seg.networks.torchvision_encoder import BackboneNetwork, TorchvisionEncoder

# Output widths of the deconvolutions from the deepest map up, in units of num_filters: the authors' two networks differ.
_WIDTHS = {"vgg11": (8, 8, 4, 2, 1), "vgg16": (8, 8, 8, 2, 1)}
_MIDDLE_WIDTHS = (16, 16, 16, 8, 4)


class TernausNet(BackboneNetwork):
    """U-Net on a plain VGG without normalization: five skips, the deepest map pooled once more.

    Without BatchNorm the scale of the image matters: standardise it in preprocessing.

    Args:
        spatial_dims: 2.
        in_channels: Channels of the image; a pretrained stem is adapted to them.
        out_channels: Channels of the logits.
        backbone: ``vgg11``, the paper's, or ``vgg16``.
        pretrained: Torchvision's ImageNet weights (fetched once), a local file with such, or none.
        freeze_backbone: Train the decoder only.
        num_filters: Unit of the decoder's widths.
        upsample: ``deconv``: transposed convolutions, as in the paper. ``bilinear``: interpolation and two convolutions, which
            leaves no checkerboard.

    Shape: (B, in_channels, H, W) -> (B, out_channels, H, W), any size from 32 x 32.

    Raises:
        ValueError: An option that does not fit, or an image below ``least_size``.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        backbone: Literal["vgg11", "vgg16"] = "vgg11",
        pretrained: bool | str = False,
        freeze_backbone: bool = False,
        num_filters: int = 32,
        upsample: Literal["deconv", "bilinear"] = "deconv",
    ) -> None:
        super().__init__(spatial_dims, in_channels, out_channels)
        if num_filters < 1:
            raise ValueError(f"num_filters is {num_filters}: give 1 or more")
        widths = [num_filters * width for width in choose("backbone", backbone, _WIDTHS)]
        # The two networks' deconvolutions both double the size, by different kernels.
        kernel = {"vgg11": {"kernel_size": 3, "output_padding": 1}, "vgg16": {"kernel_size": 4}}[backbone]
        make_block = choose("upsample", upsample, {"deconv": _deconv_block(kernel), "bilinear": _bilinear_block})
        self.encoder = TorchvisionEncoder(
            backbone, in_channels=in_channels, pretrained=pretrained, freeze=freeze_backbone
        )
        skips = self.encoder.channels[-2::-1]  # coarsest first
        blocks, before = [], self.encoder.channels[-1]
        for width, middle, skip in zip(widths, _MIDDLE_WIDTHS, skips, strict=True):
            blocks.append(make_block(before, num_filters * middle, width))
            before = width + skip
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
