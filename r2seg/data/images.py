"""Every file format in and out, geometry kept: pictures, volumes, label maps and probability maps.

Voxels come and go in the axis order of the file; nothing is reoriented, resampled or rescaled here (that is preprocessing.py).
What is read: NIfTI (.nii, .nii.gz, .img with its .hdr), NRRD, MetaImage, pictures (png, jpg, tif, bmp, gif, ppm, pgm, pbm, also
.gz of the last three) and .npy.

Choices where a format leaves room:

- NIfTI: the sform where its code is above 0, else the qform, else nibabel's default (as Analyze). Millimetres are
  used throughout: units of metre or micron are converted, unknown units are taken as millimetres. Two axes are a picture with an
  affine; of four axes the last one is channels; more are refused. RGB voxels are three channels.
- An opaque alpha channel is dropped; one that hides something is refused. Palette pictures become RGB as images.
- A picture that asks to be rotated or mirrored on display (EXIF orientation) is refused: whether its mask was drawn on the
  stored or on the displayed pixels cannot be known.
- TIFF and GIF with several pages are refused: a stack of pages has no voxel size or orientation. Channels within a page are fine.
- .npy holds (rows, columns) or (rows, columns, channels) with at most 16 channels; volumes need a format that knows geometry.
"""

from __future__ import annotations

import gzip
import math
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from r2seg.errors import UserError

IGNORE = 255

_NIFTI = (".nii.gz", ".nii", ".img")
_ITK = (".nrrd", ".mha", ".mhd")
_TIFF = (".tif", ".tiff")
_NETPBM = (".ppm", ".pgm", ".pbm", ".pnm")
_NETPBM_GZ = tuple(suffix + ".gz" for suffix in _NETPBM)
_PICTURES = (".png", ".jpg", ".jpeg", *_TIFF, ".bmp", ".gif", *_NETPBM, *_NETPBM_GZ, ".npy")
IMAGE_SUFFIXES: tuple[str, ...] = (*_NIFTI, *_ITK, *_PICTURES)

_KEPT_ON_OUTPUT = (*_NIFTI, *_ITK, *_TIFF, ".png", ".npy")
_MAX_NPY_CHANNELS = 16
_RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

# A 512x512x130 lung mask: level 1 takes 0.04 s and 283 kB, 4 0.10 s and 145 kB, 6 0.11 s and 110 kB, 9 0.33 s and 84 kB.
_GZIP_LEVEL = 4
# Probabilities are noise to gzip: higher levels cost seconds and save little.
_PROBABILITY_GZIP_LEVEL = 1
_PROBABILITY_SCALE = 65535


