"""Losses on logits, in float32, with ignored pixels left out: their parts, and the table of names that a config may give.

A new loss is a function here, an entry of ``LOSSES``, and its name in ``training.loss`` of the config schema.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from r2seg.data.images import IGNORE
from r2seg.errors import UserError
from r2seg.metrics import label_mask


@dataclass(frozen=True)
class Scored:
    """Logits and the reference they are compared with, in the forms that the parts of a loss need.

    Attributes:
        logits: (B, channels, *S) float32.
        index: Class indices, or bits of overlapping labels, (B, *S) int64; 0 where the reference is unknown.
        target: Mask of each label (B, K, *S).
        known: Where the reference is known (B, *S).
        output: "softmax" (K + 1 channels, background first) or "sigmoid" (K channels).
    """

    logits: Tensor
    index: Tensor
    target: Tensor
    known: Tensor
    output: str

    @classmethod
    def of(cls, logits: Tensor, label: Tensor, output: str, overlapping: bool = False) -> Scored:
        """Of logits in any precision and class indices (B, *S) of any integer type, ``IGNORE`` where unknown.

        With ``overlapping``, the label holds bits (`label_mask`) and not class indices.
        """
        known = label != IGNORE
        index = torch.where(known, label, 0).long()
        num_labels = logits.shape[1] - (output == "softmax")
        target = torch.stack([label_mask(index, k, overlapping) for k in range(1, num_labels + 1)], dim=1)
        return cls(logits.float(), index, target, known, output)


def cross_entropy(scored: Scored) -> Tensor:
    """Mean cross-entropy over the known pixels; for sigmoid outputs binary, and the mean over the labels too."""
    if scored.output == "softmax":
        each = F.cross_entropy(scored.logits, scored.index, reduction="none")
    else:
        each = F.binary_cross_entropy_with_logits(scored.logits, scored.target.float(), reduction="none").mean(1)
    return (each * scored.known).sum() / scored.known.sum().clamp(min=1)


def soft_dice(scored: Scored, smooth: float = 1.0) -> Tensor:
    """Soft Dice loss of a label over the whole batch; the mean over the labels, without background.

    1 - (2 sum(p y) + s) / (sum(p) + sum(y) + s),  p the probability, y the reference, s = ``smooth`` in pixels, which keeps
    the gradient finite where a batch has none of the label. Milletari et al., 3DV 2016, without the squares.
    """
    probabilities = scored.logits.softmax(1)[:, 1:] if scored.output == "softmax" else scored.logits.sigmoid()
    over = [0, *range(2, probabilities.ndim)]
    inside = scored.known[:, None]
    overlap = (probabilities * (scored.target & inside)).sum(over)
    total = (probabilities * inside).sum(over) + (scored.target & inside).sum(over)
    return (1 - (2 * overlap + smooth) / (total + smooth)).mean()


# Name in a config -> parts that are summed.
LOSSES: dict[str, tuple[Callable[[Scored], Tensor], ...]] = {
    "dice_ce": (cross_entropy, soft_dice),
    "ce": (cross_entropy,),
    "dice": (soft_dice,),
}

OUTPUTS = ("softmax", "sigmoid")


class SegmentationLoss(nn.Module):
    """The sum of a named loss's parts.

    Args:
        kind: One of `LOSSES`.
        output: "softmax" (K + 1 channels, background first) or "sigmoid" (K channels).
        overlapping: Whether labels hold bits of overlapping labels instead of class indices; goes with "sigmoid".

    Shape: logits (B, channels, *S), label (B, *S) of class indices, ``IGNORE`` where nothing is known -> a scalar.

    Raises:
        UserError: The loss or the output is unknown.
    """

    def __init__(self, kind: str, output: str, *, overlapping: bool = False) -> None:
        super().__init__()
        if kind not in LOSSES:
            raise UserError(f"training.loss {kind!r} is unknown: valid are {', '.join(LOSSES)}")
        if output not in OUTPUTS:
            raise UserError(f"network.output {output!r} is unknown: valid are {', '.join(OUTPUTS)}")
        if overlapping and output != "sigmoid":
            raise UserError(f"labels that overlap need network.output: sigmoid, and it is {output}")
        self.parts = LOSSES[kind]
        self.overlapping = overlapping
        self.output = output

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        scored = Scored.of(logits, label, self.output, self.overlapping)
        return torch.stack([part(scored) for part in self.parts]).sum()
