"""File formats, one module per family: what a header says, the pixels behind it, and writing an array with a file's header.

The table ``FORMATS`` gives the functions that open and write files of a suffix; a new format is a module and its rows here. The
rest of the program imports from images/, which documents what is accepted.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from r2seg.data.formats.base import File, Grid, Header, ImageError, errors_of, is_invertible
from r2seg.data.formats.dicom import SeriesChoice, open_dicom, open_series
from r2seg.data.formats.dicom_files import VOLUMES, dicom_files, is_series_folder, kind_of
from r2seg.data.formats.itk import data_file_of, open_itk, write_itk
from r2seg.data.formats.nifti import header_file_of, open_nifti, write_nifti
from r2seg.data.formats.npy import open_npy, write_npy
from r2seg.data.formats.pictures import open_picture, write_png
from r2seg.data.formats.tiff import open_tiff, write_tiff
from r2seg.errors import some
from r2seg.files import replacing

__all__ = [
    "FORMATS",
    "IMAGE_SUFFIXES",
    "PICTURES",
    "WRITABLE",
    "File",
    "Grid",
    "Header",
    "ImageError",
    "SeriesChoice",
    "check_grid",
    "files_of",
    "is_dicom_volume",
    "known_suffix",
    "open_file",
    "split_suffix",
    "write_array",
]


@dataclass(frozen=True)
class Format:
    """How files of a suffix are read and written.

    Attributes:
        open: Reads the header.
        write: Writes an array; None if the format cannot hold label values faithfully.
        has_geometry: Whether it states voxel size and orientation; pictures do not.
    """

    open: Callable[[Path], File]
    write: Callable[[Path, np.ndarray, Header], None] | None = None
    has_geometry: bool = False


_NIFTI = Format(open_nifti, write_nifti, has_geometry=True)
_ITK = Format(open_itk, write_itk, has_geometry=True)
_TIFF = Format(open_tiff, write_tiff)
_READ_ONLY = Format(open_picture)

FORMATS: dict[str, Format] = {
    ".nii.gz": _NIFTI,
    ".nii": _NIFTI,
    ".img": _NIFTI,
    ".seg.nrrd": _ITK,
    ".nrrd": _ITK,
    ".mha": _ITK,
    ".mhd": _ITK,
    ".png": Format(open_picture, write_png),
    ".jpg": _READ_ONLY,
    ".jpeg": _READ_ONLY,
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".bmp": _READ_ONLY,
    ".gif": _READ_ONLY,
    ".ppm": _READ_ONLY,
    ".pgm": _READ_ONLY,
    ".pbm": _READ_ONLY,
    ".pnm": _READ_ONLY,
    ".ppm.gz": _READ_ONLY,
    ".pgm.gz": _READ_ONLY,
    ".pbm.gz": _READ_ONLY,
    ".pnm.gz": _READ_ONLY,
    ".npy": Format(open_npy, write_npy),
    ".dcm": Format(open_dicom, has_geometry=True),
}
# The formats of two files -> the second one
_SECOND_FILES: dict[str, Callable[[Path], Path]] = {".mhd": data_file_of, ".img": header_file_of}
IMAGE_SUFFIXES: tuple[str, ...] = tuple(FORMATS)
WRITABLE = tuple(suffix for suffix, kind in FORMATS.items() if kind.write)
PICTURES = tuple(suffix for suffix, kind in FORMATS.items() if not kind.has_geometry)


def split_suffix(path: str | Path) -> tuple[str, str]:
    """File name split into stem and known image suffix in lower case: ("ct.001", ".nii.gz"); ("x", "") of other files."""
    name = Path(path).name
    # The longest first: ".nii.gz" of "a.nii.gz". A bare ".png" is a hidden file without suffix.
    for suffix in sorted(IMAGE_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)], suffix
    return Path(name).stem, ""


def known_suffix(path: Path) -> str:
    """Suffix of an image file.

    Raises:
        ImageError: The suffix is not one of ``FORMATS``; the message lists them.
    """
    suffix = split_suffix(path)[1]
    if not suffix and kind_of(path) is not None:
        return ".dcm"
    if not suffix:
        raise ImageError(f"{path}: no image format is known by this suffix; known: {' '.join(IMAGE_SUFFIXES)}")
    return suffix


def open_file(path: Path, *, series: SeriesChoice = ()) -> File:
    """An image file, or a folder with a DICOM series, by its header, checked: it exists, has pixels, and its affine can be inverted.

    Args:
        path: A file; or a folder that holds the files of a DICOM series.
        series: Numbers or UIDs that choose one of several series in a folder; files need no choice.

    Raises:
        ImageError: One of these does not hold, or the header cannot be read.
    """
    with errors_of(path, "read"):
        if not path.exists():
            raise ImageError(f"{path}: does not exist")
        if path.is_dir():
            if not dicom_files(path):
                raise ImageError(f"{path}: is a folder, expected an image file or a folder with a DICOM series")
            file = open_series(path, series)
        else:
            suffix = known_suffix(path)
            if path.stat().st_size == 0:
                raise ImageError(f"{path}: the file is empty (0 bytes)")
            file = FORMATS[suffix].open(path)
    check_grid(file.grid)
    return file


def is_dicom_volume(path: Path) -> bool:
    """Whether a path is a folder with a DICOM series, or a DICOM file that holds a volume."""
    return is_series_folder(path) if path.is_dir() else kind_of(path) in VOLUMES


def check_grid(grid: Grid) -> None:
    """Refuses an image without pixels, or whose affine cannot be inverted.

    Raises:
        ImageError: It is one of these.
    """
    path = grid.path
    if 0 in grid.shape or grid.num_channels == 0:
        raise ImageError(f"{path}: has no pixels: shape {grid.shape}, {grid.num_channels} channels")
    if grid.affine is not None and not is_invertible(grid.affine):
        rows = "; ".join(" ".join(f"{v:g}" for v in row) for row in grid.affine[:3])
        raise ImageError(f"{path}: its affine [{rows}] is singular or not finite; repair the header")


def files_of(path: Path) -> list[Path]:
    """The files that writing to a path makes: the path, and a header or data file of its own in some formats."""
    second = _SECOND_FILES.get(path.suffix.lower())
    return [path] if second is None else [path, second(path)]


def write_array(path: Path, array: np.ndarray, around: Header) -> None:
    """Writes uint8 (*S), or with ``around.classes`` uint16 (*S, K), in the format of the path's suffix; whole or not at all.

    Args:
        path: File to write; its folder is made if needed.
        array: Values as they are to be in the file.
        around: Header, geometry and scale.

    Raises:
        ImageError: The format cannot hold the array, or the file cannot be written.
    """
    suffix = known_suffix(path)
    kind = FORMATS[suffix]
    if kind.write is None:
        raise ImageError(f"{path}: {suffix} cannot hold label values faithfully; give a .png name")
    if not kind.has_geometry and array.ndim - around.classes != 2:
        raise ImageError(
            f"{path}: a volume {array.shape} does not fit into a picture; give a .nii.gz, .nrrd or .mha name"
        )
    if kind.has_geometry and around.affine is None:
        if array.ndim - around.classes == 3:
            raise ImageError(f"{path}: the volume has no affine, which {suffix} needs: segment it with affine=...")
        raise ImageError(f"{path}: a picture has no geometry for {suffix}; give a .png name")
    with errors_of(path, "written"), replacing(path) as folder:
        kind.write(folder / path.name, array, around)
        if not (folder / path.name).is_file():  # a library that gives the file another name
            raise ImageError(
                f"{path}: cannot be written: the format's library wrote {some(os.listdir(folder))} instead"
            )
