"""NIfTI-1 and NIfTI-2, in one file (.nii, .nii.gz) or two (.hdr with .img): header and voxels, read and written.

nibabel reads and writes the header. The voxels are read here, memory-mapped or inflated straight into their array: a third of
nibabel's time, and no second copy in memory. They are written here too, in half of nibabel's time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from isal import igzip

from r2seg.data.formats.base import (
    MAX_INFLATION,
    File,
    Grid,
    Header,
    ImageError,
    check_complete,
    drop_alpha,
    warn_of_rest,
    with_normal,
)

# 512x512x130: a mask takes 0.003 s and 183 kB at isal's level 1 (zlib's level 1: 0.044 s and 283 kB), 0.06 s and 286 kB at
# level 3; probabilities grow with the level, too.
_GZIP_LEVEL = 1
_BLOCK = 1 << 18


@dataclass(frozen=True)
class NiftiSource:
    """Header of a NIfTI file and its full shape, which may end in channels."""

    header: Any
    shape: tuple[int, ...]


def open_nifti(path: Path) -> File:
    """A NIfTI file by its header.

    Raises:
        ImageError: Its header file is missing, or its axes or values are not those of an image.
    """
    import nibabel

    image = nibabel.load(path) if _is_plain(path) else _load_by_content(path)
    return _file_of(image, path, lambda dtype, shape: _voxels(path, dtype, shape, int(image.dataobj.offset)))


def from_nibabel(image: Any) -> File:
    """A nibabel image in memory, by the rules of its file.

    Raises:
        ImageError: Its axes or values are not those of an image.
    """
    import nibabel

    path = Path(image.get_filename() or "the nibabel image")
    stored = image.dataobj
    if not isinstance(image, nibabel.Nifti1Pair) and not isinstance(image, nibabel.AnalyzeImage):
        image = nibabel.Nifti1Image(stored, image.affine)  # such as MGH: in millimetres

    def voxels(dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        file = getattr(stored, "file_like", None)
        if isinstance(file, str) and file.lower().endswith((".nii", ".nii.gz", ".img")):
            return _voxels(Path(file), dtype, shape, int(stored.offset))  # verifies the checksum
        array = stored.get_unscaled() if nibabel.is_proxy(stored) else stored
        return np.asarray(array).reshape(shape)

    return _file_of(image, path, voxels)


def _file_of(image: Any, path: Path, voxels: Callable[[np.dtype, tuple[int, ...]], np.ndarray]) -> File:
    """The file of a nibabel image.

    Args:
        image: Its header and affine are used.
        path: Named in errors.
        voxels: Of a type and shape (*S), the stored voxels, unscaled.

    Raises:
        ImageError: Its axes or values are not those of an image.
    """
    import nibabel

    if not isinstance(image, nibabel.Nifti1Pair):  # the base of NIfTI-2 and single files, too
        raise ImageError(f"{path}: is {type(image).__name__}, which states no orientation; convert it to NIfTI")
    header, shape = image.header, tuple(int(n) for n in image.shape)
    if not 2 <= len(shape) <= 4:
        raise ImageError(f"{path}: has {len(shape)} axes {shape}; expected 2, 3, or 4 whose last is channels")
    spatial = shape[:3]
    dtype = header.get_data_dtype() if nibabel.is_proxy(image.dataobj) else image.dataobj.dtype
    samples = dtype.names or ()  # ("R", "G", "B") or ("R", "G", "B", "A")
    if samples and len(shape) == 4:
        raise ImageError(f"{path}: has coloured voxels and a fourth axis {shape}; expected one of the two")
    num_channels = len([name for name in samples if name != "A"]) or (shape[3] if len(shape) == 4 else 1)
    affine = np.array(image.affine, np.float64)
    # xyzt_units: 1 metre, 2 millimetre, 3 micron
    affine[:3] *= {1: 1e3, 3: 1e-3}.get(int(header["xyzt_units"]) & 7, 1.0)
    if len(spatial) == 2:
        affine = with_normal(affine)
    proxy = nibabel.is_proxy(image.dataobj)
    slope, inter = (image.dataobj.slope, image.dataobj.inter) if proxy else (1.0, 0.0)

    def pixels(_: bool) -> tuple[np.ndarray, None]:
        if dtype.kind == "c":
            raise ImageError(f"{path}: holds complex numbers ({dtype}); write their magnitude or phase as a real image")
        array = voxels(dtype, shape)
        if samples:
            array = np.ascontiguousarray(array).view(np.uint8).reshape(*spatial, len(samples))
        array = np.moveaxis(array, -1, 0) if array.ndim > len(spatial) else array[None]
        if "A" in samples:
            array = drop_alpha(path, array)
        if (slope, inter) != (1.0, 0.0):
            array = array.astype(np.float32)
            array *= np.float32(slope)
            array += np.float32(inter)
        return array, None

    return File(Grid(path, spatial, num_channels, affine), NiftiSource(header, shape), pixels)


def _is_plain(path: Path) -> bool:
    """Whether nibabel finds the files by their names: it knows suffixes in lower case."""
    if path.suffix == ".img" and not path.with_suffix(".hdr").exists():
        return False
    return path.name.endswith((".nii", ".nii.gz", ".img"))


def _load_by_content(path: Path) -> Any:
    """nibabel's image of files whose suffixes are in another case, such as SCAN.NII.GZ, or SCAN.IMG with SCAN.HDR."""
    import nibabel
    from nibabel.fileholders import FileHolder
    from nibabel.openers import Opener

    files, kinds = {"image": FileHolder(path)}, (nibabel.Nifti1Image, nibabel.Nifti2Image)
    header_path = path
    if path.suffix.lower() == ".img":
        wanted = path.with_suffix(".hdr").name
        found = sorted(other for other in path.parent.iterdir() if other.name.lower() == wanted.lower())
        if not found:
            raise ImageError(f"{path}: its header {wanted} is missing")
        header_path = next((other for other in found if other.suffix.isupper() == path.suffix.isupper()), found[0])
        files, kinds = {**files, "header": FileHolder(header_path)}, (nibabel.Nifti1Pair, nibabel.Nifti2Pair)
    with Opener(header_path) as file:
        begin = file.read(540)
    for kind in kinds:
        if kind.header_class.may_contain_header(begin):
            return kind.from_file_map(files)
    raise ImageError(f"{path}: is not NIfTI, or its header is damaged")


