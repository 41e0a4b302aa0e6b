"""NRRD and MetaImage, read and written by SimpleITK. Only this module uses ITK's convention (LPS) for geometry."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from r2seg.data.formats.base import RAS_FROM_LPS, File, Grid, Header, ImageError, drop_alpha, path_for_itk, with_normal
from r2seg.data.formats.itk_voxels import check_voxels, find_voxels
from r2seg.data.formats.messages import standard_error_of

_IO = {".nrrd": "NrrdImageIO", ".mha": "MetaImageIO", ".mhd": "MetaImageIO"}

_LOCAL = b"ElementDataFile = LOCAL\n"
# Metadata of images that ITK's readers of NRRD, MetaImage and NIfTI made.
_MEDICAL_KEYS = ("ITK_InputFilterName", "ITK_FileNotes", "ITK_sform_corrected")


@dataclass(frozen=True)
class ItkSource:
    """Geometry in ITK's terms (LPS), over all axes of the file."""

    origin: tuple[float, ...]
    spacing: tuple[float, ...]
    direction: tuple[float, ...]
    size: tuple[int, ...]


def open_itk(path: Path) -> File:
    """An NRRD or MetaImage file by its header.

    Raises:
        ImageError: Its axes or values are not those of an image.
    """
    import SimpleITK

    find_voxels(path)
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(path_for_itk(path))
    reader.SetImageIO(_IO[path.suffix.lower()])
    _call(path, reader.ReadImageInformation)
    grid, source = _grid_of(reader, path)
    size, components = source.size, int(reader.GetNumberOfComponents())
    pixel = reader.GetPixelID()

    def pixels(_: bool) -> tuple[np.ndarray, None]:
        bytes_per_value = SimpleITK.Image(
            [1] * len(size), pixel, components if components > 1 else 0
        ).GetSizeOfPixelComponent()
        check_voxels(path, math.prod(size) * components, bytes_per_value)
        image, said = _call(path, reader.Execute)
        if said:  # such as "Uncompress failed", after which MetaImage gives voxels all the same
            raise ImageError(f"{path}: cannot be read: {said[0]}")
        array = SimpleITK.GetArrayFromImage(image)  # axes reversed, components last
        return _in_file_order(array, len(size), components), None

    nrrd = path.suffix.lower() == ".nrrd"
    return File(
        grid, source, pixels, {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()} if nrrd else {}
    )


def _call(path: Path, read: Callable[[], Any]) -> tuple[Any, list[str]]:
    """What a method of a reader returns, and what it said on standard error.

    MetaImage says there why it failed, its errors merely repeat the last errno.
    """
    if path.suffix.lower() == ".nrrd":
        return read(), []
    said: list[str] = []
    try:
        with standard_error_of(path) as said:
            return read(), said
    except RuntimeError as error:
        if said:
            raise ImageError(f"{path}: cannot be read: {said[0]}") from error
        raise


def from_simpleitk(image: Any) -> File:
    """A SimpleITK image in memory, by the rules of its file.

    An image of two axes is a picture (rows, columns) without geometry, unless it was read from a medical format.

    Raises:
        ImageError: Its axes or values are not those of an image.
    """
    import SimpleITK

    grid, source = _grid_of(image, Path("the SimpleITK image"))
    dims, components = len(source.size), int(image.GetNumberOfComponentsPerPixel())
    if dims == 2 and not any(image.HasMetaDataKey(key) for key in _MEDICAL_KEYS):
        picture = Grid(grid.path, grid.shape[::-1], components, None)

        def rows_and_columns(_: bool) -> tuple[np.ndarray, None]:
            array = SimpleITK.GetArrayFromImage(image)
            array = np.moveaxis(array, -1, 0) if components > 1 else array[None]
            return (drop_alpha(grid.path, array) if components in (2, 4) else array), None

        return File(replace(picture, num_channels=components - (components in (2, 4))), None, rows_and_columns)
    return File(grid, source, lambda _: (_in_file_order(SimpleITK.GetArrayFromImage(image), dims, components), None))


def _in_file_order(array: np.ndarray, dims: int, components: int) -> np.ndarray:
    """ITK's array, axes reversed and components last, as (C, *S)."""
    if components > 1:
        return array.transpose(dims, *range(dims - 1, -1, -1))
    return np.moveaxis(array.T, -1, 0) if dims == 4 else array.T[None]