class ImageError(UserError):
    """An image file that cannot be read, written or understood; one line that names the file."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Where an image's pixels lie: what its header says, without the pixels.

    Attributes:
        path: The file.
        shape: Spatial size in the file's axis order: (rows, columns) of pictures, (X, Y, Z) of volumes.
        num_channels: Channels that `read_image` yields.
        affine: (4, 4) voxel index -> RAS+ millimetres, or None where the file has no geometry.
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
        """Distance between neighbouring voxels along each axis, or None where the file has no geometry."""
        if self.affine is None:
            return None
        return tuple(float(s) for s in np.linalg.norm(self.affine[:3, : len(self.shape)], axis=0))


@dataclass(frozen=True, eq=False)
class Image:
    """An image as its file holds it.

    Attributes:
        array: (C, *S) in the file's axis order and dtype; float32 where the header rescales. May be memory-mapped.
        affine: (4, 4) voxel index -> RAS+ millimetres, or None where the file has no geometry.
        path: The (first) file.
        source: What a writer needs to give the same header back; opaque.
    """

    array: np.ndarray
    affine: np.ndarray | None
    path: Path
    source: Any = field(default=None, repr=False)

    @property
    def grid(self) -> Grid:
        return Grid(self.path, tuple(self.array.shape[1:]), self.array.shape[0], self.affine)

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
        """Distance between neighbouring voxels along each axis, or None where the file has no geometry."""
        return self.grid.spacing_mm


# --- names


def split_suffix(path: str | Path) -> tuple[str, str]:
    """File name split into stem and known image suffix in lower case: ("ct.001", ".nii.gz"); ("x", "") of other files."""
    name = Path(path).name
    lower = name.lower()
    # ".nii.gz" before ".gz"-less suffixes: the longest match wins, and a bare ".png" is a hidden file without suffix.
    for suffix in sorted(IMAGE_SUFFIXES, key=len, reverse=True):
        if lower.endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)], suffix
    return Path(name).stem, ""


def output_name(path: str | Path) -> str:
    """File name that an output takes for this input: its own, with .png for pictures whose format cannot hold a label map.

    The "_0000" that marks a case's first channel is dropped; "scan_0007.png" keeps its number.
    """
    stem, suffix = split_suffix(path)
    if not suffix:
        raise _unknown_suffix(Path(path))
    kept = Path(path).name[len(stem) :] if suffix in _KEPT_ON_OUTPUT else ".png"
    return (stem.removesuffix("_0000") or stem) + kept


def _unknown_suffix(path: Path) -> ImageError:
    return ImageError(f"{path}: no image format is known by this suffix; known: {' '.join(IMAGE_SUFFIXES)}")


# --- reading


def read_grid(path: str | Path) -> Grid:
    """Grid of an image file, from its header alone.

    Raises:
        ImageError: The file is missing, not an image, or its header is unreadable.
    """
    return _open(Path(path)).grid


def read_image(path: str | Path | Sequence[str | Path]) -> Image:
    """Image of one file, or of several files that are the channels of one case.

    Args:
        path: A file, or files in channel order whose grids agree.

    Shape: array (C, *S), S in the file's axis order.

    Raises:
        ImageError: A file is missing, damaged or unsupported, holds NaN or infinite values, or the grids differ.
    """
    if isinstance(path, str | os.PathLike):
        file = _open(Path(path))
        return Image(_load(file), file.grid.affine, file.grid.path, file.source)
    files = [_open(Path(p)) for p in path]
    if not files:
        raise ValueError("read_image: no file given")
    for other in files[1:]:
        check_same_grid(files[0].grid, other.grid)
    first = files[0]
    array = _load(first) if len(files) == 1 else np.concatenate([_load(file) for file in files])
    return Image(array, first.grid.affine, first.grid.path, first.source)


def check_same_grid(first: Grid | Image, second: Grid | Image) -> None:
    """Checks that two images lie on one grid: equal shape, and corners within a tenth of a voxel where both have geometry.

    A tenth, because a qform's quaternion in float32 turns a grid by up to 3e-4 rad against the sform of the same file.

    Raises:
        ImageError: They differ; names both files and what differs.
    """
    shapes = f"{tuple(first.shape)} of {first.path}"
    if tuple(first.shape) != tuple(second.shape):
        raise ImageError(f"{second.path}: grid {tuple(second.shape)} differs from grid {shapes}")
    if first.affine is None or second.affine is None:
        return
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in first.shape])).reshape(len(first.shape), -1)
    corners = np.vstack([corners, np.zeros((3 - len(first.shape), corners.shape[1])), np.ones(corners.shape[1])])
    shift = float(np.linalg.norm(((second.affine - first.affine) @ corners)[:3], axis=0).max())
    if shift > 0.1 * min(first.spacing_mm):
        raise ImageError(
            f"{second.path}: grid differs from that of {first.path} by up to {shift:.4g} mm "
            f"(spacing {_numbers(second.spacing_mm)} against {_numbers(first.spacing_mm)} mm, "
            f"first voxel at {_numbers(second.affine[:3, 3])} against {_numbers(first.affine[:3, 3])} mm)"
        )


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{v:.5g}" for v in values) + ")"


@dataclass(frozen=True)
class _File:
    """An image file whose header has been read: `load` yields (C, *S), and the palette when indices were asked for."""

    grid: Grid
    source: Any
    load: Callable[..., np.ndarray]


def _open(path: Path) -> _File:
    suffix = split_suffix(path)[1]
    with _errors_of(path, "read"):
        if path.is_dir():
            raise ImageError(f"{path}: is a folder, expected an image file")
        if not path.exists():
            raise ImageError(f"{path}: does not exist")
        if not suffix:
            raise _unknown_suffix(path)
        if path.stat().st_size == 0:
            raise ImageError(f"{path}: the file is empty (0 bytes)")
        if suffix in _NIFTI:
            opener = _open_nifti
        elif suffix in _ITK:
            opener = _open_itk
        elif suffix in _TIFF:
            opener = _open_tiff
        elif suffix == ".npy":
            opener = _open_npy
        else:
            opener = _open_picture
        file = opener(path)
    grid = file.grid
    if 0 in grid.shape or grid.num_channels == 0:
        raise ImageError(f"{path}: has no pixels: shape {grid.shape}, {grid.num_channels} channels")
    if grid.affine is not None and not _invertible(grid.affine):
        raise ImageError(
            f"{path}: its affine is singular or not finite: {np.asarray(grid.affine)[:3].tolist()}; repair the header"
        )
    return file


def _load(file: _File) -> np.ndarray:
    path = file.grid.path
    with _errors_of(path, "read"):
        array = file.load()
    _check_dtype(path, array.dtype)
    if not array.dtype.isnative:  # torch knows no foreign byte order
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype.kind == "f":
        _check_finite(path, array)
    return array


def _check_dtype(path: Path, dtype: np.dtype) -> None:
    if dtype.kind == "c":
        raise ImageError(f"{path}: holds complex numbers ({dtype}); write their magnitude or phase as a real image")
    if dtype.kind not in "uif":
        raise ImageError(f"{path}: holds values of type {dtype}; expected integers or real numbers")


def _check_finite(path: Path, array: np.ndarray) -> None:
    # One pass without a mask: a sum is finite unless a voxel is not (or it overflows, which the mask then clears up).
    with np.errstate(over="ignore", invalid="ignore"):
        if math.isfinite(array.sum(dtype=np.float64)):
            return
    bad = ~np.isfinite(array)
    count = int(bad.sum())
    if count:
        channel, *index = (int(i) for i in np.unravel_index(int(bad.argmax()), bad.shape))
        where = f"index {tuple(index)}" + (f" of channel {channel}" if len(array) > 1 else "")
        value = array[(channel, *index)]
        raise ImageError(f"{path}: {count} voxels are NaN or infinite, the first ({value}) at {where}; replace them")


def _invertible(affine: np.ndarray) -> bool:
    if not np.isfinite(affine).all():
        return False
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return bool(lengths.min() > 0 and abs(np.linalg.det(affine[:3, :3] / lengths)) > 1e-6)


@contextmanager
def _errors_of(path: Path, verb: str) -> Iterator[None]:
    """What the libraries raise on files they cannot read or write, as one line with the file's name."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        elif isinstance(error, EOFError):
            reason = "the file is truncated"
        else:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            reason = lines[-1] if lines else type(error).__name__
        raise ImageError(f"{path}: cannot be {verb}: {reason}") from error


