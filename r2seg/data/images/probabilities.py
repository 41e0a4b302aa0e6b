"""Probability maps: written in steps of 1/65535 on an image's own grid, and read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from r2seg.data.formats import PICTURES, Header, known_suffix, split_suffix, write_array
from r2seg.data.images.image import Image, read_image

_STEPS = 65535


def probabilities_path(path: str | Path) -> Path:
    """The file that probabilities are written to: a picture's suffix is replaced by .npy.

    Raises:
        ImageError: The suffix is unknown.
    """
    path = Path(path)
    return path.with_name(split_suffix(path)[0] + ".npy") if known_suffix(path) in PICTURES else path


def write_probabilities(path: str | Path, probabilities: np.ndarray, like: Image) -> Path:
    """Writes probabilities as uint16 in steps of 1/65535, classes last, on the grid of the image they were made from.

    NIfTI is (X, Y, Z, K) with scl_slope 1/65535, so that any reader yields probabilities. NRRD and MetaImage have K components
    per voxel, pictures become .npy (rows, columns, K); neither states the scale. `read_probabilities` reads all of them.

    Args:
        path: File to write; a picture's suffix is replaced by .npy.
        probabilities: Values in [0, 1].
        like: The image, as read.

    Shape: probabilities (K, *S), with S that of `like`.

    Returns:
        The file written.

    Raises:
        ImageError: The file cannot be written.
    """
    path = Path(path)
    if probabilities.shape[1:] != like.shape:
        raise ValueError(f"probabilities {probabilities.shape} are not (K, *S) on the grid {like.shape} of {like.path}")
    path = probabilities_path(path)
    steps = np.empty((*like.shape, len(probabilities)), np.uint16, order="F" if like.spatial_dims == 3 else "C")
    for k, channel in enumerate(probabilities):
        scaled = np.asarray(channel, np.float32) * _STEPS
        steps[..., k] = np.rint(np.clip(scaled, 0, _STEPS, out=scaled), out=scaled)
    write_array(path, steps, Header(like.source, like.affine, scale=1 / _STEPS, classes=True))
    return path


def read_probabilities(path: str | Path) -> Image:
    """Probability map that `write_probabilities` wrote, or one that another tool wrote as real numbers.

    Shape: array (K, *S) float32, or float64 of a file that holds float64.

    Raises:
        ImageError: As `read_image`.
    """
    image = read_image(path)
    array = image.array if image.array.dtype == np.float64 else image.array.astype(np.float32, copy=False)
    if image.array.dtype == np.uint16:
        array *= np.float32(1 / _STEPS)
    return Image(array, image.affine, image.path, image.source)
