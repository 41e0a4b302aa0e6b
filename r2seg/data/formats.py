"""File formats, one after the other: what a header says, the pixels behind it, and writing an array with another file's header.

Nothing here knows labels or probabilities; images.py is the door for everybody else and documents what is accepted.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from r2seg.errors import UserError
from r2seg.files import replacing

NIFTI = (".nii.gz", ".nii", ".img")
ITK = (".nrrd", ".mha", ".mhd")
_TIFF = (".tif", ".tiff")
_NETPBM = (".ppm", ".pgm", ".pbm", ".pnm")
_NETPBM_GZ = tuple(suffix + ".gz" for suffix in _NETPBM)
PICTURES = (".png", ".jpg", ".jpeg", *_TIFF, ".bmp", ".gif", *_NETPBM, *_NETPBM_GZ, ".npy")
IMAGE_SUFFIXES: tuple[str, ...] = (*NIFTI, *ITK, *PICTURES)
WRITABLE = (*NIFTI, *ITK, *_TIFF, ".png", ".npy")

_MAX_NPY_CHANNELS = 16
_RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# 512x512x130: a mask takes 0.04 s and 283 kB at level 1, 0.10 s and 145 kB at 4, 0.33 s and 84 kB at 9; probabilities take twice
# the time at level 4 and save nothing.
_GZIP_LEVEL = 1


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


@dataclass(frozen=True)
class File:
    """An image file whose header has been read.

    Attributes:
        grid: What the header says.
        source: What `write_array` needs to give the same header back.
        pixels: Yields (C, *S) and, where called with True on a palette picture, its indices and the palette (n, 3) uint8.
    """

    grid: Grid
    source: NiftiSource | ItkSource | None
    pixels: Callable[[bool], tuple[np.ndarray, np.ndarray | None]]

    def load(self, *, indices: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
        """(C, *S) of real numbers in native byte order, and the palette of a palette picture whose indices were asked for."""
        path = self.grid.path
        with errors_of(path, "read"):
            array, palette = self.pixels(indices)
        if array.dtype.kind not in "buif":
            raise ImageError(f"{path}: holds values of type {array.dtype}; expected integers or real numbers")
        if array.dtype == bool:
            array = array.astype(np.uint8)
        if not array.dtype.isnative:  # torch knows no foreign byte order
            array = array.astype(array.dtype.newbyteorder("="))
        return array, palette


@dataclass(frozen=True)
class NiftiSource:
    """Header of a NIfTI file and its full shape, which may end in channels."""

    header: Any
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ItkSource:
    """Geometry in ITK's terms (LPS), over all axes of the file."""

    origin: tuple[float, ...]
    spacing: tuple[float, ...]
    direction: tuple[float, ...]
    size: tuple[int, ...]


def split_suffix(path: str | Path) -> tuple[str, str]:
    """File name split into stem and known image suffix in lower case: ("ct.001", ".nii.gz"); ("x", "") of other files."""
    name = Path(path).name
    # The longest first: ".nii.gz" of "a.nii.gz". A bare ".png" is a hidden file without suffix.
    for suffix in sorted(IMAGE_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)], suffix
    return Path(name).stem, ""


def known_suffix(path: Path) -> str:
    """Suffix of an image file; an error that names the known ones for other files."""
    suffix = split_suffix(path)[1]
    if not suffix:
        raise ImageError(f"{path}: no image format is known by this suffix; known: {' '.join(IMAGE_SUFFIXES)}")
    return suffix


def open_file(path: Path) -> File:
    """Header of an image file, checked: it exists, has pixels, and its affine can be inverted."""
    with errors_of(path, "read"):
        if path.is_dir():
            raise ImageError(f"{path}: is a folder, expected an image file")
        if not path.exists():
            raise ImageError(f"{path}: does not exist")
        suffix = known_suffix(path)
        if path.stat().st_size == 0:
            raise ImageError(f"{path}: the file is empty (0 bytes)")
        if suffix in NIFTI:
            file = _open_nifti(path)
        elif suffix in ITK:
            file = _open_itk(path)
        elif suffix in _TIFF:
            file = _open_tiff(path)
        elif suffix == ".npy":
            file = _open_npy(path)
        else:
            file = _open_picture(path)
    grid = file.grid
    if 0 in grid.shape or grid.num_channels == 0:
        raise ImageError(f"{path}: has no pixels: shape {grid.shape}, {grid.num_channels} channels")
    if grid.affine is not None and not _invertible(grid.affine):
        rows = "; ".join(" ".join(f"{v:g}" for v in row) for row in grid.affine[:3])
        raise ImageError(f"{path}: its affine [{rows}] is singular or not finite; repair the header")
    return file