def _drop_alpha(path: Path, array: np.ndarray) -> np.ndarray:
    """(C + 1, *S) whose last channel is alpha -> (C, *S); refuses an alpha that hides anything."""
    opaque = 1 if array.dtype.kind == "f" else np.iinfo(array.dtype).max
    if not (array[-1] == opaque).all():
        raise ImageError(f"{path}: has transparent pixels (alpha channel); flatten the picture first")
    return array[:-1]


# NIfTI


def _open_nifti(path: Path) -> _File:
    import nibabel

    header_path = path.with_name(split_suffix(path)[0] + ".hdr")
    if path.suffix.lower() == ".img" and not header_path.exists():
        raise ImageError(f"{path}: its header {header_path.name} is missing")
    try:
        image = nibabel.load(path)
    except zlib.error as error:
        raise ImageError(f"{path}: cannot be read: its gzip data is damaged ({error})") from error
    if not isinstance(image, nibabel.Nifti1Pair | nibabel.Nifti2Pair):
        raise ImageError(f"{path}: is {type(image).__name__}, which states no orientation; convert it to NIfTI")
    header, proxy = image.header, image.dataobj
    shape = tuple(int(n) for n in image.shape)
    spatial, channels = shape[:3], shape[3:]
    if not 2 <= len(shape) <= 4:
        raise ImageError(f"{path}: has {len(shape)} axes {shape}; expected 2, 3, or 4 whose last is channels")
    dtype = header.get_data_dtype()
    colours = [name for name in dtype.names or () if name != "A"]
    if colours and channels:
        raise ImageError(f"{path}: has coloured voxels and a fourth axis {shape}; expected one of the two")
    num_channels = len(colours) or (channels[0] if channels else 1)
    affine = np.array(image.affine, np.float64)
    # xyzt_units: 1 metre, 2 millimetre, 3 micron
    affine[:3] *= {1: 1e3, 3: 1e-3}.get(int(header["xyzt_units"]) & 7, 1.0)
    if len(spatial) == 2:
        affine = _with_normal(affine)
    slope, inter = proxy.slope, proxy.inter

    def load(**_: Any) -> np.ndarray:
        if dtype.fields is None:
            _check_dtype(path, dtype)
        array = _nifti_voxels(path, proxy)
        if dtype.names:
            array = np.ascontiguousarray(array).view(np.uint8).reshape(*spatial, len(dtype.names))
        if array.ndim == len(spatial):
            array = array[None]
        else:
            array = np.moveaxis(array, -1, 0)
        if dtype.names and "A" in dtype.names:
            array = _drop_alpha(path, array)
        if (slope, inter) != (1.0, 0.0):
            array = array.astype(np.float32)
            array *= np.float32(slope)
            array += np.float32(inter)
        elif array.dtype.kind == "f" and array.dtype.itemsize > 8:
            array = array.astype(np.float64)
        return array

    grid = Grid(path, spatial, num_channels, affine)
    return _File(grid, ("nifti", header, shape), load)


def _with_normal(affine: np.ndarray) -> np.ndarray:
    """Affine of a 2-D image whose third column, about which its header often says nothing, is a unit normal if it was singular."""
    if not _invertible(affine):
        affine = affine.copy()
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        length = np.linalg.norm(normal)
        affine[:3, 2] = normal / length if length > 0 else 0
    return affine


def _nifti_voxels(path: Path, proxy: Any) -> np.ndarray:
    """Stored voxels in the file's shape, unscaled; memory-mapped (copy on write) where the file is not compressed."""
    dtype, shape, offset = proxy.dtype, proxy.shape, int(proxy.offset)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if path.name.lower().endswith(".gz"):
        return _gunzip(path, offset, size).view(dtype).reshape(shape, order="F")
    have = path.stat().st_size - offset
    if have < size:
        raise ImageError(
            f"{path}: is truncated: holds {max(have, 0)} of the {size} bytes of voxels that its header promises"
        )
    return np.asarray(np.memmap(path, dtype, "c", offset, shape, "F"))


