"""Changes of a picture's values before its intensity map: colour to one channel, CLAHE, gamma.

All are of the whole picture, deterministic, and keep its type. How intensities are scaled for the network is in intensity.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from r2seg.data.images import Image
from r2seg.errors import UserError, counted, entry_of

if TYPE_CHECKING:
    from r2seg.config import Preprocessing

logger = logging.getLogger(__name__)

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
# Bins of the histograms that CLAHE cuts, as in OpenCV for 8-bit pictures.
_BINS = 256


def _grey(colours: np.ndarray) -> np.ndarray:
    luma = np.tensordot(_LUMA, colours.astype(np.float64), axes=1)[None]
    return (np.rint(luma) if colours.dtype.kind in "ui" else luma).astype(colours.dtype)


def _green(colours: np.ndarray) -> np.ndarray:
    return colours[1:2]


# preprocessing.color -> (3, H, W) to (1, H, W); None keeps all channels
COLORS: dict[str, Callable[[np.ndarray], np.ndarray] | None] = {"keep": None, "grey": _grey, "green": _green}


def num_channels_seen(num_channels: int, preprocessing: Preprocessing) -> int:
    """Channels that are left of a file's."""
    return num_channels if preprocessing.color == "keep" else min(num_channels, 1)


def change_contrast(image: Image, preprocessing: Preprocessing) -> np.ndarray:
    """The picture's values after ``color``, ``clahe`` and ``gamma``, in this order and in its own type.

    Args:
        image: A picture; a volume only if none of the three is set.
        preprocessing: The settings.

    Shape: (C, H, W) -> (C, H, W), with one channel after grey or green.

    Raises:
        UserError: The picture has neither one nor three channels, and one of them is to be made.
    """
    array = image.array
    to_one = entry_of(COLORS, preprocessing.color, "preprocessing.color")
    if to_one is not None and len(array) != 1:
        if len(array) != 3:
            raise UserError(
                f"{image.path}: has {counted(len(array), 'channel')}, and preprocessing.color: {preprocessing.color} is for "
                "colour pictures of three: set color: keep"
            )
        if np.array_equal(array[0], array[1]) and np.array_equal(array[0], array[2]):
            logger.info("%s: is grey already: its three channels are equal", image.path)
        array = to_one(array)
    if preprocessing.clahe is not None:
        array = equalize(array, preprocessing.clahe.clip, preprocessing.clahe.tiles)
    if preprocessing.gamma is not None:
        array = apply_gamma(array, preprocessing.gamma)
    return array


def equalize(array: np.ndarray, clip: float, tiles: tuple[int, int]) -> np.ndarray:
    """Contrast-limited adaptive histogram equalization (CLAHE; Zuiderveld, Graphics Gems IV, 1994), by scikit-image.

    ``clip`` and ``tiles`` mean what they mean in OpenCV's ``createCLAHE``: no bin of a tile's histogram of 256 bins holds more than
    ``clip`` times the mean count, tile area / 256. scikit-image's ``clip_limit`` is the same cap as a share of the tile's pixels, so it
    is clip / 256. Values differ a little from OpenCV's, because scikit-image stretches the picture to the whole range before and
    after, and hands out what it has cut off in another order. Of three channels, the brightness (V of HSV) is equalized.

    Args:
        array: Integers of any range, or real numbers.
        clip: Cap of the bins as a multiple of the mean count.
        tiles: Number of tiles along rows and columns.

    Shape: (C, H, W) -> the same.
    """
    from skimage.exposure import equalize_adapthist

    top = _top(array)
    kernel = [max(1, -(-size // number)) for size, number in zip(array.shape[1:], tiles, strict=True)]

    def equalized(picture: np.ndarray) -> np.ndarray:
        if picture.min() == picture.max():  # nothing to equalize, and the library would divide by zero
            return picture / top
        return equalize_adapthist(picture, kernel, clip_limit=clip / _BINS, nbins=_BINS)

    if len(array) == 3:
        result = np.moveaxis(equalized(np.moveaxis(array, 0, -1)), -1, 0)
    else:
        result = np.stack([equalized(channel) for channel in array])
    return _from_unit(result, array.dtype, top)


def apply_gamma(array: np.ndarray, gamma: float) -> np.ndarray:
    """top * (x / top) ** (1 / gamma), with the largest value of the integer type as top, 1 for real numbers: above 1 brightens."""
    top = _top(array)
    if array.dtype == np.uint8:
        table = _from_unit((np.arange(256) / top) ** (1 / gamma), array.dtype, top)
        return table[array]
    return _from_unit((array.clip(0, None) / top) ** (1 / gamma), array.dtype, top)


def _top(array: np.ndarray) -> float:
    return float(np.iinfo(array.dtype).max) if array.dtype.kind in "ui" else 1.0


def _from_unit(values: np.ndarray, dtype: np.dtype, top: float) -> np.ndarray:
    """Values of 0 to 1 in the type, from 0 to its ``top``."""
    scaled = values * top
    return (np.rint(scaled) if dtype.kind in "ui" else scaled).astype(dtype)