@contextmanager
def errors_of(path: Path, verb: str) -> Iterator[None]:
    """Turns what the libraries raise on files they cannot read or write into one line with the file's name.

    On damaged files they raise nearly anything; when writing, what is no matter of disk or memory is a bug and passes.
    """
    try:
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
        elif isinstance(error, zlib.error):
            reason = f"its compressed data are damaged ({error})"
        else:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            reason = lines[-1] if lines else type(error).__name__
        raise ImageError(f"{path}: cannot be {verb}: {reason}") from error


def _invertible(affine: np.ndarray) -> bool:
    if not np.isfinite(affine).all():
        return False
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return bool(lengths.min() > 0 and abs(np.linalg.det(affine[:3, :3] / lengths)) > 1e-6)


def _with_normal(affine: np.ndarray) -> np.ndarray:
    """Affine of a 2-D image; its third column, of which the header often says nothing, becomes a unit normal where it must."""
    if not _invertible(affine):
        affine = affine.copy()
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        length = np.linalg.norm(normal)
        affine[:3, 2] = normal / length if length > 0 else 0
    return affine


def _drop_alpha(path: Path, array: np.ndarray) -> np.ndarray:
    """(C + 1, *S) whose last channel is alpha -> (C, *S); refuses an alpha that hides anything."""
    opaque = 1 if array.dtype.kind == "f" else np.iinfo(array.dtype).max
    if not (array[-1] == opaque).all():
        raise ImageError(f"{path}: has transparent pixels (alpha channel); flatten the picture first")
    return array[:-1]


# NIfTI


def _open_nifti(path: Path) -> File:
    import nibabel

    header_path = path.with_name(split_suffix(path)[0] + ".hdr")
    if path.suffix.lower() == ".img" and not header_path.exists():
        raise ImageError(f"{path}: its header {header_path.name} is missing")
    image = nibabel.load(path)
    if not isinstance(image, nibabel.Nifti1Pair):  # of which NIfTI-2 and single files are kinds, too
        raise ImageError(f"{path}: is {type(image).__name__}, which states no orientation; convert it to NIfTI")
    header, shape = image.header, tuple(int(n) for n in image.shape)
    if not 2 <= len(shape) <= 4:
        raise ImageError(f"{path}: has {len(shape)} axes {shape}; expected 2, 3, or 4 whose last is channels")
    spatial = shape[:3]
    dtype = header.get_data_dtype()
    samples = dtype.names or ()  # ("R", "G", "B") or ("R", "G", "B", "A")
    if samples and len(shape) == 4:
        raise ImageError(f"{path}: has coloured voxels and a fourth axis {shape}; expected one of the two")
    num_channels = len([name for name in samples if name != "A"]) or (shape[3] if len(shape) == 4 else 1)
    affine = np.array(image.affine, np.float64)
    # xyzt_units: 1 metre, 2 millimetre, 3 micron
    affine[:3] *= {1: 1e3, 3: 1e-3}.get(int(header["xyzt_units"]) & 7, 1.0)
    if len(spatial) == 2:
        affine = _with_normal(affine)
    offset, slope, inter = int(image.dataobj.offset), image.dataobj.slope, image.dataobj.inter

    def pixels(_: bool) -> tuple[np.ndarray, None]:
        if dtype.kind == "c":
            raise ImageError(f"{path}: holds complex numbers ({dtype}); write their magnitude or phase as a real image")
        array = _nifti_voxels(path, dtype, shape, offset)
        if samples:
            array = np.ascontiguousarray(array).view(np.uint8).reshape(*spatial, len(samples))
        array = np.moveaxis(array, -1, 0) if array.ndim > len(spatial) else array[None]
        if "A" in samples:
            array = _drop_alpha(path, array)
        if (slope, inter) != (1.0, 0.0):
            array = array.astype(np.float32)
            array *= np.float32(slope)
            array += np.float32(inter)
        elif array.dtype.kind == "f" and array.dtype.itemsize > 8:
            array = array.astype(np.float64)
        return array, None

    return File(Grid(path, spatial, num_channels, affine), NiftiSource(header, shape), pixels)