def _gunzip(path: Path, skip: int, size: int) -> np.ndarray:
    """Bytes [skip, skip + size) of a gzip file's content, its checksum verified.

    Inflates into the array itself: half the time of `gzip`, which copies every block thrice, and no second copy in memory.
    """
    content = np.empty(size, np.uint8)
    done = -skip
    decoder = zlib.decompressobj(wbits=31)
    complete = False
    with open(path, "rb") as file:
        while block := file.read(1 << 18):
            while block:
                if complete:  # a gzip file may have several members, and zeros as padding behind the last
                    block = block.lstrip(b"\0")
                    if not block:
                        break
                    decoder, complete = zlib.decompressobj(wbits=31), False
                try:
                    piece = decoder.decompress(block)
                except zlib.error as error:
                    raise ImageError(f"{path}: cannot be read: its gzip data is damaged ({error})") from error
                start, stop = max(done, 0), min(done + len(piece), size)
                if start < stop:
                    content[start:stop] = np.frombuffer(piece, np.uint8, stop - start, start - done)
                done += len(piece)
                block, complete = decoder.unused_data, decoder.eof
    if not complete or done < size:
        raise ImageError(
            f"{path}: is truncated: holds {max(done, 0)} of the {size} bytes of voxels that its header promises"
        )
    return content


# NRRD and MetaImage

_ITK_READERS = {".nrrd": "NrrdImageIO", ".mha": "MetaImageIO", ".mhd": "MetaImageIO"}


def _open_itk(path: Path) -> _File:
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(_ITK_READERS[split_suffix(path)[1]])
    reader.ReadImageInformation()
    size = tuple(int(n) for n in reader.GetSize())
    components = int(reader.GetNumberOfComponents())
    if not 2 <= len(size) <= 4 or (len(size) == 4 and components > 1):
        raise ImageError(
            f"{path}: has {len(size)} axes {size} of {components} components; expected 2, 3, or 4 whose last is channels"
        )
    if "complex" in SimpleITK.GetPixelIDValueAsString(reader.GetPixelID()):
        raise ImageError(f"{path}: holds complex numbers; write their magnitude or phase as a real image")
    dims = len(size)
    spatial = size[:3]
    origin, spacing = np.array(reader.GetOrigin()), np.array(reader.GetSpacing())
    direction = np.array(reader.GetDirection()).reshape(dims, dims)
    d = len(spatial)
    affine = np.eye(4)
    affine[:d, :d] = direction[:d, :d] * spacing[:d]
    affine[:d, 3] = origin[:d]
    affine = _RAS_FROM_LPS @ affine
    if d == 2:
        affine = _with_normal(affine)
    num_channels = size[3] if dims == 4 else components

    def load(**_: Any) -> np.ndarray:
        array = SimpleITK.GetArrayFromImage(reader.Execute())  # axes reversed, components last
        if components > 1:
            array = np.moveaxis(array, -1, 0)
            return array.transpose(0, *range(d, 0, -1))
        array = array.T
        return np.moveaxis(array, -1, 0) if dims == 4 else array[None]

    grid = Grid(path, spatial, num_channels, affine)
    return _File(
        grid, ("itk", (tuple(reader.GetOrigin()), tuple(reader.GetSpacing()), tuple(reader.GetDirection())), size), load
    )


# Pictures


def _pillow(path: Path) -> Any:
    from PIL import Image as Pillow

    if path.suffix.lower() == ".gz":
        with gzip.open(path) as file:
            return Pillow.open(BytesIO(file.read()))
    return Pillow.open(path)


def _open_picture(path: Path) -> _File:
    with _pillow(path) as picture:
        if getattr(picture, "n_frames", 1) > 1:
            raise ImageError(f"{path}: has {picture.n_frames} frames; expected a single picture")
        _check_upright(path, picture.getexif().get(274, 1))
        mode, (columns, rows) = picture.mode, picture.size
        deep = picture.format == "PNG" and _png_is_deep_colour(path)
        if picture.format == "PPM" and mode == "RGB" and picture.tile and _ppm_is_deep(picture):
            raise ImageError(
                f"{path}: has more than 8 bits a colour, which cannot be read without loss; convert it to tif or png"
            )
    if mode not in ("1", "L", "I", "F", "P", "RGB", "LA", "RGBA", "PA") and not mode.startswith("I;16"):
        raise ImageError(f"{path}: has colours of mode {mode}; convert it to RGB or grey")
    num_channels = 3 if mode in ("P", "PA", "RGB", "RGBA") else 1
    load = partial(_load_deep_png if deep else _load_picture, path)
    return _File(Grid(path, (rows, columns), num_channels, None), None, load)


def _check_upright(path: Path, orientation: int) -> None:
    if orientation not in (0, 1):
        raise ImageError(
            f"{path}: its EXIF orientation {orientation} asks viewers to rotate or mirror it; rewrite the picture upright "
            "(`mogrify -auto-orient`), or remove the tag if its mask belongs to the stored pixels"
        )


def _png_is_deep_colour(path: Path) -> bool:
    """16 bits a sample and more than one sample: Pillow would halve the depth without a word."""
    with open(path, "rb") as file:
        head = file.read(26)
    return head[24] == 16 and head[25] != 0


def _ppm_is_deep(picture: Any) -> bool:
    arguments = picture.tile[0].args
    return isinstance(arguments, tuple) and any(isinstance(a, int) and a > 255 for a in arguments)


def _load_deep_png(path: Path, **_: Any) -> np.ndarray:
    import SimpleITK

    array = np.moveaxis(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path), imageIO="PNGImageIO")), -1, 0)
    return _drop_alpha(path, array) if len(array) in (2, 4) else array


