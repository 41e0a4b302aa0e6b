"""What all file formats share: the grid and the opened file that a format yields, and the one error for files.

Each format family is a module of its own; ``__init__.py`` has the table from suffix to family. Nothing in this package deals with
labels or probabilities: images/ does.
"""

from __future__ import annotations

import gzip
import logging
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from isal import isal_zlib

from r2seg.data.formats.messages import named
from r2seg.errors import UserError
from r2seg.labels import Rgb

logger = logging.getLogger(__name__)

# No deflate data unpack to more: sizes that cannot be true are refused before anything is allocated.
MAX_INFLATION = 1032
RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


class ImageError(UserError):
    """An image file that cannot be read, written or understood; one line that names the file."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Where an image's pixels lie: what its header says, without the pixels.

    Attributes:
        path: The file.
        shape: Spatial size in the file's axis order: (rows, columns) of pictures, (X, Y, Z) of volumes.
        num_channels: Channels that `read_image` yields.
        affine: (4, 4) voxel index -> RAS+ millimetres, or None if the file has no geometry.
    """

    path: Path
    shape: tuple[int, ...]
    num_channels: int
    affine: np.ndarray | None

    @property
    def spatial_dims(self) -> int:
        return len(self.shape)

    @property
    def spacing_mm(self) -> tuple[float, ...] | None:
        """Distance between neighbouring voxels along each axis, or None if the file has no geometry."""
        if self.affine is None:
            return None
        return tuple(float(s) for s in np.linalg.norm(self.affine[:3, : len(self.shape)], axis=0))


@dataclass(frozen=True)
class File:
    """An image file whose header has been read.

    Attributes:
        grid: What the header says.
        source: What the format's writer needs to give the same header back, or None.
        pixels: Yields (C, *S) and, if called with True on a palette picture, its indices and the palette (n, 3) uint8.
        fields: Name -> text of the header's further fields, of NRRD, PNG and TIFF.
    """

    grid: Grid
    source: Any
    pixels: Callable[[bool], tuple[np.ndarray, np.ndarray | None]]
    fields: Mapping[str, str] = field(default_factory=dict)

    def load(self, *, indices: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
        """(C, *S) of real numbers in native byte order, and the palette if a palette picture's indices were requested."""
        path = self.grid.path
        with errors_of(path, "read"):
            array, palette = self.pixels(indices)
        if array.dtype.kind not in "buif":
            raise ImageError(f"{path}: holds values of type {array.dtype}; expected integers or real numbers")
        if array.dtype == bool:
            array = array.astype(np.uint8)
        if array.dtype.kind == "f" and array.dtype.itemsize > 8:  # torch has no longer floats
            array = array.astype(np.float64)
        if not array.dtype.isnative:  # torch cannot use a foreign byte order
            array = array.astype(array.dtype.newbyteorder("="))
        return array, palette


@dataclass(frozen=True)
class Header:
    """What the writer of a format puts around an array.

    Attributes:
        source: `File.source` of the image whose header is kept as far as the format can hold it, or None.
        affine: (4, 4) voxel index -> RAS+ millimetres; None for pictures.
        scale: What one step means, for NIfTI's scl_slope.
        classes: Whether the last axis is classes.
        colors: Label value -> colour, for formats that have colours.
        fields: Name -> text of further header fields, for NRRD, PNG and TIFF.
    """

    source: Any
    affine: np.ndarray | None
    scale: float = 1.0
    classes: bool = False
    colors: Mapping[int, Rgb] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def errors_of(path: Path, verb: str, *, speaker: Path | None = None) -> Iterator[None]:
    """Turns what the libraries raise on files they cannot read or write into one line with the file's name.

    Their warnings get the file's name, too, or that of ``speaker``, the folder of many files. On damaged files they raise nearly
    anything. When writing, an error that does not come from the disk or from memory is a bug and is not caught.
    """
    try:
        with named(speaker or path):
            yield
    except UserError:
        raise
    except Exception as error:
        if verb == "written" and not isinstance(error, OSError | RuntimeError | MemoryError):
            raise
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        elif isinstance(error, MemoryError):
            reason = f"it does not fit into memory ({error})"
        elif isinstance(error, EOFError):
            reason = "the file is truncated"
        elif isinstance(error, gzip.BadGzipFile | zlib.error | isal_zlib.error):
            reason = f"its compressed data are damaged ({error})"
        else:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            reason = lines[-1] if lines else type(error).__name__
        raise ImageError(f"{path}: cannot be {verb}: {reason}") from error


def is_invertible(affine: np.ndarray) -> bool:
    """Whether an affine (4, 4) maps voxels to distinct, finite places."""
    if not np.isfinite(affine).all():
        return False
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return bool(lengths.min() > 0 and abs(np.linalg.det(affine[:3, :3] / lengths)) > 1e-6)


def with_normal(affine: np.ndarray) -> np.ndarray:
    """Affine of a 2-D image; its third column, which headers often leave undefined, becomes a unit normal if it must."""
    if not is_invertible(affine):
        affine = affine.copy()
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        length = np.linalg.norm(normal)
        affine[:3, 2] = normal / length if length > 0 else 0
    return affine


def path_for_itk(path: Path) -> str:
    """The path as text for SimpleITK, which ends the whole process on a name that is not UTF-8.

    Raises:
        ImageError: The path is not UTF-8.
    """
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        raise ImageError(f"{path}: its name is not UTF-8, which SimpleITK cannot open: rename it") from None
    return str(path)


def check_complete(path: Path, have: int, size: int, what: str = "voxels") -> None:
    """Refuses a file that holds less than its header states.

    Raises:
        ImageError: Fewer than ``size`` bytes are there.
    """
    if have < size:
        raise ImageError(
            f"{path}: is truncated: holds {max(have, 0)} of the {size} bytes of {what} that its header states"
        )


def warn_of_rest(path: Path, have: int, size: int) -> None:
    """Warns of a file without a checksum that holds more than its header states."""
    if have > size:
        logger.warning(
            "%s: holds %d bytes more than the voxels that its header states: is the header right?", path, have - size
        )


def drop_alpha(path: Path, array: np.ndarray) -> np.ndarray:
    """(C + 1, *S) whose last channel is alpha -> (C, *S); refuses an alpha that hides anything."""
    opaque = 1 if array.dtype.kind == "f" else np.iinfo(array.dtype).max
    if not (array[-1] == opaque).all():
        if len(np.unique(array[-1])) > 1 and all((channel == channel.flat[0]).all() for channel in array[:-1]):
            raise ImageError(
                f"{path}: all its pixels have one colour, and only the alpha channel differs; if that is the mask, save the "
                "alpha channel alone as a grey picture"
            )
        raise ImageError(f"{path}: has transparent pixels (alpha channel); flatten the picture first")
    return array[:-1]