def _nifti_voxels(path: Path, dtype: np.dtype, shape: tuple[int, ...], offset: int) -> np.ndarray:
    """Stored voxels, unscaled, first axis fastest; memory-mapped (copy on write) where the file is not compressed."""
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if path.name.lower().endswith(".gz"):
        return _gunzip(path, offset, size).view(dtype).reshape(shape, order="F")
    _check_complete(path, path.stat().st_size - offset, size)
    return np.asarray(np.memmap(path, dtype, "c", offset, shape, "F"))


def _check_complete(path: Path, have: int, size: int) -> None:
    if have < size:
        raise ImageError(
            f"{path}: is truncated: holds {max(have, 0)} of the {size} bytes of voxels that its header states"
        )


def _gunzip(path: Path, skip: int, size: int) -> np.ndarray:
    """Bytes [skip, skip + size) of a gzip file's content, its checksum verified.

    Inflates straight into the array: half the time of `gzip`, which copies each block thrice, and no second copy in memory.
    """
    content = np.empty(size, np.uint8)
    done = -skip
    decoder = zlib.decompressobj(wbits=31)
    with open(path, "rb") as file:
        while block := file.read(1 << 18):
            while block:
                if decoder.eof:  # a gzip file may have several members, and zeros as padding behind the last
                    block = block.lstrip(b"\0")
                    if not block:
                        break
                    decoder = zlib.decompressobj(wbits=31)
                piece = decoder.decompress(block)
                start, stop = max(done, 0), min(done + len(piece), size)
                if start < stop:
                    content[start:stop] = np.frombuffer(piece, np.uint8, stop - start, start - done)
                done += len(piece)
                block = decoder.unused_data
    _check_complete(path, done, size)
    if not decoder.eof:
        raise ImageError(f"{path}: is truncated: its gzip data lack their end")
    return content


def _write_nifti(path: Path, array: np.ndarray, source: Any, affine: np.ndarray, scale: float, classes: bool) -> None:
    import nibabel

    if isinstance(source, NiftiSource):
        header, keep_axis = source.header.copy(), source.shape[3:] == (1,)
    else:
        header, keep_axis = nibabel.Nifti1Header(), False
        header.set_data_shape(array.shape)
        header.set_qform(affine, 1)
        header.set_sform(affine, 1)
        header.set_xyzt_units("mm")
    if classes and array.ndim == 3:  # a picture of one slice: the fourth axis is classes
        array = array[:, :, None]
    elif keep_axis and not classes:
        array = array[..., None]
    header.set_data_dtype(array.dtype)
    if header.get_data_shape() != array.shape:
        header.set_data_shape(array.shape)
        header.set_intent("none")  # it may speak of the channels that are gone
    header["scl_slope"], header["scl_inter"] = scale, 0
    header["cal_min"] = header["cal_max"] = 0
    single = path.suffix.lower() != ".img"
    if header.is_single != single:
        kinds = {
            (348, True): nibabel.Nifti1Image,
            (348, False): nibabel.Nifti1Pair,
            (540, True): nibabel.Nifti2Image,
            (540, False): nibabel.Nifti2Pair,
        }
        kind = kinds[int(header["sizeof_hdr"]), single].header_class
        header = kind(header.binaryblock, header.endianness, check=False)  # extensions stay behind
        header["magic"] = header.single_magic if single else header.pair_magic
        header["vox_offset"] = 0
    head = BytesIO()
    header.write_to(head)  # sets vox_offset of a single file where it was 0
    offset = int(header["vox_offset"])
    before = head.getvalue().ljust(offset, b"\0") if single else bytes(offset)
    if not single:
        path.with_name(path.name[: -len(".img")] + ".hdr").write_bytes(head.getvalue())
    voxels = np.empty(array.shape, array.dtype.newbyteorder(header.endianness), order="F")
    for start in range(0, len(array), 16):  # a transposition in blocks takes half the time of one at once
        voxels[start : start + 16] = array[start : start + 16]
    with open(path, "wb") as file:
        # No name and no time in the gzip header: the same voxels give the same bytes.
        packed = path.suffix.lower() == ".gz"
        target = gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) if packed else file
        target.write(before)
        target.write(memoryview(voxels.T).cast("B"))
        target.close()


# NRRD and MetaImage