def _load_picture(path: Path, palettes: list | None = None) -> np.ndarray:
    """(C, rows, columns); where `palettes` is a list, a palette picture yields its indices and appends its colours (256, 3)."""
    with _pillow(path) as picture:
        if picture.mode == "P" and palettes is not None:
            palettes.append(np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3))
        elif picture.mode in ("P", "PA"):
            picture = picture.convert("RGBA" if "transparency" in picture.info or picture.mode == "PA" else "RGB")
        array = np.array(picture)
        alpha = picture.mode in ("LA", "RGBA")
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if array.ndim == 2:
        return array[None]
    array = np.moveaxis(array, -1, 0)
    return _drop_alpha(path, array) if alpha else array


def _open_tiff(path: Path) -> _File:
    import tifffile

    with tifffile.TiffFile(path) as tif:
        # A reduced page is a thumbnail of another one.
        series = [s for s in tif.series if not s.keyframe.is_reduced]
        if len(series) != 1:
            raise ImageError(f"{path}: has {len(series)} pictures; expected one")
        page, axes, shape = series[0].keyframe, series[0].axes, series[0].shape
        sizes = dict(zip(axes, shape, strict=True))
        extra = sorted(set(axes) - set("YXSC"))
        if extra or "Y" not in axes or "X" not in axes or {"S", "C"} <= set(axes):
            raise ImageError(
                f"{path}: has axes {axes} {shape}; expected one picture (a stack of pages has no geometry: convert it to NIfTI or NRRD)"
            )
        _check_upright(path, page.tags.valueof("Orientation", 1))
        photometric = page.photometric.name
        if photometric not in ("MINISWHITE", "MINISBLACK", "RGB", "PALETTE", "YCBCR"):
            raise ImageError(f"{path}: has colours of kind {photometric}; convert it to RGB or grey")
        num_channels = sizes.get("S", sizes.get("C", 1))
        alpha = "S" in axes and len(page.extrasamples) == 1 and page.extrasamples[0] in (1, 2)
        palette = None if page.colormap is None else (np.asarray(page.colormap).T >> 8).astype(np.uint8)
        depth, dtype, samples = page.bitspersample, page.dtype, page.samplesperpixel

    def load(palettes: list | None = None) -> np.ndarray:
        try:
            array = tifffile.imread(path)
            if photometric == "MINISWHITE":
                array = ~array if array.dtype == bool else np.iinfo(array.dtype).max - array
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            # Pillow knows LZW, CCITT and JPEG, but narrows several samples of 16 bits to 8.
            if not (isinstance(depth, int) and depth <= 8) and not (
                samples == 1 and dtype in (np.uint16, np.int16, np.int32, np.float32)
            ):
                raise ImageError(
                    f"{path}: its compression with {depth} bits a sample cannot be read; save it uncompressed"
                ) from error
            with _pillow(path) as picture:
                array = np.array(picture)
            array = array if array.dtype == bool else array.astype(dtype)
        array = array.reshape(shape)
        if array.dtype == bool:
            array = array.astype(np.uint8)
        if array.ndim == 2:
            array = array[None]
        else:
            array = np.moveaxis(array, axes.index("S" if "S" in axes else "C"), 0)
        if palette is not None:
            if palettes is not None:
                palettes.append(palette)
            else:
                array = np.moveaxis(palette[array[0]], -1, 0)
        return _drop_alpha(path, array) if alpha else array

    grid = Grid(path, (sizes["Y"], sizes["X"]), 3 if palette is not None else num_channels - alpha, None)
    return _File(grid, None, load)


def _open_npy(path: Path) -> _File:
    def load(**_: Any) -> np.ndarray:
        array = np.load(path, mmap_mode="c", allow_pickle=False)
        array = np.asarray(array)
        if array.dtype == bool:
            array = array.astype(np.uint8)
        return array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)

    shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] > _MAX_NPY_CHANNELS):
        raise ImageError(
            f"{path}: has shape {shape}; expected (rows, columns) or (rows, columns, channels) with at most "
            f"{_MAX_NPY_CHANNELS} channels; volumes need a format with geometry, such as NIfTI"
        )
    return _File(Grid(path, tuple(shape[:2]), 1 if len(shape) == 2 else shape[2], None), None, load)


# --- label maps


