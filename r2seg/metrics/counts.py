"""Confusion counts of label maps, and the scores that follow from them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

IGNORE = 255
ISIC_THRESHOLD = 0.65
_BINS = 256
_CHUNK = 1 << 22  # pixels counted at once: bounds the memory of the int32 codes


@dataclass(frozen=True)
class Counts:
    """Pixels of each label that agree and disagree with the reference. Adds up over slabs, cases and ranks.

    Attributes:
        tp, fp, fn, tn: True positives, false positives, false negatives, true negatives.

    Shape: (K,) int64 each, label 1 first; the background has no entry. Scores take counts of any shape.
    """

    tp: Tensor
    fp: Tensor
    fn: Tensor
    tn: Tensor

    @classmethod
    def from_confusion(cls, matrix: Tensor) -> Counts:
        """Counts of labels 1..K from a confusion matrix.

        Shape: (K + 1, K + 1), rows the reference, columns the prediction.
        """
        tp = matrix.diagonal()[1:].clone()
        fp = matrix.sum(dim=0)[1:] - tp
        fn = matrix.sum(dim=1)[1:] - tp
        return cls(tp, fp, fn, matrix.sum() - tp - fp - fn)

    def to(self, device: torch.device | str) -> Counts:
        """The same counts on another device."""
        return Counts(*(getattr(self, field.name).to(device) for field in fields(self)))


def confusion_matrix(prediction: Tensor, reference: Tensor, num_labels: int) -> Tensor:
    """Number of pixels of each pair of classes, exact and in one pass.

    Args:
        prediction: Class indices 0..num_labels, of any integer dtype, on any device.
        reference: Class indices 0..num_labels, or 255 where a pixel is not to be counted.
        num_labels: K, the labels without the background; at most 254.

    Shape: (*S) -> (K + 1, K + 1) int64 on the prediction's device, rows the reference, columns the prediction.

    Raises:
        ValueError: Shapes differ, a map is not of integers, or a counted pixel holds a value that is no class.
    """
    if not 1 <= num_labels < IGNORE:
        raise ValueError(f"num_labels is {num_labels}: label maps can hold 1 to {IGNORE - 1} labels")
    if reference.shape != prediction.shape:
        raise ValueError(f"reference of shape {tuple(reference.shape)} against prediction of {tuple(prediction.shape)}")
    order = memory_order(prediction)
    prediction, reference = (
        _as_bytes(tensor, name).permute(order).reshape(-1)
        for tensor, name in ((prediction, "prediction"), (reference, "reference"))
    )

    # Every pair of bytes has its own bin, so ignored pixels and stray values need no pass of their own.
    joint = torch.zeros(_BINS * _BINS, dtype=torch.int64, device=prediction.device)
    for start in range(0, prediction.numel(), _CHUNK):
        part = slice(start, start + _CHUNK)
        truth, guess = reference[part], prediction[part]
        if truth.device.type == "cpu":
            truth, guess, num_skipped = _skip_background(truth, guess)
            joint[0] += num_skipped
        joint += torch.bincount(truth.to(torch.int32).mul_(_BINS).add_(guess), minlength=_BINS * _BINS)
    joint = joint.view(_BINS, _BINS)

    classes = num_labels + 1
    counted = joint[:IGNORE]
    for name, pixels in (("prediction", counted.sum(dim=0)), ("reference", counted.sum(dim=1))):
        if pixels[classes:].any():
            stray = (pixels[classes:].nonzero().flatten() + classes).tolist()
            raise ValueError(f"{name} holds {stray[:8]}: expected class indices 0 to {num_labels}")
    return joint[:classes, :classes].clone()


def count_confusion(prediction: Tensor, reference: Tensor, num_labels: int) -> Counts:
    """Confusion counts of each label against the rest; arguments and errors as for `confusion_matrix`.

    Shape: (*S) -> four of (K,) int64 on the prediction's device.
    """
    return Counts.from_confusion(confusion_matrix(prediction, reference, num_labels))


def label_mask(indices: Any, label: int, overlapping: bool = False) -> Any:
    """Where a label is, in a map of class indices or of overlapping labels.

    Args:
        indices: Class indices; or, of overlapping labels, a map whose bit k - 1 is label k. 255 where a pixel is not counted.
        label: The label, from 1.
        overlapping: Whether the map holds bits.

    Shape: (*S) of any integer dtype, numpy or torch -> (*S) bool.
    """
    if not overlapping:
        return indices == label
    return ((indices & (1 << (label - 1))) != 0) & (indices != IGNORE)


def count_overlapping(prediction: Tensor, reference: Tensor, num_labels: int) -> Counts:
    """Confusion counts of labels that may overlap, each label by itself.

    Args:
        prediction: Bits of the labels, see `label_mask`; never 255.
        reference: The same, 255 where a pixel is not to be counted.
        num_labels: K, at most 7.

    Shape: (*S) uint8 -> four of (K,) int64 on the prediction's device.
    """
    counted = reference != IGNORE
    counts = []
    for label in range(1, num_labels + 1):
        guess, truth = (label_mask(each, label, overlapping=True) for each in (prediction, reference))
        guess = guess & counted
        tp, predicted, present = (guess & truth).sum(), guess.sum(), truth.sum()
        counts.append(torch.stack([tp, predicted - tp, present - tp, counted.sum() - predicted - present + tp]))
    return Counts(*torch.stack(counts, dim=1))


def dice(counts: Counts) -> Tensor:
    """Dice similarity coefficient, which is the F1 score of pixels.

    D = 2 tp / (2 tp + fp + fn); NaN where reference and prediction are both empty, 0 where only one of them is.

    Shape: (K,) float64, on the CPU (not every accelerator has float64).
    """
    tp, fp, fn, _ = _as_float(counts)
    return 2 * tp / (2 * tp + fp + fn)


def iou(counts: Counts) -> Tensor:
    """Intersection over union, the Jaccard index; never the accuracy that some papers print under this name.

    J = tp / (tp + fp + fn) = D / (2 - D), asserted at every call; NaN and 0 as for `dice`.

    Shape: (K,) float64, on the CPU.
    """
    tp, fp, fn, _ = _as_float(counts)
    jaccard, d = tp / (tp + fp + fn), dice(counts)
    if not torch.allclose(jaccard, d / (2 - d), rtol=0, atol=1e-12, equal_nan=True):
        raise AssertionError(f"IoU {jaccard.tolist()} is not D / (2 - D) of Dice {d.tolist()}")
    return jaccard


def sensitivity(counts: Counts) -> Tensor:
    """Share of the reference that was found, the recall: tp / (tp + fn); NaN where the reference is empty.

    Shape: (K,) float64, on the CPU.
    """
    tp, _, fn, _ = _as_float(counts)
    return tp / (tp + fn)


def specificity(counts: Counts) -> Tensor:
    """Share of the rest that was not predicted: tn / (tn + fp); NaN where the reference covers every pixel.

    Shape: (K,) float64, on the CPU.
    """
    _, fp, _, tn = _as_float(counts)
    return tn / (tn + fp)


def precision(counts: Counts) -> Tensor:
    """Share of the prediction that is right: tp / (tp + fp); NaN where nothing was predicted.

    Shape: (K,) float64, on the CPU.
    """
    tp, fp, _, _ = _as_float(counts)
    return tp / (tp + fp)


def accuracy(counts: Counts) -> Tensor:
    """Share of all pixels that agree, background included: (tp + tn) / (tp + fp + fn + tn).

    Shape: (K,) float64, on the CPU.
    """
    tp, fp, fn, tn = _as_float(counts)
    return (tp + tn) / (tp + fp + fn + tn)


def balanced_accuracy(counts: Counts) -> Tensor:
    """Mean of sensitivity and specificity; NaN where either is.

    Shape: (K,) float64, on the CPU.
    """
    return (sensitivity(counts) + specificity(counts)) / 2


def matthews(counts: Counts) -> Tensor:
    """Matthews correlation coefficient of prediction and reference; NaN where one of them is constant.

    (tp tn - fp fn) / sqrt((tp + fp) (tp + fn) (tn + fp) (tn + fn))

    Shape: (K,) float64, on the CPU.
    """
    tp, fp, fn, tn = _as_float(counts)
    return (tp * tn - fp * fn) / ((tp + fp) * (tp + fn)).sqrt() / ((tn + fp) * (tn + fn)).sqrt()


def threshold_jaccard(counts: Counts) -> Tensor:
    """ISIC 2018's score of a case: its Jaccard index, or 0 where that is below 0.65.

    Shape: (K,) float64, on the CPU.
    """
    jaccard = iou(counts)
    return torch.where(jaccard < ISIC_THRESHOLD, torch.zeros_like(jaccard), jaccard)


def memory_order(tensor: Tensor) -> list[int]:
    """Axes from the slowest to the fastest in memory: flattened in this order, arrays in Fortran order are not copied."""
    return sorted(range(tensor.dim()), key=lambda axis: -tensor.stride(axis))


def _skip_background(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, int]:
    """Both without the words of eight bytes that are zero in both, and the number of bytes left out.

    Most of a label map is background, and one comparison looks at eight pixels: counting becomes four times faster.
    """
    if any(t.numel() % 8 or t.storage_offset() % 8 or t.data_ptr() % 8 for t in (first, second)):
        return first, second, 0
    first, second = first.view(torch.int64), second.view(torch.int64)
    busy = (first | second).nonzero().squeeze(1)
    return first[busy].view(torch.uint8), second[busy].view(torch.uint8), 8 * (len(first) - len(busy))


def _as_bytes(tensor: Tensor, name: str) -> Tensor:
    """The same values in uint8; those that a byte cannot hold are refused, not wrapped around."""
    if tensor.dtype == torch.uint8:
        return tensor
    if tensor.is_floating_point() or tensor.is_complex():
        raise ValueError(f"{name} is {tensor.dtype}: class indices are integers")
    if tensor.dtype != torch.bool and tensor.numel():
        # Unsigned 16 to 64 bit have no min and max in torch; int64 holds what label maps can mean.
        wide = tensor if tensor.dtype in (torch.int8, torch.int16, torch.int32, torch.int64) else tensor.to(torch.int64)
        low, high = int(wide.min()), int(wide.max())
        if low < 0 or high > IGNORE:
            raise ValueError(f"{name} holds values from {low} to {high}: class indices are 0 to {IGNORE}")
    return tensor.to(torch.uint8)


def _as_float(counts: Counts) -> tuple[Tensor, ...]:
    return tuple(getattr(counts, field.name).cpu().to(torch.float64) for field in fields(counts))
