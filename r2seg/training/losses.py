"""Losses on logits, in float32, with ignored pixels left out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from r2seg.data.images import IGNORE


class SegmentationLoss(nn.Module):
    """Cross-entropy, soft Dice, or their sum.

    Soft Dice of a label over the whole batch:  1 - (2 sum(p y) + s) / (sum(p) + sum(y) + s),  p the probability, y the
    reference; the mean over the labels, background left out (Milletari et al., 3DV 2016, without the squares). s = 1 keeps
    the gradient finite where a batch has none of the label. Cross-entropy is the mean over pixels (binary for sigmoid: the
    mean over pixels and labels).

    Args:
        kind: "dice_ce", "ce" or "dice".
        output: "softmax" (K + 1 channels, background first) or "sigmoid" (K channels).
        smooth: The s above, in pixels.

    Shape: logits (B, channels, *S), label (B, *S) of class indices, ``IGNORE`` where nothing is known -> a scalar.
    """

    def __init__(self, kind: str, output: str, smooth: float = 1.0) -> None:
        super().__init__()
        self.kind = kind
        self.output = output
        self.smooth = smooth

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        logits = logits.float()
        known = label != IGNORE
        first = 1 if self.output == "softmax" else 0
        num_labels = logits.shape[1] - first
        index = torch.where(known, label, 0).long()
        target = torch.stack([index == k for k in range(1, num_labels + 1)], dim=1)
        loss = logits.new_zeros(())
        if self.kind != "dice":
            loss = loss + self._cross_entropy(logits, index, target, known)
        if self.kind != "ce":
            probabilities = logits.softmax(1)[:, 1:] if self.output == "softmax" else logits.sigmoid()
            loss = loss + self._dice(probabilities, target, known)
        return loss

    def _cross_entropy(self, logits: Tensor, index: Tensor, target: Tensor, known: Tensor) -> Tensor:
        if self.output == "softmax":
            each = F.cross_entropy(logits, index, reduction="none")
        else:
            each = F.binary_cross_entropy_with_logits(logits, target.float(), reduction="none").mean(1)
        return (each * known).sum() / known.sum().clamp(min=1)

    def _dice(self, probabilities: Tensor, target: Tensor, known: Tensor) -> Tensor:
        over = [0, *range(2, probabilities.ndim)]
        inside = known[:, None]
        overlap = (probabilities * (target & inside)).sum(over)
        total = (probabilities * inside).sum(over) + (target & inside).sum(over)
        return (1 - (2 * overlap + self.smooth) / (total + self.smooth)).mean()