def read_label_map(
    path: str | Path, labels: Mapping[str, int | Sequence[int]], ignore_label: int | None = None
) -> Image:
    """Label map of a file as class indices, whichever way the mask was encoded.

    Accepted: the declared values; palette pictures (the index is the label, or the grey level where all colours used are
    grey and declared); equal channels; floats with integer values. Where a single label is declared as 1 or 255, also masks of
    0/1 and 0/255, and such masks smeared by jpeg or by smooth resizing (cut at 128).

    Args:
        path: The file.
        labels: Name -> value or values in the file, in class order; 0 is background.
        ignore_label: Value in the file of pixels that count nowhere.

    Shape: array (1, *S) uint8: 0 background, 1..K the labels in their order, 255 (`IGNORE`) ignored.

    Raises:
        ImageError: As `read_image`; or colours, fractions, or values that are not declared (lists them with counts).
    """
    path = Path(path)
    table = {0: 0}
    for index, values in enumerate(labels.values(), start=1):
        table |= {int(value): index for value in ([values] if isinstance(values, int | np.integer) else values)}
    if ignore_label is not None:
        table[int(ignore_label)] = IGNORE

    file = _open(path)
    palettes: list[np.ndarray] = []
    array = _load(_File(file.grid, file.source, partial(file.load, palettes=palettes)))
    if not all(np.array_equal(channel, array[0]) for channel in array[1:]):
        raise ImageError(
            f"{path}: its {len(array)} channels differ; expected one label value a pixel, in one channel or equal ones"
        )
    array = array[0]
    found = _count_values(path, array)
    if palettes:
        colours = {value: palettes[0][value] for value in found if value < len(palettes[0])}
        greys = {value: int(colour[0]) for value, colour in colours.items() if colour.min() == colour.max()}
        if len(greys) == len(found):
            counts: dict[int, int] = {}
            for value, count in found.items():
                counts[greys[value]] = counts.get(greys[value], 0) + count
            grey_table = _table_for(path, counts, labels, table)
            if grey_table is not None:
                grey_table = {value: grey_table[grey] for value, grey in greys.items()}
                return Image(_look_up(array, grey_table)[None], file.grid.affine, path, file.source)
    chosen = _table_for(path, found, labels, table)
    if chosen is None:
        unknown = {value: count for value, count in found.items() if value not in table}
        listed = ", ".join(f"{value} ({count} pixels)" for value, count in list(unknown.items())[:8])
        listed += f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
        raise ImageError(f"{path}: holds undeclared label values {listed}; declared: {_declared(labels, ignore_label)}")
    return Image(_look_up(array, chosen)[None], file.grid.affine, path, file.source)


def _declared(labels: Mapping[str, int | Sequence[int]], ignore_label: int | None) -> str:
    named = [f"{name}: {list(value) if isinstance(value, Sequence) else value}" for name, value in labels.items()]
    return ", ".join(["background: 0", *named] + ([] if ignore_label is None else [f"ignored: {ignore_label}"]))


def _table_for(
    path: Path, found: Mapping[int, int], labels: Mapping[str, int | Sequence[int]], table: Mapping[int, int]
) -> dict[int, int] | None:
    """File value -> class index for all values found, or None where some value is not declared."""
    if found.keys() <= table.keys():
        return dict(table)
    # A single label is often written as 1 by one tool and 255 by the next. Not so for other declared values: there, 1 and
    # 255 may be structures that the user left out.
    if len(labels) != 1 or table.keys() not in ({0, 1}, {0, 255}):
        return None
    if found.keys() <= {0, 1} or found.keys() <= {0, 255}:
        return {0: 0, 1: 1, 255: 1}
    if _is_smeared(path, found):
        return {value: int(value >= 128) for value in found}
    return None


def _is_smeared(path: Path, found: Mapping[int, int]) -> bool:
    """Whether values are those of a 0/255 mask after lossy compression or smooth resizing: two heaps, little between."""
    if min(found) < 0 or max(found) > 255 or split_suffix(path)[1] not in _PICTURES:
        return False
    total = sum(found.values())
    between = {value: count for value, count in found.items() if 32 <= value < 224}
    if split_suffix(path)[1] in (".jpg", ".jpeg"):
        return sum(between.values()) <= 0.25 * total
    # Few distinct values in a lossless file are labels that somebody meant.
    return (
        len(found) >= 16 and sum(between.values()) <= 0.1 * total and max(between.values(), default=0) <= 0.01 * total
    )