def _voxels(path: Path, dtype: np.dtype, shape: tuple[int, ...], offset: int) -> np.ndarray:
    """Stored voxels, unscaled, first axis fastest; memory-mapped (copy on write) if the file is not compressed."""
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if path.name.lower().endswith(".gz"):
        return _inflate(path, offset, size).view(dtype).reshape(shape, order="F")
    have = path.stat().st_size - offset
    check_complete(path, have, size)
    warn_of_rest(path, have, size)
    return np.asarray(np.memmap(path, dtype, "c", offset, shape, "F"))


def _inflate(path: Path, skip: int, size: int) -> np.ndarray:
    """Bytes [skip, skip + size) of a gzip file's content, its checksum verified."""
    check_complete(path, path.stat().st_size * MAX_INFLATION, size)
    content = np.empty(size, np.uint8)
    view, done = content.data, 0
    with igzip.open(path) as file:
        file.seek(skip)
        # In blocks: a gzip file's readinto() would first make the whole piece elsewhere.
        while read := file.readinto(view[done : done + _BLOCK]):
            done += read
        while file.read(_BLOCK):  # to the end, where the checksum is
            pass
    check_complete(path, done, size)
    return content


def header_file_of(path: Path) -> Path:
    """The file for the header of a .img file: a.img has a.hdr, a.IMG has a.HDR."""
    return path.with_suffix(".HDR" if path.suffix.isupper() else ".hdr")


def write_nifti(path: Path, array: np.ndarray, around: Header) -> None:
    """Writes voxels with a NIfTI source's header, or with a new one from the affine."""
    array = _with_file_axes(array, around)
    header = _in_files_of(_header_for(array, around), path)
    single = header.is_single
    head = BytesIO()
    header.write_to(head)  # sets vox_offset of a single file if it was 0
    offset = int(header["vox_offset"])
    before = head.getvalue().ljust(offset, b"\0") if single else bytes(offset)
    if not single:
        header_file_of(path).write_bytes(head.getvalue())
    voxels = np.empty(array.shape, array.dtype.newbyteorder(header.endianness), order="F")
    for start in range(0, len(array), 16):  # a transposition in blocks takes half the time of one at once
        voxels[start : start + 16] = array[start : start + 16]
    with open(path, "wb") as file:
        # No name and no time in the gzip header: the same voxels give the same bytes.
        packed = path.suffix.lower() == ".gz"
        target = igzip.IGzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) if packed else file
        target.write(before)
        target.write(voxels.T.data.cast("B"))
        target.close()


def _with_file_axes(array: np.ndarray, around: Header) -> np.ndarray:
    """The array with the axes of length 1 that its file has."""
    if around.classes:  # a picture of one slice: the fourth axis is classes
        return array[:, :, None] if array.ndim == 3 else array
    had_fourth_axis = isinstance(around.source, NiftiSource) and around.source.shape[3:] == (1,)
    return array[..., None] if had_fourth_axis else array


def _header_for(array: np.ndarray, around: Header) -> Any:
    """The source's header with the array's own shape and type, or a new one in millimetres."""
    import nibabel

    if isinstance(around.source, NiftiSource):
        header = around.source.header.copy()
    else:
        header = nibabel.Nifti1Header()
        header.set_data_shape(array.shape)
        # A quaternion cannot hold a sheared affine, as of a tilted gantry: a reader that prefers it would put voxels elsewhere.
        header.set_qform(around.affine, int(_is_orthogonal(around.affine)))
        header.set_sform(around.affine, 1)
        header.set_xyzt_units("mm")
    header.set_data_dtype(array.dtype)
    if header.get_data_shape() != array.shape:
        header.set_data_shape(array.shape)
        header.set_intent("none")  # it may describe channels that are gone
    header["scl_slope"], header["scl_inter"] = around.scale, 0
    header["cal_min"] = header["cal_max"] = 0
    return header


def _is_orthogonal(affine: Any) -> bool:
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.allclose(directions.T @ directions, np.eye(3), atol=1e-4))


def _in_files_of(header: Any, path: Path) -> Any:
    """The header for a single file or for a pair, as the path's suffix says; extensions are lost if it changes."""
    import nibabel

    single = path.suffix.lower() != ".img"
    if header.is_single == single:
        return header
    kinds = {
        (348, True): nibabel.Nifti1Image,
        (348, False): nibabel.Nifti1Pair,
        (540, True): nibabel.Nifti2Image,
        (540, False): nibabel.Nifti2Pair,
    }
    kind = kinds[int(header["sizeof_hdr"]), single].header_class
    header = kind(header.binaryblock, header.endianness, check=False)
    header["magic"] = header.single_magic if single else header.pair_magic
    header["vox_offset"] = 0
    return header
