"""The field of view of a picture: read from the mask of a case, or found as what is not the black border.

What becomes of it (ignored labels, the region that intensities are measured in) is decided in preprocessing.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from r2seg.data.geometry import WorkingGrid, resample, resample_indices
from r2seg.data.images import Image, LabelMap, read_label_map
from r2seg.errors import UserError

# The search is done on a copy of at most this many pixels a side.
_SEARCHED_SIDE = 512
# A border is darker than this share of the way from the darkest pixels to the median of the picture's middle.
_DARK = 0.12
# With less than this share of the picture outside, there is no border.
_LEAST_BORDER = 0.03


def read_field_of_view(path: Path, image: Image) -> LabelMap:
    """The mask of a case, on its image's grid.

    Shape: array (1, *S), above 0 inside.

    Raises:
        UserError: It cannot be read, lies on another grid, or is empty.
    """
    mask = read_label_map(path, {"field of view": 255}, like=image)
    if not mask.array.any():
        raise UserError(f"{path}: the field of view is empty")
    return mask


def find_field_of_view(picture: np.ndarray) -> np.ndarray | None:
    """The field of view of a picture with a dark border, or None if it has no such border.

    The brightest channel of each pixel of a downscaled copy is compared with a threshold between the dark border and the middle of the
    picture; the largest connected component is taken and its holes are filled.

    Args:
        picture: (C, H, W).

    Shape: (H, W) bool.
    """
    from scipy.ndimage import binary_fill_holes, label

    shape = picture.shape[1:]
    factor = min(1.0, _SEARCHED_SIDE / max(shape))
    small = tuple(max(1, round(size * factor)) for size in shape)
    brightness = resample(picture, WorkingGrid((0, 1), (False, False), shape, small)).max(0).astype(np.float32)
    middle = brightness[tuple(slice(size // 3, max(size // 3 + 1, 2 * size // 3)) for size in small)]
    dark, bright = float(np.percentile(brightness, 1)), float(np.median(middle))
    components, count = label(brightness > dark + _DARK * (bright - dark))
    if count == 0 or bright <= dark:
        return None
    largest = 1 + int(np.bincount(components.ravel())[1:].argmax())
    inside = binary_fill_holes(components == largest)
    if 1 - inside.mean() < _LEAST_BORDER or brightness[~inside].mean() > dark + 2 * _DARK * (bright - dark):
        return None
    back = WorkingGrid((0, 1), (False, False), small, shape)
    return resample_indices(inside.astype(np.uint8), back) > 0