def _slabs(array: np.ndarray) -> Iterator[tuple[slice, ...]]:
    """Index tuples that cut an array along its slowest axis: temporaries stay small beside a large volume."""
    axis = int(np.argmax(np.abs(array.strides)))
    step = max(1, (1 << 20) * array.shape[axis] // array.size)
    for start in range(0, array.shape[axis], step):
        yield (slice(None),) * axis + (slice(start, start + step),)


def _count_values(path: Path, array: np.ndarray) -> dict[int, int]:
    """Value -> number of pixels, ascending; refuses fractions."""
    counts: dict[int, int] = {}
    for slab in _slabs(array):
        values = array[slab]
        if values.dtype.kind == "f":
            fractional = values != np.rint(values)
            if fractional.any():
                raise ImageError(
                    f"{path}: label values are not integers, for example {values[fractional].flat[0]:g}; "
                    "expected a label map, was it resampled with interpolation or is it an image?"
                )
            values = values.astype(np.int64)
        low, high = int(values.min()), int(values.max())
        if high - low < 1 << 17:
            values = values.ravel("K")
            tally = np.bincount(values if low == 0 else values.astype(np.int64) - low)
            pairs = ((int(i) + low, int(tally[i])) for i in np.flatnonzero(tally))
        else:
            pairs = ((int(v), int(n)) for v, n in zip(*np.unique(values, return_counts=True), strict=True))
        for value, count in pairs:
            counts[value] = counts.get(value, 0) + count
    return dict(sorted(counts.items()))


def _look_up(array: np.ndarray, table: Mapping[int, int]) -> np.ndarray:
    """uint8 array of `table[value]`, in the memory order of the input; every value must be in the table."""
    indices = np.zeros_like(array, np.uint8, order="K", subok=False)
    if array.dtype == np.uint8:
        entries = np.zeros(256, np.uint8)
        for value, index in table.items():
            if 0 <= value < 256:
                entries[value] = index
        for slab in _slabs(array):
            np.take(entries, array[slab], out=indices[slab], mode="clip")
        return indices
    for value, index in table.items():
        if index:
            indices[array == value] = index
    return indices


# --- writing


def write_label_map(
    path: str | Path, indices: np.ndarray, like: Image, labels: Mapping[str, int | Sequence[int]]
) -> None:
    """Writes class indices as a uint8 label map on the grid of the image they were made from.

    NIfTI keeps every field of the input's header but those of the data type and the value range; NRRD and MetaImage keep origin,
    spacing and direction; pictures become palette images whose index is the label value. The file appears whole or not at all.

    Args:
        path: File to write; its folder is made where needed.
        indices: Class indices, 0 background and 1..K the labels in their order.
        like: The image, as read: its grid and header are kept.
        labels: Name -> value in the file; of several values the first is written.

    Shape: indices (*S) uint8, with S that of `like`.

    Raises:
        ImageError: A label's value is above 255, the format cannot hold the map, or the file cannot be written.
    """
    path = Path(path)
    values = [0]
    for name, value in labels.items():
        first = int(value if isinstance(value, int | np.integer) else value[0])
        if not 0 <= first <= 255:
            raise ImageError(f"{path}: label {name!r} has value {first}; label maps are written as uint8, 0 to 255")
        values.append(first)
    indices = np.asarray(indices)
    if indices.shape != like.shape:
        raise ValueError(f"indices {indices.shape} are not on the grid {like.shape} of {like.path}")
    if indices.size and int(indices.max()) >= len(values):
        raise ValueError(f"class index {int(indices.max())} but only {len(values) - 1} labels")
    array = _look_up(indices.astype(np.uint8, copy=False), dict(enumerate(values)))
    _write(path, array, like, level=_GZIP_LEVEL)


def write_probabilities(path: str | Path, probabilities: np.ndarray, like: Image) -> Path:
    """Writes probabilities as uint16 in steps of 1/65535, classes last, on the grid of the image they were made from.

    NIfTI: (X, Y, Z, K) with scl_slope 1/65535, so that any reader yields probabilities. NRRD and MetaImage: K components a voxel,
    no scale in the header. Pictures: .npy (rows, columns, K), no scale either. `read_probabilities` reads all three.

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
    probabilities = np.asarray(probabilities)
    if probabilities.ndim < 1 or probabilities.shape[1:] != like.shape:
        raise ValueError(f"probabilities {probabilities.shape} are not (K, *S) on the grid {like.shape} of {like.path}")
    stem, suffix = split_suffix(path)
    if suffix in _PICTURES:
        path = path.with_name(stem + ".npy")
    steps = np.empty((*like.shape, len(probabilities)), np.uint16, order="C" if like.affine is None else "F")
    for k, channel in enumerate(probabilities):
        scaled = channel.astype(np.float32) * _PROBABILITY_SCALE
        steps[..., k] = np.rint(np.clip(scaled, 0, _PROBABILITY_SCALE, out=scaled), out=scaled)
    _write(path, steps, like, level=_PROBABILITY_GZIP_LEVEL, slope=1 / _PROBABILITY_SCALE, classes=True)
    return path


def read_probabilities(path: str | Path) -> Image:
    """Probability map that `write_probabilities` wrote, or a float one of another tool.

    Shape: array (K, *S) float32.
    """
    image = read_image(path)
    array = image.array.astype(np.float32)
    if image.array.dtype == np.uint16:
        array *= np.float32(1 / _PROBABILITY_SCALE)
    return Image(array, image.affine, image.path, image.source)


def _write(
    path: Path, array: np.ndarray, like: Image, *, level: int, slope: float = 1.0, classes: bool = False
) -> None:
    """Writes uint8 (*S) or, with `classes`, uint16 (*S, K), by the path's suffix."""
    suffix = split_suffix(path)[1]
    if not suffix:
        raise _unknown_suffix(path)
    if suffix in _PICTURES:
        if like.spatial_dims != 2:
            raise ImageError(
                f"{path}: a volume {like.shape} cannot be written as a picture; give a NIfTI, NRRD or MetaImage name"
            )
        if suffix not in _KEPT_ON_OUTPUT:
            raise ImageError(f"{path}: {suffix} cannot hold a label map faithfully; give a .png name")
        writer = partial(_write_picture, suffix=suffix)
    elif like.affine is None:
        raise ImageError(
            f"{path}: {like.path} has no geometry to write into {suffix}; give a picture name such as .png"
        )
    elif suffix in _NIFTI:
        writer = partial(_write_nifti, like=like, level=level, slope=slope, classes=classes)
    else:
        writer = partial(_write_itk, like=like, classes=classes, suffix=suffix)
    with _errors_of(path, "written"), _replacing(path) as folder:
        writer(folder / path.name, array)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`; the files written there take their place beside `path` once all are safely on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        yield folder
        # The named file last: where a header and its data are two files, a reader finds the header only once the data are there.
        files = sorted(folder.iterdir(), key=lambda file: file.name == path.name)
        for file in files:
            with open(file, "rb+") as handle:
                os.fsync(handle.fileno())
        for file in files:
            os.replace(file, path.parent / file.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_nifti(path: Path, array: np.ndarray, *, like: Image, level: int, slope: float, classes: bool) -> None:
    import nibabel

    pair = path.suffix.lower() == ".img"
    if like.source is not None and like.source[0] == "nifti":
        _, original, shape = like.source
        header = original.copy()
    else:
        shape = like.shape
        header = nibabel.Nifti1Image(np.empty(shape, np.uint8), like.affine).header
        header.set_qform(like.affine, 1)
        header.set_sform(like.affine, 1)
        header.set_xyzt_units("mm")
    if classes:
        array = array.reshape(*like.shape, *(1,) * (3 - like.spatial_dims), array.shape[-1], order="F")
    elif shape[3:] == (1,):
        array = array[..., None]
    header.set_data_dtype(array.dtype)
    if header.get_data_shape() != array.shape:
        header.set_data_shape(array.shape)
        header.set_intent("none")
    header["scl_slope"], header["scl_inter"] = slope, 0
    header["cal_min"] = header["cal_max"] = 0
    double = int(header["sizeof_hdr"]) == 540
    if pair != (not header.is_single):
        kind = {(False, False): nibabel.Nifti1Header, (False, True): nibabel.Nifti1PairHeader}.get((double, pair))
        kind = kind or (nibabel.Nifti2PairHeader if pair else nibabel.Nifti2Header)
        extensions = header.extensions
        header = kind(header.binaryblock, header.endianness, check=False)
        header.extensions = extensions
        header["magic"] = header.pair_magic if pair else header.single_magic
        header["vox_offset"] = 0
    head = BytesIO()
    header.write_to(head)
    head = head.getvalue()
    offset = int(header["vox_offset"])
    if not pair:
        head = head.ljust(offset, b"\0")
        offset = 0
    pixels = np.asfortranarray(array).astype(array.dtype.newbyteorder(header.endianness), copy=False)
    pixels = memoryview(pixels.T).cast("B") if pixels.size else b""
    if pair:
        path.with_suffix(".hdr").write_bytes(head)
        head = bytes(offset)
    with open(path, "wb") as file:
        if path.suffix.lower() == ".gz":
            # No name and no time in the gzip header: the same map gives the same bytes.
            with gzip.GzipFile("", "wb", level, file, mtime=0) as packed:
                packed.write(head)
                packed.write(pixels)
        else:
            file.write(head)
            file.write(pixels)


def _write_itk(path: Path, array: np.ndarray, *, like: Image, classes: bool, suffix: str) -> None:
    import SimpleITK

    d = like.spatial_dims
    if like.source is not None and like.source[0] == "itk":
        _, (origin, spacing, direction), size = like.source
    else:
        lps = _RAS_FROM_LPS @ like.affine
        spacing = np.linalg.norm(lps[:d, :d], axis=0)
        origin, direction, size = lps[:d, 3], lps[:d, :d] / spacing, like.shape
    four = len(size) == 4 and size[3] == 1 and not classes
    if len(size) == 4 and not four:
        origin, spacing, direction = origin[:3], spacing[:3], np.reshape(direction, (4, 4))[:3, :3]
    if four:
        array = array[..., None]
    if classes:
        array = array.transpose(*range(d - 1, -1, -1), d)
    else:
        array = array.T
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array), isVector=classes)
    image.SetOrigin([float(v) for v in origin])
    image.SetSpacing([float(v) for v in spacing])
    image.SetDirection([float(v) for v in np.ravel(direction)])
    SimpleITK.WriteImage(image, str(path), useCompression=True, imageIO=_ITK_READERS[suffix])


# Okabe and Ito's colours, which colour-blind readers tell apart, then darker and lighter ones. No greys: a palette of greys is
# read by grey level (`read_label_map`), ours by index.
_COLOURS = ((0, 158, 115), (230, 159, 0), (86, 180, 233), (204, 121, 167), (240, 228, 66), (0, 114, 178), (213, 94, 0))


def _palette() -> bytes:
    """256 colours: black for background, label 1 green, 2 orange, ... ; 255, which often means ignored, white."""
    colours = [(0, 0, 0)]
    for index in range(254):
        round_, base = divmod(index, len(_COLOURS))
        colours.append(tuple(int(channel * (1 - round_ / 48)) for channel in _COLOURS[base]))  # 37 rounds, darker each
    colours.append((255, 255, 255))
    return bytes(channel for colour in colours for channel in colour)


def _write_picture(path: Path, array: np.ndarray, *, suffix: str) -> None:
    if suffix == ".npy":
        with open(path, "wb") as file:
            np.save(file, np.ascontiguousarray(array), allow_pickle=False)
        return
    from PIL import Image as Pillow

    picture = Pillow.fromarray(np.ascontiguousarray(array), "L")
    picture.putpalette(_palette())
    options = {"compression": "tiff_adobe_deflate"} if suffix in _TIFF else {}
    with open(path, "wb") as file:
        picture.save(file, "TIFF" if suffix in _TIFF else "PNG", **options)
