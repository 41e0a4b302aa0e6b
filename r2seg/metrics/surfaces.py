"""Distances between the surfaces of two masks, and the scores that follow from them.

The surface of a mask is every pixel of it with a face neighbour outside (the image's edge counts as outside), and a
distance is Euclidean between pixel centres. Nearest neighbours come from scipy's k-d tree, which is exact, works on any
grid (anisotropic, sheared) and is fast for surfaces that lie near each other. For many far points it takes minutes; their
neighbours come from scipy's Euclidean feature transform of the box around both masks, whose time depends on the box only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_NEAR = 2  # voxels: a k-d tree finds a neighbour this near in microseconds, one far away in up to a millisecond
_VOXELS_PER_FAR_POINT = 700  # of the feature transform, in the time of one far neighbour in the k-d tree
_RIGHT_ANGLE = 1e-6  # largest cosine between axes that headers in float32 make of a right angle
EQUAL = 1e-4  # relative difference of a distance and a tolerance that are taken to be equal


@dataclass(frozen=True)
class SurfaceDistances:
    """Distance of every surface pixel of one mask to the nearest of the other.

    Attributes:
        from_prediction: One per surface pixel of the prediction; infinite where the reference is empty.
        from_reference: One per surface pixel of the reference; infinite where the prediction is empty.

    Shape: (N,) and (M,) float64, in the unit of the spacing.
    """

    from_prediction: Tensor
    from_reference: Tensor


def surface_distances(
    prediction: Tensor, reference: Tensor, spacing_mm: Sequence[float] | Tensor | None = None
) -> SurfaceDistances:
    """Distances between the surfaces of two masks.

    Args:
        prediction: Mask, non-zero inside.
        reference: Mask, non-zero inside.
        spacing_mm: Size of a pixel along each axis, or the (d, d) matrix whose columns are the steps along each axis (the
            upper left of an affine, which also holds shear); by default pixels of size 1.

    Shape: (*S) and (*S), with S of d axes.

    Raises:
        ValueError: The shapes differ, or the spacing is not one of d axes.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"reference of shape {tuple(reference.shape)} against prediction of {tuple(prediction.shape)}")
    dims = prediction.dim()
    steps = torch.as_tensor([1.0] * dims if spacing_mm is None else spacing_mm, dtype=torch.float64)
    if steps.shape not in ((dims,), (dims, dims)):
        raise ValueError(f"spacing_mm of shape {tuple(steps.shape)} against masks of {dims} axes")
    steps = torch.diag(steps) if steps.dim() == 1 else steps

    surfaces = [_surface(mask != 0).numpy() for mask in (prediction, reference)]
    if not all(map(len, surfaces)):
        return SurfaceDistances(*(torch.full((len(own),), torch.inf, dtype=torch.float64) for own in surfaces))
    return SurfaceDistances(
        *(torch.from_numpy(_distances(own, other, steps.numpy())) for own, other in (surfaces, reversed(surfaces)))
    )