_ITK_NAMES = {".nrrd": "NrrdImageIO", ".mha": "MetaImageIO", ".mhd": "MetaImageIO"}


def _open_itk(path: Path) -> File:
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(_ITK_NAMES[split_suffix(path)[1]])
    reader.ReadImageInformation()
    size = tuple(int(n) for n in reader.GetSize())
    components = int(reader.GetNumberOfComponents())
    if not 2 <= len(size) <= 4 or (len(size) == 4 and components > 1):
        raise ImageError(
            f"{path}: has {len(size)} axes {size} of {components} components; expected 2, 3, or 4 whose last is channels"
        )
    if "complex" in SimpleITK.GetPixelIDValueAsString(reader.GetPixelID()):
        raise ImageError(f"{path}: holds complex numbers; write their magnitude or phase as a real image")
    source = ItkSource(tuple(reader.GetOrigin()), tuple(reader.GetSpacing()), tuple(reader.GetDirection()), size)
    spatial = size[:3]
    dims = len(spatial)
    affine = np.eye(4)
    affine[:dims, :dims] = np.reshape(source.direction, (len(size), -1))[:dims, :dims] * source.spacing[:dims]
    affine[:dims, 3] = source.origin[:dims]
    affine = _RAS_FROM_LPS @ affine
    if dims == 2:
        affine = _with_normal(affine)

    def pixels(_: bool) -> tuple[np.ndarray, None]:
        try:
            array = SimpleITK.GetArrayFromImage(reader.Execute())  # axes reversed, components last
        except RuntimeError as error:
            if "No such file" in str(error):  # what MetaImage says of missing bytes, too
                raise ImageError(f"{path}: cannot be read: its voxel data are missing or truncated") from error
            raise
        if components > 1:
            return array.transpose(dims, *range(dims - 1, -1, -1)), None
        return (np.moveaxis(array.T, -1, 0) if len(size) == 4 else array.T[None]), None

    num_channels = size[3] if len(size) == 4 else components
    return File(Grid(path, spatial, num_channels, affine), source, pixels)


def _write_itk(path: Path, array: np.ndarray, source: Any, affine: np.ndarray, scale: float, classes: bool) -> None:
    import SimpleITK

    dims = array.ndim - classes
    if isinstance(source, ItkSource):
        origin, spacing = source.origin, source.spacing
        direction = np.reshape(source.direction, (len(source.size), -1))
        if source.size[3:] == (1,) and not classes:
            array, dims = array[..., None], 4
    else:
        lps = _RAS_FROM_LPS @ affine
        spacing = np.linalg.norm(lps[:dims, :dims], axis=0)
        origin, direction = lps[:dims, 3], lps[:dims, :dims] / spacing
    array = array.transpose(*range(dims - 1, -1, -1), *([dims] if classes else []))
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array), isVector=classes)
    image.SetOrigin([float(v) for v in origin[:dims]])
    image.SetSpacing([float(v) for v in spacing[:dims]])
    image.SetDirection([float(v) for v in direction[:dims, :dims].flat])
    SimpleITK.WriteImage(image, str(path), useCompression=True, imageIO=_ITK_NAMES[split_suffix(path)[1]])


# Pictures


def _pillow(path: Path) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        if path.suffix.lower() == ".gz":
            return Image.open(BytesIO(gzip.decompress(path.read_bytes())))
        return Image.open(path)
    except UnidentifiedImageError as error:
        raise ImageError(f"{path}: is no picture, or its beginning is damaged") from error


def _open_picture(path: Path) -> File:
    with _pillow(path) as picture:
        # Cameras append a preview to the picture (format MPO): it is not another frame.
        if getattr(picture, "n_frames", 1) > 1 and picture.format != "MPO":
            raise ImageError(f"{path}: has {picture.n_frames} frames; expected a single picture")
        if picture.format != "PNG" or "exif" in picture.info:  # else Pillow decodes the whole PNG to look for it
            _check_upright(path, picture.getexif().get(274, 1))
        mode, (columns, rows) = picture.mode, picture.size
        # Of 16 bits a colour Pillow would drop eight without a word.
        deep_png = picture.format == "PNG" and _png_depth(path) == 16 and mode not in ("I;16", "I")
        if mode == "RGB" and (_netpbm_maximum(picture) or 0) > 255:
            raise ImageError(
                f"{path}: has more than 8 bits a colour, which a {path.suffix} loses here; convert it to png or tif"
            )
    if mode not in ("1", "L", "I", "F", "P", "RGB", "LA", "RGBA", "PA") and not mode.startswith("I;16"):
        raise ImageError(f"{path}: has colours of kind {mode}; convert it to RGB or grey")
    num_channels = 3 if mode in ("P", "PA", "RGB", "RGBA") else 1
    return File(
        Grid(path, (rows, columns), num_channels, None), None, partial(_deep_png if deep_png else _picture, path)
    )


