"""The pieces networks are made of: convolution layers, recurrent residual units, upsampling, the attention gate.

Every piece works on 2 or 3 spatial axes and takes any size. How pieces make an encoder, a decoder or a network is in the
other modules of this package.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from r2seg.networks.act_norm import Act, Norm, groups_within, make_act, make_norm, norm_name
from r2seg.networks.options import choose, takes_options_of

Upsample = Literal["deconv", "nearest", "linear"]
Recurrence = Literal["separate", "shared"]
Skip = Literal["concat", "add"]


def make_conv(spatial_dims: int, in_channels: int, out_channels: int, kernel: int = 3, *, bias: bool) -> nn.Module:
    """Return a convolution that keeps the size; ``kernel`` is odd."""
    conv = (nn.Conv2d, nn.Conv3d)[spatial_dims - 2]
    return conv(in_channels, out_channels, kernel, padding=kernel // 2, bias=bias)


def make_conv_layer(
    spatial_dims: int, in_channels: int, out_channels: int, kernel: int = 3, *, act: Act = "relu", norm: Norm = "batch"
) -> nn.Sequential:
    """Return convolution, normalization, activation; the convolution has a bias only where no normalization follows.

    Shape: (B, in_channels, *S) -> (B, out_channels, *S).
    """
    return nn.Sequential(
        make_conv(spatial_dims, in_channels, out_channels, kernel, bias=norm_name(norm) == "none"),
        make_norm(spatial_dims, out_channels, norm),
        make_act(act, inplace=True),
    )


def make_upsample(
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    stride: Sequence[int],
    *,
    upsample: Upsample = "deconv",
    act: Act = "relu",
    norm: Norm = "batch",
) -> nn.Module:
    """Return the way up from one level to the next finer one.

    ``deconv`` is a transposed convolution with kernel = stride; ``nearest`` and ``linear`` interpolate and then convolve
    (3, normalization, activation), which leaves no checkerboard.

    Shape: (B, in_channels, *S) -> (B, out_channels, *S * stride).
    """
    stride = tuple(stride)
    modes = {"deconv": "", "nearest": "nearest", "linear": ("bilinear", "trilinear")[spatial_dims - 2]}
    mode = choose("upsample", upsample, modes)
    if upsample == "deconv":
        return (nn.ConvTranspose2d, nn.ConvTranspose3d)[spatial_dims - 2](in_channels, out_channels, stride, stride)
    scale = tuple(float(factor) for factor in stride)
    layer = make_conv_layer(spatial_dims, in_channels, out_channels, act=act, norm=norm)
    return nn.Sequential(nn.Upsample(scale_factor=scale, mode=mode), *layer)


def fit_to(x: Tensor, like: Tensor) -> Tensor:
    """Return ``x`` on the spatial size of ``like``: cut at the far ends, or extended there by repeating its last values.

    Pixels keep their place: an encoder that rounds sizes down drops the last rows and one that rounds up adds some, and
    interpolating instead would shift the whole map against the skip. If the sizes agree, this is ``x`` itself.

    Shape: (B, C, *S), (B, D, *R) -> (B, C, *R).
    """
    # An export must hold at every size, so it must not contain the comparison.
    exporting = torch.jit.is_tracing()
    if not torch.jit.is_scripting():
        exporting = exporting or torch.compiler.is_exporting()
    for axis in range(2, x.dim()):
        if exporting or x.shape[axis] != like.shape[axis]:
            positions = torch.arange(like.shape[axis], device=x.device).clamp(max=x.shape[axis] - 1)
            x = x.index_select(axis, positions)
    return x


class RecurrentConv(nn.Module):
    """Recurrent convolutional layer: one feed-forward map refined over ``steps`` passes.

    h_0 = f(w_f * x),   h_t = f(w_f * x + w_r * h_{t-1})   for t = 1..steps,   f = activation after normalization.
    Liang & Hu, CVPR 2015; used in RU-Net and R2U-Net (Alom et al., arXiv:1802.06955).

    Args:
        spatial_dims: 2 or 3.
        in_channels: Channels of x.
        out_channels: Channels of every h.
        steps: Recurrent passes after the feed-forward one, the paper's t; 0 is a plain convolution.
        recurrence: ``separate`` has the paper's two kernels. ``shared`` has one for both, h_t = f(w * (x + h_{t-1})), as in
            much public code, and needs in_channels = out_channels.
        norm_per_step: One normalization per pass. A single one mixes the passes' different distributions in its running
            statistics: training looks good and evaluation fails.
        act: Activation.
        norm: Normalization.

    Shape: (B, in_channels, *S) -> (B, out_channels, *S), with S of 2 or 3 axes.

    Raises:
        ValueError: steps is negative; recurrence is unknown; a shared kernel with other channels in than out.
    """

    __constants__ = ["norm_per_step", "shared", "steps"]

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        steps: int = 2,
        recurrence: Recurrence = "separate",
        norm_per_step: bool = True,
        act: Act = "relu",
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        if steps < 0:
            raise ValueError(f"steps is {steps}: give 0 for a plain convolution or the number of recurrent passes")
        self.steps = steps
        self.shared = choose("recurrence", recurrence, {"separate": False, "shared": True})
        self.norm_per_step = norm_per_step
        if self.shared and steps and in_channels != out_channels:
            raise ValueError(
                f"a shared kernel adds {in_channels} input channels to {out_channels} state channels: make them equal"
            )
        self.feed_forward = make_conv(spatial_dims, in_channels, out_channels, bias=norm_name(norm) == "none")
        if steps and not self.shared:
            self.recurrent = make_conv(spatial_dims, out_channels, out_channels, bias=False)
        self.norm = make_norm(spatial_dims, out_channels, norm)
        num_more = steps if norm_per_step else 0
        self.step_norms = nn.ModuleList(make_norm(spatial_dims, out_channels, norm) for _ in range(num_more))
        # Without a normalization between them an activation in place would overwrite w_f * x, which every step reads.
        self.act = make_act(act, inplace=norm_name(norm) != "none")

    def forward(self, x: Tensor) -> Tensor:
        drive = self.feed_forward(x)
        state = self.act(self.norm(drive))
        if self.norm_per_step:
            for norm in self.step_norms:
                state = self.act(norm(self._excite(drive, state)))
        else:
            for _ in range(self.steps):
                state = self.act(self.norm(self._excite(drive, state)))
        return state

    def _excite(self, drive: Tensor, state: Tensor) -> Tensor:
        # Both kernels are linear, so a shared one also needs w * x only once: w * (x + h) = w * x + w * h.
        if self.shared:
            weight = self.feed_forward.weight
            again = F.conv2d(state, weight, padding=1) if state.dim() == 4 else F.conv3d(state, weight, padding=1)
        else:
            again = self.recurrent(state)
        return again.add_(drive)  # in place: no gradient needs the convolution's output


class Unit(nn.Module):
    """Two (recurrent) convolutional layers, with the residual if asked for: one level of a U-Net.

    y = F(x), or with ``residual`` y = x' + F(x'), x' the input projected to the unit's width by a 1x1 convolution.
    steps 0 gives the plain and the residual unit, steps > 0 those of RU-Net and R2U-Net (Alom et al., arXiv:1802.06955).
    A shared kernel needs the projection too, even without the residual.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Channels of the input.
        out_channels: The unit's width.
        steps: As in :class:`RecurrentConv`, as are ``recurrence, norm_per_step, act`` and ``norm``.
        residual: Add the projected input.
        dropout: Probability that a whole channel of the output is zeroed in training.
        checkpoint_activations: Keep only the input in training and compute the unit again in the backward pass: about a
            third more time, far less memory, the same weights, running statistics and dropout.

    Shape: (B, in_channels, *S) -> (B, out_channels, *S).
    """

    __constants__ = ["checkpoint_activations", "residual"]

    @takes_options_of(RecurrentConv)
    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        steps: int = 0,
        recurrence: Recurrence = "separate",
        residual: bool = False,
        dropout: float = 0.0,
        checkpoint_activations: bool = False,
        **layer_options: Any,
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}: give a probability from 0 to below 1")
        self.residual = residual
        self.checkpoint_activations = checkpoint_activations
        projected = residual or (steps > 0 and recurrence == "shared")
        first = out_channels if projected else in_channels
        if projected:
            self.projection = make_conv(spatial_dims, in_channels, out_channels, 1, bias=True)
        else:
            self.projection = nn.Identity()
        layer_options |= {"steps": steps, "recurrence": recurrence}
        self.layers = nn.Sequential(
            RecurrentConv(spatial_dims, first, out_channels, **layer_options),
            RecurrentConv(spatial_dims, out_channels, out_channels, **layer_options),
        )
        self.dropout = (nn.Dropout2d, nn.Dropout3d)[spatial_dims - 2](dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        # TorchScript has no checkpoint: it computes the same and keeps its activations.
        if not torch.jit.is_scripting():  # noqa: SIM102 (combined, it would be compiled)
            if self.checkpoint_activations and self.training and torch.is_grad_enabled():
                return self._recompute(x)
        return self._compute(x)

    def _compute(self, x: Tensor) -> Tensor:
        x = self.projection(x)
        y = self.layers(x)
        if self.residual:
            y = y + x
        return self.dropout(y)

    def _recompute(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():  # a compiled graph writes the statistics once, and takes no context
            return checkpoint(self._compute, x, use_reentrant=False)
        contexts = lambda: (nullcontext(), _statistics_kept(self))  # noqa: E731
        return checkpoint(self._compute, x, use_reentrant=False, context_fn=contexts)


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """A context in which batch normalizations in training normalize as usual but keep their running statistics."""
    # Momentum 0 keeps them in place. Switching track_running_stats off would save fewer tensors than the first pass did,
    # which the checkpoint refuses.
    tracking = [part for part in module.modules() if getattr(part, "track_running_stats", False)]
    before = [(part.momentum, part.num_batches_tracked) for part in tracking]
    for part in tracking:
        part.momentum, part.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for part, (momentum, num_batches) in zip(tracking, before, strict=True):
            part.momentum, part.num_batches_tracked = momentum, num_batches


class AttentionGate(nn.Module):
    """Additive attention gate: the skip, weighted per pixel by what the coarser level says is there.

    a = sigmoid(N(psi * relu(N(W_g * g) + N(W_x * x)))),   y = a x,   all kernels 1x1, N the normalization.
    Attention U-Net (Oktay et al., arXiv:1804.03999), in the common form with both signals on the skip's grid.

    Args:
        spatial_dims: 2 or 3.
        gate_channels: Channels of the gating signal g, the upsampled coarser map.
        skip_channels: Channels of the skip x.
        norm: Normalization; given numbers of groups are reduced to those that divide the gate's own channels.

    Shape: g (B, gate_channels, *S), x (B, skip_channels, *S) -> (B, skip_channels, *S).
    """

    def __init__(self, spatial_dims: int, gate_channels: int, skip_channels: int, *, norm: Norm = "batch") -> None:
        super().__init__()
        hidden = max(1, skip_channels // 2)

        def layer(in_channels: int, out_channels: int) -> nn.Sequential:
            conv = make_conv(spatial_dims, in_channels, out_channels, 1, bias=norm_name(norm) == "none")
            return nn.Sequential(conv, make_norm(spatial_dims, out_channels, groups_within(norm, out_channels)))

        self.gate = layer(gate_channels, hidden)
        self.skip = layer(skip_channels, hidden)
        self.psi = layer(hidden, 1)

    def forward(self, gate: Tensor, skip: Tensor) -> Tensor:
        hidden = torch.relu_(self.gate(gate) + self.skip(skip))
        return skip * torch.sigmoid(self.psi(hidden))
