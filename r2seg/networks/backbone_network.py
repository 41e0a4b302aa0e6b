"""The base of the networks on a classification backbone: how their encoder is made, and which of its weights came trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from r2seg.networks.base import Encoder, SegmentationNetwork
from r2seg.networks.torchvision_encoder import TorchvisionEncoder


class BackboneNetwork(SegmentationNetwork):
    """A 2-D network on an encoder that may hold trained weights, which can then have a learning rate of their own.

    Args:
        spatial_dims: 2.
        in_channels: Channels of the image; a pretrained stem is adapted to them.
        out_channels: Channels of the logits.
        backbone: A torchvision name such as "resnet34", "vgg16_bn", "densenet121", "convnext_tiny", or "timm:NAME".
        pretrained: True: torchvision's ImageNet weights, fetched once. A path: weights of the backbone in a local file.
            False: random weights.
        freeze_backbone: Train the decoder only; BatchNorm statistics of the backbone stay as well.
        encoder_options: What else the subclass's :meth:`make_encoder` takes.

    Shape: (B, in_channels, H, W) -> (B, out_channels, H, W), any size from ``least_size``.

    Raises:
        ValueError: An option that does not fit; in ``forward``, an image below ``least_size``.
    """

    supported_spatial_dims = (2,)

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        backbone: str | Encoder,
        pretrained: bool | str = False,
        freeze_backbone: bool = False,
        **encoder_options: Any,
    ) -> None:
        super().__init__(spatial_dims, in_channels, out_channels)
        self.encoder = self.make_encoder(backbone, pretrained=pretrained, freeze=freeze_backbone, **encoder_options)
        least = getattr(self.encoder, "least_size", self.encoder.reductions[-1][0])
        self.least_size = (least, least)

    def make_encoder(self, backbone: Any, *, pretrained: bool | str, freeze: bool, **options: Any) -> nn.Module:
        """Return the encoder of a backbone's name; a subclass may take more than names, and more options."""
        return TorchvisionEncoder(
            backbone, in_channels=self.in_channels, pretrained=pretrained, freeze=freeze, **options
        )

    def _finish(self, deepest_norm: str = "none") -> None:
        """Complete a network; ``deepest_norm`` is what its decoder applies to the deepest map, the encoder's own are added."""
        trained = not getattr(self.encoder, "freeze", False)
        if trained and any(isinstance(module, nn.BatchNorm2d) for module in self.encoder.modules()):
            deepest_norm = "instance" if deepest_norm == "instance" else "batch"
        super()._finish(deepest_norm)

    def pretrained_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the encoder's parameters that hold trained weights, frozen or not; none if it started from random ones.

        An adapted stem is among them, as it was derived from the trained one; one that ``load_weights`` reset is not.
        """
        names = set(getattr(self.encoder, "pretrained_names", ()))
        yield from (parameter for name, parameter in self.encoder.named_parameters() if name in names)