def _check_upright(path: Path, orientation: int) -> None:
    if orientation not in (0, 1):
        raise ImageError(
            f"{path}: its EXIF orientation {orientation} asks viewers to turn or mirror it; rewrite the picture upright "
            "(`mogrify -auto-orient`), or remove the tag if its mask belongs to the stored pixels"
        )


def _png_depth(path: Path) -> int:
    with open(path, "rb") as file:
        return file.read(25)[24]


def _netpbm_maximum(picture: Any) -> int | None:
    """The stated maximum of a ppm or pgm where Pillow stretches the values to 255 or 65535, else None."""
    if picture.format != "PPM" or not picture.tile or picture.mode == "1":
        return None
    arguments = picture.tile[0].args
    return arguments[1] if isinstance(arguments, tuple) and len(arguments) > 1 else None


def _deep_png(path: Path, _: bool) -> tuple[np.ndarray, None]:
    import SimpleITK

    array = np.moveaxis(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path), imageIO="PNGImageIO")), -1, 0)
    return (_drop_alpha(path, array) if len(array) in (2, 4) else array), None


def _picture(path: Path, indices: bool) -> tuple[np.ndarray, np.ndarray | None]:
    palette = None
    with _pillow(path) as picture:
        if picture.mode == "P" and indices:
            palette = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
        elif picture.mode in ("P", "PA"):
            picture = picture.convert("RGBA" if "transparency" in picture.info or picture.mode == "PA" else "RGB")
        maximum = _netpbm_maximum(picture)
        array = np.array(picture)
        alpha = picture.mode in ("LA", "RGBA")
    if maximum is not None:
        array = np.rint(array * (maximum / (65535 if array.dtype == np.int32 else 255))).astype(array.dtype)
    array = np.moveaxis(array, -1, 0) if array.ndim == 3 else array[None]
    return (_drop_alpha(path, array) if alpha else array), palette


def _open_tiff(path: Path) -> File:
    import tifffile

    with tifffile.TiffFile(path) as tif:
        series = [one for one in tif.series if not one.keyframe.is_reduced]  # a reduced page is a thumbnail
        if len(series) != 1:
            raise ImageError(
                f"{path}: has {len(series)} pictures; expected one" + ("" if series else ", the file is damaged")
            )
        page, axes, shape = series[0].keyframe, series[0].axes, series[0].shape
        if not set("YX") <= set(axes) or not set(axes) <= set("YXSC") or len(axes) > 3:
            raise ImageError(
                f"{path}: has axes {axes} {shape}; expected one picture (a stack of pages has no geometry: convert it to NIfTI)"
            )
        _check_upright(path, page.tags.valueof("Orientation", 1))
        photometric = page.photometric.name
        if photometric not in ("MINISWHITE", "MINISBLACK", "RGB", "PALETTE", "YCBCR"):
            raise ImageError(f"{path}: has colours of kind {photometric}; convert it to RGB or grey")
        sizes = dict(zip(axes, shape, strict=True))
        samples = sizes.get("S", sizes.get("C", 1))
        alpha = "S" in axes and len(page.extrasamples) == 1 and int(page.extrasamples[0]) in (1, 2)
        palette = None if page.colormap is None else (np.asarray(page.colormap).T >> 8).astype(np.uint8)
        bits, dtype = page.bitspersample, page.dtype

    def pixels(indices: bool) -> tuple[np.ndarray, np.ndarray | None]:
        try:
            array = tifffile.imread(path)
            if photometric == "MINISWHITE" and array.dtype.kind in "bu":
                array = ~array
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            # Pillow knows LZW, CCITT and JPEG, but narrows colours of 16 bits to 8.
            exact = (isinstance(bits, int) and bits <= 8) or (samples == 1 and dtype in ("u2", "i2", "i4", "f4"))
            if not exact:
                raise ImageError(
                    f"{path}: its compression cannot be read with {bits} bits a sample; save it uncompressed"
                ) from error
            with _pillow(path) as picture:
                array = np.array(picture)
            array = array if array.dtype == bool else array.astype(dtype)
        array = array.reshape(shape)
        array = array[None] if array.ndim == 2 else np.moveaxis(array, axes.index("S" if "S" in axes else "C"), 0)
        if palette is None:
            return (_drop_alpha(path, array) if alpha else array), None
        return (array, palette) if indices else (np.moveaxis(palette[array[0]], -1, 0), None)

    num_channels = samples - alpha if palette is None else 3
    return File(Grid(path, (sizes["Y"], sizes["X"]), num_channels, None), None, pixels)