def _distances(own: np.ndarray, other: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Distance of each of a surface's pixels to the nearest of another's.

    Args:
        own, other: Indices of their pixels.
        steps: Steps along each axis as columns.

    Shape: (N, d) and (M, d) int64, (d, d) -> (N,) float64.
    """
    from scipy.spatial import KDTree

    points, tree = own @ steps.T, KDTree(other @ steps.T)
    lengths = np.linalg.norm(steps, axis=0)
    angles = steps.T @ steps / np.outer(lengths, lengths) - np.eye(len(steps))
    corner = np.minimum(own.min(axis=0), other.min(axis=0))
    box = np.maximum(own.max(axis=0), other.max(axis=0)) - corner + 1
    most_far = int(box.prod()) // _VOXELS_PER_FAR_POINT
    if len(own) <= most_far or np.abs(angles).max() > _RIGHT_ANGLE:
        return tree.query(points)[0]
    found = tree.query(points, distance_upper_bound=_NEAR * lengths.max())[0]
    far = np.isinf(found)
    if far.sum() <= most_far:
        found[far] = tree.query(points[far])[0]
    else:
        found[far] = _far_distances(own[far] - corner, other - corner, steps, tuple(box))
    return found


def _far_distances(own: np.ndarray, other: np.ndarray, steps: np.ndarray, box: tuple[int, ...]) -> np.ndarray:
    """As `_distances`, on a grid of right angles; the time depends on the size of the box around both surfaces only."""
    from scipy.ndimage import distance_transform_edt

    outside = np.ones(box, bool)
    outside[tuple(other.T)] = False
    lengths = np.linalg.norm(steps, axis=0)
    nearest = distance_transform_edt(outside, sampling=lengths, return_distances=False, return_indices=True)
    return np.linalg.norm((own - nearest[(slice(None), *own.T)].T) @ steps.T, axis=1)


def hausdorff(distances: SurfaceDistances, percentile: float = 100) -> Tensor:
    """Largest distance from either surface to the other, or a percentile of it: 95 is HD95.

    The percentile is taken of each direction and the larger one returned, as MONAI does; some tools take it of both
    together, which is smaller. NaN where both masks are empty, infinite where one is.

    Shape: () float64.
    """
    found = [_percentile(direction, percentile) for direction in _directions(distances) if direction.numel()]
    return torch.stack(found).max() if found else torch.tensor(torch.nan, dtype=torch.float64)


def average_surface_distance(distances: SurfaceDistances) -> Tensor:
    """Mean over the pixels of both surfaces of the distance to the other one (ASSD).

    NaN where both masks are empty, infinite where one is.

    Shape: () float64.
    """
    return torch.cat(_directions(distances)).mean()


def surface_dice(distances: SurfaceDistances, tolerance_mm: float) -> Tensor:
    """Normalised surface Dice: share of both surfaces that lies within a tolerance of the other.

    Nikolov et al., arXiv:1809.04430, with surface pixels counted instead of their area. NaN where both masks are empty,
    0 where one is. A distance that equals the tolerance is within it, also where the two differ by less than one part in
    ten thousand: voxel sizes in headers are rounded (float32, or a few decimals).

    Shape: () float64.
    """
    return (torch.cat(_directions(distances)) <= tolerance_mm * (1 + EQUAL)).to(torch.float64).mean()


def _directions(distances: SurfaceDistances) -> tuple[Tensor, Tensor]:
    return distances.from_prediction, distances.from_reference


def _percentile(distances: Tensor, percentile: float) -> Tensor:
    """Linear interpolation between ranks; torch.quantile refuses more than 16 million values."""
    ranked = distances.sort().values
    position = (len(ranked) - 1) * percentile / 100
    low = int(position)
    if torch.isinf(ranked[low]):
        return ranked[low]
    high = ranked[min(low + 1, len(ranked) - 1)]
    return ranked[low] + (high - ranked[low]) * (position - low)


def _surface(mask: Tensor) -> Tensor:
    """Indices of the surface pixels, on the CPU.

    Shape: (*S) bool -> (N, d) int64.
    """
    if not mask.any():
        return torch.empty(0, mask.dim(), dtype=torch.int64)
    corner, box = [], mask
    for axis in range(mask.dim()):  # of a large volume, only the mask's bounding box is looked at
        others = [other for other in range(mask.dim()) if other != axis]
        hit = (box.amax(dim=others) if others else box).nonzero()
        corner.append(int(hit[0]))
        box = box.narrow(axis, corner[-1], int(hit[-1]) - corner[-1] + 1)
    inner = box.clone()
    for axis in range(box.dim()):
        size = box.shape[axis]
        inner.narrow(axis, 1, size - 1).logical_and_(box.narrow(axis, 0, size - 1))
        inner.narrow(axis, 0, size - 1).logical_and_(box.narrow(axis, 1, size - 1))
        inner.select(axis, 0).zero_()
        inner.select(axis, size - 1).zero_()
    return (box & ~inner).nonzero().cpu() + torch.tensor(corner)
