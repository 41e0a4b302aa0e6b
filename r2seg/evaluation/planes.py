"""A case as a stack of slices for viewing: its masks, and the image below them.

Pictures and outlines of the slices are made in viewer.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from r2seg.data.images import Image
from r2seg.evaluation.scoring import Masks
from r2seg.pictures.views import View, pixels_of, shown_range


@dataclass(frozen=True)
class Planes:
    """A case as a stack of slices, oriented for viewing: rows downwards, the patient's right on the left.

    Attributes:
        reference, prediction: Masks.
        counted: The field of view, or None.
        image: Intensities, or None.
        window: Intensities shown as black and white.
        size: Rows and columns as they are drawn.
        axis_name: Orientation of the slices, such as "axial"; "" for pictures.
        shown_as: The window in words, if it is the run's.

    Shape: reference, prediction, counted (N, rows, columns) bool; image (N, rows, columns, 1 or 3).
    """

    reference: np.ndarray
    prediction: np.ndarray
    counted: np.ndarray | None
    image: np.ndarray | None
    window: tuple[float, float]
    size: tuple[int, int]
    axis_name: str
    shown_as: str

    def chosen(self, most: int) -> list[int]:
        """Slices that hold a mask, thinned evenly; the one with the most errors is always among them."""
        busy = np.flatnonzero((self.reference | self.prediction).any(axis=(1, 2)))
        if not len(busy):
            return [len(self.reference) // 2]
        first, last = max(busy[0] - 1, 0), min(busy[-1] + 1, len(self.reference) - 1)
        picked = set(
            np.linspace(first, last, min(most, last - first + 1) + 2 * (most < 4)).round().astype(int).tolist()
        )
        errors = (self.reference != self.prediction).sum(axis=(1, 2))
        if most < 4:  # the ends of a structure show little
            picked -= {first, last} if len(picked) > 2 else set()
        return sorted(picked | ({int(errors.argmax())} if errors.any() else set()))


def planes(
    masks: Masks,
    image: Image | None,
    slice_pixels: int,
    picture_pixels: int,
    window: tuple[float, float] | None = None,
) -> Planes:
    """A case as slices.

    Args:
        masks: On the reference's grid.
        image: On the same grid, or None.
        slice_pixels, picture_pixels: Longer side of a slice of a volume, and of a picture, as they are drawn.
        window: Hounsfield units shown as black and white; by default from the image's own intensities.
    """
    arrays = [masks.reference, masks.prediction, *([] if masks.counted is None else [masks.counted])]
    view = View.of(masks.like.grid)
    stacks = [view.stack(array) for array in arrays]
    below = None
    if image is not None:
        # A picture may have a mask with geometry; of volumes, both have the same.
        below = pixels_of(image.array, View.of(image.grid) if image.spatial_dims == 2 else view)
    longest = slice_pixels if view.axis_name else picture_pixels
    counted = stacks[2] if len(stacks) > 2 else None
    in_units = window is not None and below is not None and below.dtype != np.uint8
    return Planes(
        stacks[0],
        stacks[1],
        counted,
        below,
        window if window is not None and in_units else shown_range(below),
        view.size(stacks[0].shape[1:], longest),
        view.axis_name,
        f"shown from {window[0]:g} to {window[1]:g} HU, as the network sees it"
        if window is not None and in_units
        else "",
    )
