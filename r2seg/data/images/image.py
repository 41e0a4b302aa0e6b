"""An image in memory, as its file holds it, and the check that two images lie on one grid.

Voxels are in the axis order of the file; nothing is reoriented, resampled or rescaled here (that is preprocessing.py).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from r2seg.data.formats import (
    WRITABLE,
    File,
    Grid,
    ImageError,
    SeriesChoice,
    check_grid,
    is_dicom_volume,
    known_suffix,
    open_file,
    split_suffix,
)


@dataclass(frozen=True, eq=False)
class Image:
    """An image as its file holds it.

    Attributes:
        array: (C, *S) in the file's axis order and dtype; float32 if the header rescales. May be memory-mapped.
        affine: (4, 4) voxel index -> RAS+ millimetres, or None if the file has no geometry.
        path: The (first) file.
        source: What a writer needs to give the same header back; opaque.
    """

    array: np.ndarray
    affine: np.ndarray | None
    path: Path
    source: Any = field(default=None, repr=False)

    @property
    def grid(self) -> Grid:
        return Grid(self.path, self.shape, self.num_channels, self.affine)

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial size (*S), without channels."""
        return tuple(self.array.shape[1:])

    @property
    def spatial_dims(self) -> int:
        return self.array.ndim - 1

    @property
    def num_channels(self) -> int:
        return self.array.shape[0]

    @property
    def spacing_mm(self) -> tuple[float, ...] | None:
        """Distance between neighbouring voxels along each axis, or None if the file has no geometry."""
        return self.grid.spacing_mm


def output_name(path: str | Path) -> str:
    """File name of an input's output: the input's own, with .png for pictures whose format cannot hold a label map.

    A DICOM series gets the name of its folder, or of its file, with .nii.gz.
    The "_0000" that marks a case's first channel is dropped; "scan_0007.png" keeps its number.
    """
    path = Path(path)
    stem = path.name if path.is_dir() else split_suffix(path)[0]
    if is_dicom_volume(path):
        suffix = ".nii.gz"
    else:
        suffix = path.name[len(stem) :] if known_suffix(path) in WRITABLE else ".png"
    return (stem.removesuffix("_0000") or stem) + suffix


def read_grid(path: str | Path, *, series: SeriesChoice = ()) -> Grid:
    """Grid of an image file, from its header alone.

    Args:
        path: A file, or a folder with a DICOM series.
        series: As in `read_image`.

    Raises:
        ImageError: The file is missing or not an image, or its header cannot be read.
    """
    return open_file(Path(path), series=series).grid


def read_image(path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *, series: SeriesChoice = ()) -> Image:
    """Image of one file, or of several files that are the channels of one case.

    Args:
        path: A file or a folder with a DICOM series, or several of them in channel order whose grids agree.
        series: Numbers or UIDs of DICOM series, which choose in folders that hold several.

    Shape: array (C, *S), S in the file's axis order.

    Raises:
        ImageError: A file is missing, damaged or unsupported, holds NaN or infinite values, or the grids differ.
    """
    paths = [path] if isinstance(path, str | os.PathLike) else list(path)
    if not paths:
        raise ValueError("read_image: no file given")
    files = [open_file(Path(one), series=series) for one in paths]
    first = files[0].grid
    for other in files[1:]:
        check_same_grid(first, other.grid)
    arrays = [_checked_array(file) for file in files]
    array = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    return Image(array, first.affine, first.path, files[0].source)


def image_of(file: File) -> Image:
    """Image of a file that is open, or of an image in memory; checked as `read_image` does.

    Raises:
        ImageError: It has no pixels, its affine cannot be inverted, or its values are not finite real numbers.
    """
    check_grid(file.grid)
    return Image(_checked_array(file), file.grid.affine, file.grid.path, file.source)


def _checked_array(file: File) -> np.ndarray:
    array = file.load()[0]
    check_finite(file.grid.path, array)
    return array


class GridError(ImageError):
    """Two images that should lie on one grid and do not."""


def check_same_grid(first: Grid | Image, second: Grid | Image) -> None:
    """Checks that two images lie on one grid: equal shape, and corners within a tenth of a voxel if both have geometry.

    A tenth, because a qform's quaternion in float32 may turn a grid by 3e-4 rad against the sform of the same file.

    Raises:
        GridError: They differ; names both files and what differs.
    """
    if first.shape != second.shape:
        raise GridError(f"{second.path}: grid {second.shape} differs from grid {first.shape} of {first.path}")
    if first.affine is None or second.affine is None:
        return
    corners = np.indices((2,) * len(first.shape)).reshape(len(first.shape), -1).T * (np.array(first.shape) - 1)
    difference = second.affine - first.affine
    shift = float(np.linalg.norm(corners @ difference[:3, : corners.shape[1]].T + difference[:3, 3], axis=1).max())
    first_mm, second_mm = first.spacing_mm or (), second.spacing_mm or ()  # both have an affine
    if shift > 0.1 * min(first_mm):
        raise GridError(
            f"{second.path}: grid differs from that of {first.path} by up to {shift:.4g} mm: "
            f"spacing {_numbers(second_mm)} against {_numbers(first_mm)} mm, "
            f"first voxel at {_numbers(second.affine[:3, 3])} against {_numbers(first.affine[:3, 3])} mm"
        )


def _numbers(values: Iterable[float]) -> str:
    return "(" + ", ".join(f"{v:.5g}" for v in values) + ")"


def check_finite(path: Path, array: np.ndarray) -> None:
    """Refuses NaN and infinite values.

    Args:
        path: Their file.
        array: Values (C, *S) of any type.

    Raises:
        ImageError: There are some; names how many and the first.
    """
    if array.dtype.kind != "f":
        return
    # One pass without a mask: a sum is finite unless a voxel is not (or the sum overflows: then the mask decides).
    with np.errstate(over="ignore", invalid="ignore"):
        if math.isfinite(array.sum(dtype=np.float64)):
            return
    bad = ~np.isfinite(array)
    if count := int(bad.sum()):
        channel, *index = (int(i) for i in np.unravel_index(int(bad.argmax()), bad.shape))
        where = f"index {tuple(index)}" + (f" of channel {channel}" if len(array) > 1 else "")
        value = array[(channel, *index)]
        raise ImageError(f"{path}: {count} voxels are NaN or infinite, the first ({value}) at {where}; replace them")
