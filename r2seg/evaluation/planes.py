"""A case as a stack of slices for viewing: which axis, which way up, how large, and which intensities.

Pictures and outlines of the slices are made in viewer.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from r2seg.data.images import Image
from r2seg.evaluation.scoring import Masks


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
    channels = None if image is None else np.moveaxis(np.asarray(image.array), 0, -1)
    if masks.like.spatial_dims == 2:
        picture = image is not None and image.affine is None
        stacks = [array[None] if masks.like.affine is None else array.T[None, ::-1] for array in arrays]
        below = None
        if channels is not None:
            colours = channels if channels.shape[-1] == 3 else channels[..., :1]
            below = colours[None] if picture else colours.transpose(1, 0, 2)[None, ::-1]
        spacing, axis_name, longest = (1.0, 1.0), "", picture_pixels
        if masks.like.affine is not None:
            rows_mm, columns_mm = (masks.like.spacing_mm or (1.0, 1.0))[:2]
            spacing = columns_mm, rows_mm
    else:
        import nibabel

        affine = np.eye(4) if masks.like.affine is None else masks.like.affine
        axes = nibabel.io_orientation(affine)
        spacing3 = np.array(masks.like.spacing_mm or (1.0, 1.0, 1.0))[np.argsort(axes[:, 0])]
        # Volumes of thick slices are shown along their thick axis; others in axial slices.
        order = np.argsort(spacing3)
        across = int(order[2]) if spacing3[order[2]] > 1.5 * spacing3[order[1]] else 2
        axis_name = ("sagittal", "coronal", "axial")[across]
        rest = [axis for axis in (0, 1, 2) if axis != across]
        view = (across, rest[1], rest[0])  # slice, rows, columns on axes R, A, S

        def turned(array: np.ndarray) -> np.ndarray:
            array = nibabel.apply_orientation(array, axes).transpose(view)
            array = array[:, ::-1]  # up is anterior or superior
            return array[:, :, ::-1] if 0 in rest else array  # the patient's right on the left, as radiologists look

        stacks = [turned(array) for array in arrays]
        below = None if channels is None else turned(channels[..., 0])[..., None]
        spacing, longest = (spacing3[rest[1]], spacing3[rest[0]]), slice_pixels
    rows, columns = stacks[0].shape[1:]
    # Never finer than the file: a browser enlarges just as well.
    scale = min(longest / max(rows * spacing[0], columns * spacing[1]), 1 / min(spacing))
    size = max(1, round(rows * spacing[0] * scale)), max(1, round(columns * spacing[1] * scale))
    counted = stacks[2] if len(stacks) > 2 else None
    in_units = window is not None and below is not None and below.dtype != np.uint8
    return Planes(
        stacks[0],
        stacks[1],
        counted,
        below,
        window if window is not None and in_units else _window(below),
        size,
        axis_name,
        f"shown from {window[0]:g} to {window[1]:g} HU, as the network sees it"
        if window is not None and in_units
        else "",
    )


def _window(image: np.ndarray | None) -> tuple[float, float]:
    """Intensities shown as black and white."""
    if image is None or image.dtype == np.uint8:
        return 0.0, 255.0
    step = max(1, image.size // 2_000_000)
    low, high = np.percentile(image.reshape(-1)[::step], [1, 99])
    return float(low), float(high) if high > low else float(low) + 1