def _open_npy(path: Path) -> File:
    try:
        array = np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))
    except ValueError:  # an empty array cannot be mapped; a damaged file says why when it is read
        array = np.load(path, allow_pickle=False)
    shape = array.shape
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] > _MAX_NPY_CHANNELS):
        raise ImageError(
            f"{path}: has shape {shape}; expected (rows, columns) or (rows, columns, channels) with at most "
            f"{_MAX_NPY_CHANNELS} channels; volumes need a format with geometry, such as NIfTI"
        )
    array = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    return File(Grid(path, tuple(shape[:2]), len(array), None), None, lambda _: (array, None))


# Okabe and Ito's colours, which colour-blind readers tell apart. No greys: a palette of greys is read by its grey levels, ours by
# index.
_COLOURS = ((0, 158, 115), (230, 159, 0), (86, 180, 233), (204, 121, 167), (240, 228, 66), (0, 114, 178), (213, 94, 0))


def _palette() -> bytes:
    """256 colours: black for background; the seven for labels 1 to 7, their darker and lighter shades; white for 255 (ignored)."""
    colours = [(0, 0, 0)]
    for index in range(254):
        lap, base = divmod(index, len(_COLOURS))
        # Laps in bit-reversed order, so that shades that follow each other are far apart: 0, -.6, .3, -.3, .45, …
        shade = (int(f"{lap:06b}"[::-1], 2) / 64 * 1.2 + 0.6) % 1.2 - 0.6
        colours.append(tuple(int(c * (1 + shade) if shade < 0 else c + (255 - c) * shade) for c in _COLOURS[base]))
    colours.append((255, 255, 255))
    return bytes(channel for colour in colours for channel in colour)


def _write_picture(path: Path, array: np.ndarray, *_: Any) -> None:
    with open(path, "wb") as file:
        if path.suffix.lower() == ".npy":
            np.save(file, np.ascontiguousarray(array), allow_pickle=False)
            return
        from PIL import Image

        picture = Image.fromarray(np.ascontiguousarray(array))
        picture.putpalette(_palette())
        if path.suffix.lower() in _TIFF:
            picture.save(file, "TIFF", compression="tiff_adobe_deflate")
        else:
            picture.save(file, "PNG")


# Writing


def write_array(
    path: Path, array: np.ndarray, source: Any, affine: np.ndarray | None, *, scale: float = 1.0, classes: bool = False
) -> None:
    """Writes uint8 (*S), or with `classes` uint16 (*S, K), in the format of the path's suffix; whole or not at all.

    Args:
        path: File to write; its folder is made where needed.
        array: Values as they stand in the file.
        source: `File.source` of the image whose header is kept as far as the format can hold it.
        affine: (4, 4) voxel index -> RAS+ millimetres for formats with geometry.
        scale: What one step means, for NIfTI's scl_slope.
        classes: Whether the last axis is classes.
    """
    suffix = known_suffix(path)
    spatial_dims = array.ndim - classes
    if suffix not in WRITABLE:
        raise ImageError(f"{path}: {suffix} cannot hold label values faithfully; give a .png name")
    if suffix in PICTURES and spatial_dims != 2:
        raise ImageError(
            f"{path}: a volume {array.shape} does not fit into a picture; give a .nii.gz, .nrrd or .mha name"
        )
    if suffix in PICTURES:
        write = _write_picture
    elif affine is None:
        raise ImageError(f"{path}: a picture has no geometry for {suffix}; give a .png name")
    else:
        write = _write_nifti if suffix in NIFTI else _write_itk
    with errors_of(path, "written"), replacing(path) as folder:
        write(folder / path.name, array, source, affine, scale, classes)
