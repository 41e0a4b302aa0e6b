"""A classification backbone of torchvision or timm as an encoder, with ImageNet weights or without.

Intensities are not normalised in here. A network sees what preprocessing made, in training, inference and export alike, and an
image of CT or MR has no ImageNet mean. Pretrained stems were trained on channels of mean 0 and standard deviation 1: a z-score
in preprocessing, or ImageNet's mean and deviation for colour photographs, serves them best.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from r2seg.networks.backbones import least_size, map_shapes, timm_trunk, torchvision_trunk
from r2seg.networks.base import by
from r2seg.networks.pretrained import load_pretrained


class TorchvisionEncoder(nn.Module):
    """A classification backbone without its classifier: image to one map per scale, the finest first.

    Args:
        backbone: A name of ``backbones.backbone_names()``, such as "resnet50", or "timm:NAME".
        in_channels: Image channels C. A pretrained stem is adapted, see ``pretrained.adapt_stem``.
        pretrained: False: random weights, and nothing is ever fetched. True: torchvision's (timm's) default weights, fetched once
            into torch's hub folder. A path: a state dict of the same torchvision (timm) model in a local file.
        freeze: Keep the weights as they are and the backbone in evaluation mode, so that BatchNorm statistics stay as well.

    Attributes:
        channels: Channels of each map, as in ``Encoder``.
        reductions: Reduction of each map per axis, as in ``Encoder``.
        least_size: Smallest number of rows and columns of an image, which leaves the deepest map one pixel.
        pretrained_names: Names of the parameters that hold trained weights: all or none, except after ``load_weights`` with resets.

    Shape: (B, C, H, W) -> [(B, channels[i], about H / reductions[i], about W / reductions[i])].

    Raises:
        ValueError: An unknown name (with the nearest ones), weights that cannot be fetched or do not fit, or, from the forward
            pass, an image smaller than ``least_size``.
    """

    def __init__(
        self, backbone: str, *, in_channels: int = 3, pretrained: bool | str = False, freeze: bool = False
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.freeze = freeze
        if backbone.startswith("timm:"):
            self.trunk = timm_trunk(backbone.removeprefix("timm:"), in_channels, pretrained)
        else:
            self.trunk = torchvision_trunk(backbone, in_channels)
            if pretrained:
                file = None if pretrained is True else Path(pretrained)
                load_pretrained(self.trunk, backbone, in_channels, file)
        self.pretrained_names: list[str] = [name for name, _ in self.named_parameters()] if pretrained else []
        shapes = map_shapes(self.trunk, in_channels, 256)
        if shapes is None:
            raise ValueError(f"backbone {backbone} takes no image of 256 x 256: give one that is not tied to one size")
        self.channels: tuple[int, ...] = tuple(shape[1] for shape in shapes)
        self.reductions: tuple[tuple[int, ...], ...] = tuple((256 // shape[2], 256 // shape[3]) for shape in shapes)
        if any(finer[0] >= coarser[0] for finer, coarser in pairwise(self.reductions)):
            raise ValueError(
                f"backbone {backbone} has maps at reductions {self.reductions}: give one whose maps shrink"
            )
        self.least_size = least_size(self.trunk, in_channels, self.reductions[-1][0])
        if freeze:
            self.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> TorchvisionEncoder:
        """Set training or evaluation mode; a frozen backbone stays in evaluation mode."""
        return super().train(mode and not self.freeze)

    def forward(self, image: Tensor) -> list[Tensor]:
        if not torch.jit.is_scripting():
            self.check_size(image)
        return self.trunk(image)

    @torch.jit.unused
    def check_size(self, image: Tensor) -> None:
        """Refuse an image below ``least_size``, unless a trace records it: sizes are tensors there."""
        if not torch.jit.is_tracing() and min(image.shape[2], image.shape[3]) < self.least_size:
            raise ValueError(
                f"image is {by(image.shape[2:])} pixels: {self.backbone} needs at least {by([self.least_size] * 2)}"
            )

    def torchvision_names(self) -> dict[str, str]:
        """Return torchvision's key for each own one: "trunk.1.layer1.0.conv1.weight" -> "layer1.0.conv1.weight"."""
        return {f"trunk.{key}": name for key, name in self.trunk.torchvision_names().items()}
