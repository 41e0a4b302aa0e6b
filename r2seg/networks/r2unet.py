"""The recurrent U-Nets of Alom et al., arXiv:1802.06955: RU-Net, R2U-Net, and R2U-Net with attention gates."""

from __future__ import annotations

from typing import Any

from r2seg.networks.blocks import Unit
from r2seg.networks.options import takes_options_of
from r2seg.networks.unet import UNet


class R2UNet(UNet):
    """R2U-Net: units of two recurrent convolutional layers with a residual (Alom et al., arXiv:1802.06955).

    Args:
        spatial_dims: 2 or 3.
        in_channels: Channels of the image.
        out_channels: Channels of the logits.
        steps: Recurrent passes after the feed-forward one, the paper's t; 0 gives the ResidualUNet.
        recurrence: ``separate`` has the paper's two kernels, for the input and for the state; ``shared`` one for both, as in
            much public code.
        norm_per_step: One normalization per pass; a single one for all of them spoils evaluation with batch norm.
        residual: Add a unit's projected input to its output; without it, this is the RUNet.
        options: As in :class:`~r2seg.networks.unet.UNet`. ``checkpoint_activations`` brings the memory of a step down to
            that of a plain U-Net.

    Shape: (B, in_channels, *S) -> (B, out_channels, *S), any S from ``least_size``.

    Raises:
        ValueError: An option that does not fit; in ``forward``, an image that is too small, naming the least size.
    """

    @takes_options_of(UNet, Unit)
    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        steps: int = 2,
        residual: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(spatial_dims, in_channels, out_channels, steps=steps, residual=residual, **options)


class RUNet(R2UNet):
    """RU-Net: R2U-Net without the residual (Alom et al., arXiv:1802.06955). Options as in :class:`R2UNet`."""

    @takes_options_of(R2UNet)
    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, *, residual: bool = False, **options: Any
    ) -> None:
        super().__init__(spatial_dims, in_channels, out_channels, residual=residual, **options)


class AttentionR2UNet(R2UNet):
    """R2U-Net with an attention gate on every skip (gates: Oktay et al., arXiv:1804.03999). Options as in :class:`R2UNet`."""

    attention = True
