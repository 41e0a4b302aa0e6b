"""How an image is shown to people: which axis is sliced, which way is up, how large, and which intensities are black and white."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from r2seg.data.geometry import PLANES
from r2seg.data.images import Grid

# A spacing this many times larger than the others is that of thick slices.
_THICK = 1.5


@dataclass(frozen=True)
class View:
    """How arrays on an image's grid become upright slices: rows downwards, the patient's right on the left.

    Attributes:
        axis_name: Orientation of the slices, such as "axial"; "" for pictures.
        pixel_mm: Height and width of a pixel; ones without geometry.
    """

    axis_name: str
    pixel_mm: tuple[float, float]
    _affine: np.ndarray | None = field(repr=False)

    @classmethod
    def of(cls, grid: Grid, plane: str | None = None) -> View:
        """The view of an image.

        Args:
            grid: The image's grid.
            plane: Of a volume's slices; by default across its thickest axis where it has one, else axial.
        """
        spacing = grid.spacing_mm
        if grid.spatial_dims == 2:
            width, height = (1.0, 1.0) if spacing is None else spacing[:2]
            return cls("", (height, width), grid.affine)
        from nibabel.orientations import io_orientation

        affine = np.eye(4) if grid.affine is None else grid.affine
        ordered = np.array(spacing or (1.0, 1.0, 1.0))[np.argsort(io_orientation(affine)[:, 0])]
        if plane is None:
            order = np.argsort(ordered)
            thick = ordered[order[2]] > _THICK * ordered[order[1]]
            plane = next(name for name, axis in PLANES.items() if axis == (order[2] if thick else 2))
        across, up = _axes_of(plane)
        return cls(plane, (float(ordered[up]), float(ordered[across])), affine)

    def stack(self, array: np.ndarray) -> np.ndarray:
        """A view of the array as slices.

        Shape: (*S) in the file's axis order -> (N, rows, columns).
        """
        if array.ndim == 2:
            return array[None] if self._affine is None else array.T[None, ::-1]
        from nibabel.orientations import apply_orientation, io_orientation

        across, up = _axes_of(self.axis_name)
        turned = apply_orientation(array, io_orientation(self._affine))
        turned = turned.transpose(PLANES[self.axis_name], up, across)[:, ::-1]  # up is anterior or superior
        return turned[:, :, ::-1] if across == 0 else turned  # the patient's right on the left, as radiologists look

    def size(self, shape: Sequence[int], longest: int) -> tuple[int, int]:
        """Rows and columns of a slice as it is drawn, with its true aspect and at most `longest`.

        Never finer than the file: a browser enlarges just as well.

        Args:
            shape: Rows and columns of the slice.
            longest: Pixels of the longer side.
        """
        height, width = shape[0] * self.pixel_mm[0], shape[1] * self.pixel_mm[1]
        scale = min(longest / max(height, width), 1 / min(self.pixel_mm))
        return max(1, round(height * scale)), max(1, round(width * scale))


def _axes_of(plane: str) -> tuple[int, int]:
    """The axes of R, A and S that run along the columns and along the rows of a plane's slices."""
    across, up = (axis for axis in range(3) if axis != PLANES[plane])
    return across, up


def pixels_of(array: np.ndarray, view: View) -> np.ndarray:
    """The slices of an image: in colour where a picture has three channels, else of its first channel.

    Shape: (C, *S) in the file's axis order -> (N, rows, columns, 1 or 3).
    """
    if array.ndim == 3 and len(array) == 3:
        return np.stack([view.stack(channel) for channel in array], axis=-1)
    return view.stack(array[0])[..., None]


def shown_range(values: np.ndarray | None) -> tuple[float, float]:
    """Intensities shown as black and white: all of 8 bits, else the 1 and 99 percentiles of evenly spread values."""
    if values is None or values.dtype == np.uint8:
        return 0.0, 255.0
    step = max(1, values.size // 2_000_000)
    low, high = np.percentile(values.reshape(-1)[::step], [1, 99])
    return float(low), float(high) if high > low else float(low) + 1


def to_grey(pixels: np.ndarray, shown: tuple[float, float]) -> np.ndarray:
    """Intensities as uint8, from black to white."""
    low, high = shown
    grey: np.ndarray = np.clip((pixels.astype(np.float32) - low) * (255 / (high - low)), 0, 255).astype(np.uint8)
    return grey
