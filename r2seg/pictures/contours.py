"""Contours of masks and label maps: as SVG paths, or as the pixels that they pass through."""

from __future__ import annotations

import numpy as np

_THIN = 8  # drawn pixels: an outline takes about two on either side
_SHOWN = 400  # columns of a picture on the screen
_WIDTH = 2  # pixels of a drawn contour


CASING = "#15171a"
"""Around contours, which would be lost on a ground of their own colour."""


def is_thin(stack: np.ndarray, columns: int = _SHOWN) -> bool:
    """Whether a mask is so narrow on the slices, as vessels and small dots are, that two outlines would hide it.

    The mean width of a band is twice its area over its border's length.

    Args:
        stack: The mask on each slice.
        columns: Of a slice as it is drawn.

    Shape: (N, rows, columns) bool.
    """
    from scipy.ndimage import binary_erosion

    busy = stack[stack.any(axis=(1, 2))]
    if not len(busy):
        return False
    cross = np.array([[[0, 1, 0], [1, 1, 1], [0, 1, 0]]], bool)
    width = 2 * busy.sum() / max(1, busy.sum() - binary_erosion(busy, cross).sum())
    return float(width) * columns / stack.shape[2] < _THIN


def outline(mask: np.ndarray, size: tuple[int, int]) -> str:
    """SVG path along the mask's border, in pixels of the shown slice.

    Args:
        mask: (rows, columns) bool.
        size: Rows and columns as they are drawn.
    """
    from skimage.measure import approximate_polygon, find_contours

    if not mask.any():
        return ""
    scale = np.array(size) / mask.shape
    parts = []
    for contour in find_contours(np.pad(mask, 1).astype(np.float32), 0.5):
        points = (approximate_polygon(contour, 0.4 / min(1, *scale)) - 0.5) * scale
        steps = " ".join(f"{x:.4g},{y:.4g}" for y, x in points[:-1])
        parts.append(f"M{steps}Z")
    return "".join(parts)


def contour_pixels(
    indices: np.ndarray, num_labels: int, size: tuple[int, int], *, overlapping: bool = False
) -> np.ndarray:
    """The drawn pixels that lie on the inner border of each label, and a casing around; all pixels of labels too thin for a border.

    Args:
        indices: Class indices of one slice: 0 background, 1..K the labels; others, such as ignored pixels, are left out.
        num_labels: K.
        size: Rows and columns as they are drawn.
        overlapping: Whether the indices are the bits of overlapping labels.

    Shape: (rows, columns) -> size, uint8: class indices, K + 1 of the casing, 0 where nothing is drawn.
    """
    from scipy.ndimage import binary_dilation, binary_erosion

    from r2seg.metrics import label_mask

    drawn = np.zeros(size, np.uint8)
    casing = np.zeros(size, bool)
    for index in range(1, num_labels + 1):
        mask = label_mask(indices, index, overlapping)
        if mask.any():
            if is_thin(mask[None], size[1]):
                drawn[_covered(mask, size) > 0.25] = index  # most pixels hold less than half of a vessel
            else:
                inside = _covered(mask, size) > 0.5
                drawn[inside & ~binary_erosion(inside, iterations=_WIDTH)] = index
                casing |= binary_dilation(inside) & ~inside
    drawn[casing & (drawn == 0)] = num_labels + 1
    return drawn


def _covered(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The share of each drawn pixel that the mask covers."""
    from PIL import Image as Picture

    picture = Picture.fromarray(mask.astype(np.float32))
    return np.asarray(picture.resize(size[::-1], Picture.Resampling.BOX))