def _grid_of(image: Any, path: Path) -> tuple[Grid, ItkSource]:
    """Grid and geometry of a SimpleITK image, or of a reader that has read a header.

    Raises:
        ImageError: The axes or values are not those of an image.
    """
    import SimpleITK

    size = tuple(int(n) for n in image.GetSize())
    has_header_only = isinstance(image, SimpleITK.ImageFileReader)
    components = int(image.GetNumberOfComponents() if has_header_only else image.GetNumberOfComponentsPerPixel())
    if not 2 <= len(size) <= 4 or (len(size) == 4 and components > 1):
        raise ImageError(
            f"{path}: has {len(size)} axes {size} of {components} components; expected 2, 3, or 4 whose last is channels"
        )
    if "complex" in SimpleITK.GetPixelIDValueAsString(image.GetPixelID()):
        raise ImageError(f"{path}: holds complex numbers; write their magnitude or phase as a real image")
    source = ItkSource(tuple(image.GetOrigin()), tuple(image.GetSpacing()), tuple(image.GetDirection()), size)
    spatial = size[:3]
    dims = len(spatial)
    affine = np.eye(4)
    affine[:dims, :dims] = np.reshape(source.direction, (len(size), -1))[:dims, :dims] * source.spacing[:dims]
    affine[:dims, 3] = source.origin[:dims]
    affine = RAS_FROM_LPS @ affine
    if dims == 2:
        affine = with_normal(affine)

    num_channels = size[3] if len(size) == 4 else components
    return Grid(path, spatial, num_channels, affine), source


def write_itk(path: Path, array: np.ndarray, around: Header) -> None:
    """Writes voxels with an ITK source's geometry, or with that of the affine; classes become components."""
    import SimpleITK

    source, classes = around.source, around.classes
    dims = array.ndim - classes
    if isinstance(source, ItkSource):
        origin, spacing = source.origin, source.spacing
        direction = np.reshape(source.direction, (len(source.size), -1))
        if source.size[3:] == (1,) and not classes:
            array, dims = array[..., None], 4
    else:
        lps = RAS_FROM_LPS @ around.affine
        spacing = np.linalg.norm(lps[:dims, :dims], axis=0)
        origin, direction = lps[:dims, 3], lps[:dims, :dims] / spacing
    array = array.transpose(*range(dims - 1, -1, -1), *([dims] if classes else []))
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array), isVector=classes)
    image.SetOrigin([float(v) for v in origin[:dims]])
    image.SetSpacing([float(v) for v in spacing[:dims]])
    image.SetDirection([float(v) for v in direction[:dims, :dims].flat])
    for name, text in around.fields.items():
        image.SetMetaData(name, text)
    # ITK knows its suffixes in lower case only: to SCAN.MHA it would write SCAN.mhd and SCAN.zraw.
    suffix = ".nrrd" if path.suffix.lower() == ".nrrd" else ".mha"
    written = path.with_suffix(suffix)
    SimpleITK.WriteImage(image, path_for_itk(written), useCompression=True, imageIO=_IO[suffix])
    if path.suffix.lower() == ".mhd":
        _split_metaimage(written, path)
    else:
        written.rename(path)


def data_file_of(path: Path) -> Path:
    """The file for the voxels of a .mhd file: a.mhd has a.zraw, a.MHD has a.ZRAW."""
    suffix = path.suffix
    data = ".ZRAW" if suffix.isupper() else ".zraw" if suffix.islower() else ".Zraw"
    return path.with_name(path.stem.replace("%", "_percent_") + data)


def _split_metaimage(single: Path, path: Path) -> None:
    """Replaces a .mha file by a header ``path`` and its data.

    ITK would do it, but gives the path of the data to printf: a %s in it ends the process.
    """
    head, mark, data = single.read_bytes().partition(_LOCAL)
    if not mark:
        raise RuntimeError("SimpleITK wrote a MetaImage without local data")
    file = data_file_of(path)
    file.write_bytes(data)
    path.write_bytes(head + b"ElementDataFile = " + os.fsencode(file.name) + b"\n")
    single.unlink()
