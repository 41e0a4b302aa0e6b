"""Scores of structures rather than pixels: lesions found (connected components) and vessels followed (centrelines)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def count_components(prediction: Tensor, reference: Tensor) -> Tensor:
    """Connected components of the reference that were found and missed, and of the prediction that touch none of them.

    Components touch by faces, edges or corners. One is found where it shares a pixel with the prediction, however few; a
    predicted component is false where it shares none with the reference.

    Args:
        prediction: Mask, non-zero inside.
        reference: Mask, non-zero inside.

    Shape: (*S) and (*S) -> (3,) int64: found, missed, false. Adds up over cases.
    """
    from scipy import ndimage

    masks = [_as_mask(mask) for mask in (prediction, reference)]
    touching = np.ones((3,) * masks[0].ndim)
    hits, totals = [], []
    for own, other in (masks, reversed(masks)):
        components, total = ndimage.label(own, structure=touching)
        hits.append(len(np.unique(components[own & other])))
        totals.append(total)
    return torch.tensor([hits[1], totals[1] - hits[1], totals[0] - hits[0]])


def detection_f1(components: Tensor) -> Tensor:
    """Lesion-wise F1: 2 found / (2 found + missed + false); NaN where neither mask has a component.

    Shape: (..., 3) of `count_components` -> (...) float64.
    """
    found, missed, false = components.to(torch.float64).unbind(-1)
    return 2 * found / (2 * found + missed + false)


def centerline_counts(prediction: Tensor, reference: Tensor) -> Tensor:
    """Centreline pixels of each mask that lie inside the other, and all of them.

    Centrelines come from scikit-image's thinning: Zhang's in 2-D, Lee's in 3-D. Only the box around a mask is thinned, which
    gives the same centreline.

    Shape: (*S) and (*S), S of 2 or 3 axes -> (4,) int64: of the prediction inside and all, of the reference inside and all.
    """
    from skimage.morphology import skeletonize

    masks = [_as_mask(mask) for mask in (prediction, reference)]
    counts = []
    for own, other in (masks, reversed(masks)):
        box = _bounding_box(own)
        line = skeletonize(own[box]) != 0 if own.any() else own[box]
        counts += [int((line & other[box]).sum()), int(line.sum())]
    return torch.tensor(counts)


def centerline_dice(counts: Tensor) -> Tensor:
    """clDice: harmonic mean of the two shares of centrelines inside the other mask.

    Shit et al., CVPR 2021. NaN where both masks are empty, 0 where one is.

    Shape: (..., 4) of `centerline_counts` -> (...) float64.
    """
    predicted_in, predicted, reference_in, reference = counts.to(torch.float64).unbind(-1)
    right, found = predicted_in / predicted.clamp(min=1), reference_in / reference.clamp(min=1)
    score = 2 * right * found / (right + found).clamp(min=torch.finfo(torch.float64).tiny)
    return torch.where(predicted + reference == 0, torch.nan, score)


def _as_mask(mask: Tensor) -> np.ndarray:
    return (mask != 0).cpu().numpy()


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """Slices of the smallest box around a mask; empty where it is empty."""
    box = []
    for axis in range(mask.ndim):
        held = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(held[0], held[-1] + 1) if len(held) else slice(0, 0))
    return tuple(box)
