"""numpy's .npy as a picture: (rows, columns) or (rows, columns, channels), memory-mapped; also a picture's probabilities."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from r2seg.data.formats.base import File, Grid, Header, ImageError, check_complete

_MAX_CHANNELS = 16


def open_npy(path: Path) -> File:
    """A .npy file as a picture.

    Raises:
        ImageError: Its shape is not that of a picture.
    """
    try:
        array = np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))
    except ValueError:  # an empty array cannot be mapped; a damaged file gives its reason when it is read
        _check_size(path)
        array = np.load(path, allow_pickle=False)
    shape = array.shape
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] > _MAX_CHANNELS):
        raise ImageError(
            f"{path}: has shape {shape}; expected (rows, columns) or (rows, columns, channels) with at most "
            f"{_MAX_CHANNELS} channels; volumes need a format with geometry, such as NIfTI"
        )
    array = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    return File(Grid(path, tuple(shape[:2]), len(array), None), None, lambda _: (array, None))


def _check_size(path: Path) -> None:
    """Refuses a file that is shorter than its header states, before numpy allocates what the header states."""
    with open(path, "rb") as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            return
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        if not dtype.hasobject:
            check_complete(path, path.stat().st_size - file.tell(), math.prod(shape) * dtype.itemsize)


def write_npy(path: Path, array: np.ndarray, _: Header) -> None:
    """Writes the array as it is."""
    with open(path, "wb") as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)
