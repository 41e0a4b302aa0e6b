"""Small valid image files of all formats, and ways to damage them or to make them odd; for fuzz_inputs.py."""

from __future__ import annotations

import gzip
import os
import shutil
import struct
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK
import tifffile
from dicom_files import write_series
from PIL import Image as Pillow

AFFINE = np.array([[0, 0, -2.0, 9], [0.8, 0, 0, -7], [0, 1.1, 0, 3], [0, 0, 0, 1]])


@dataclass(frozen=True)
class Valid:
    """A valid file: its name, how it is written, and how many of its bytes at the start are header.

    ``summed`` says whether a checksum covers all voxels.
    """

    name: str
    write: Callable[[Path, np.ndarray], Any]
    header: int
    dims: int = 3
    channels: int = 1
    dtype: str = "i2"
    summed: bool = False


def _nifti(path: Path, array: np.ndarray) -> None:
    kind = nibabel.Nifti1Pair if path.suffix == ".img" else nibabel.Nifti1Image
    nibabel.save(kind(array, AFFINE), path)


def _itk(compressed: bool) -> Callable[[Path, np.ndarray], None]:
    def write(path: Path, array: np.ndarray) -> None:
        image = SimpleITK.GetImageFromArray(array.T)
        image.SetSpacing([0.8, 1.1, 2.0])
        image.SetDirection([0, 1, 0, 0, 0, 1, 1, 0, 0])
        SimpleITK.WriteImage(image, str(path), useCompression=compressed)

    return write


def _pillow(path: Path, array: np.ndarray) -> None:
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    picture = np.moveaxis(array, 0, -1) if array.ndim == 3 else array
    Pillow.fromarray(picture > 99 if ".pbm" in path.name else picture).save(plain)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()


def _dicom(path: Path, array: np.ndarray) -> None:
    write_series(path.parent, array[None], name=lambda _: path.name)


def _tiff(compression: str | None) -> Callable[[Path, np.ndarray], None]:
    return lambda path, array: tifffile.imwrite(path, array, compression=compression)


def _palette(path: Path, array: np.ndarray) -> None:
    picture = Pillow.fromarray(array % 4)
    picture.putpalette(bytes(range(12)))
    picture.save(path)


VALID = [
    Valid("a.nii", _nifti, 352),
    Valid("a.nii.gz", _nifti, 20, summed=True),
    Valid("b.nii.gz", _nifti, 20, dtype="f4", summed=True),
    Valid("a.img", _nifti, 0),
    Valid("a.nrrd", _itk(True), 380, summed=True),
    Valid("b.nrrd", _itk(False), 380),
    Valid("a.seg.nrrd", _itk(True), 380, summed=True),
    Valid("a.mha", _itk(True), 380, summed=True),
    Valid("b.mha", _itk(False), 340, dtype="f4"),
    Valid("a.mhd", _itk(True), 380, summed=True),
    Valid("b.mhd", _itk(False), 340),
    Valid("a.png", _pillow, 60, 2, 1, "u1", summed=True),
    Valid("b.png", _pillow, 60, 2, 3, "u1", summed=True),
    Valid("c.png", _pillow, 60, 2, 1, "u2", summed=True),
    Valid("d.png", _palette, 90, 2, 3, "u1", summed=True),
    Valid("a.jpg", _pillow, 600, 2, 3, "u1"),
    Valid("a.tif", _tiff(None), 256, 2, 1, "u2"),
    Valid("b.tif", _tiff("zlib"), 256, 2, 1, "u1"),
    Valid("a.bmp", _pillow, 54, 2, 3, "u1"),
    Valid("a.gif", _pillow, 800, 2, 3, "u1"),
    Valid("a.ppm", _pillow, 13, 2, 3, "u1"),
    Valid("a.pgm", _pillow, 13, 2, 1, "u1"),
    Valid("a.pbm.gz", _pillow, 20, 2, 1, "u1", summed=True),
    Valid("b.pgm.gz", _pillow, 20, 2, 1, "u1", summed=True),
    Valid("a.npy", np.save, 128, 2, 1, "f4"),
    Valid("b.npy", np.save, 128, 2, 1, "i2"),
    Valid("a.dcm", _dicom, 1300, 2, 1, "u2"),
]


def voxels(valid: Valid, rng: np.random.Generator) -> np.ndarray:
    shape = ((valid.channels,) if valid.channels > 1 else ()) + ((9, 8, 7) if valid.dims == 3 else (21, 26))
    if valid.name in ("d.png", "a.gif"):
        shape = (21, 26)
    if valid.dtype == "f4":
        return rng.normal(0, 300, shape).astype("f4")
    return rng.integers(0, 250, shape).astype(valid.dtype)


# Damage: (file that holds the bytes, the valid file, its voxels, random numbers) -> whether the voxels must be those before.
# None: any right reading of the damaged file will do, for nothing in it could tell.
Damage = Callable[[Path, Valid, np.ndarray, np.random.Generator], bool | None]


def _changed(path: Path, change: Callable[[bytearray], Any]) -> None:
    content = bytearray(path.read_bytes())
    path.write_bytes(change(content) or content)


def _flip(content: bytearray, low: int, high: int, count: int, rng: np.random.Generator) -> None:
    for position in rng.integers(low, max(high, low + 1), count):
        content[min(int(position), len(content) - 1)] ^= int(rng.integers(1, 256))


def flip_anywhere(path: Path, valid: Valid, _: np.ndarray, rng: np.random.Generator) -> bool | None:
    """One byte of the voxels."""
    low = 0 if ".z" in path.suffix or path.suffix == ".raw" else min(valid.header, path.stat().st_size - 1)
    _changed(path, lambda content: _flip(content, low, len(content), 1, rng))
    return True if valid.summed else None


def flip_header(path: Path, valid: Valid, _: np.ndarray, rng: np.random.Generator) -> None:
    _changed(
        path, lambda content: _flip(content, 0, min(valid.header or 348, len(content)), int(rng.integers(1, 4)), rng)
    )


def truncate(path: Path, *rest: Any) -> bool:
    _changed(path, lambda content: content[: int(rest[-1].integers(1, len(content)))])
    return True


def append(path: Path, *rest: Any) -> bool:
    _changed(path, lambda content: content + rest[-1].bytes(int(rest[-1].integers(1, 900))))
    return True


def zero_block(path: Path, valid: Valid, _: np.ndarray, rng: np.random.Generator) -> bool | None:
    def change(content: bytearray) -> None:
        start = int(rng.integers(0, len(content)))
        stop = min(len(content), start + 60)
        content[start:stop] = bytes(stop - start)

    _changed(path, change)
    return None


def empty(path: Path, *_: Any) -> bool:
    path.write_bytes(b"")
    return True


def random_bytes(path: Path, *rest: Any) -> None:
    path.write_bytes(rest[-1].bytes(2000))


def text(path: Path, *_: Any) -> None:
    path.write_text("<html><body>404 Not Found</body></html>\n" * 9)


def foreign_header(path: Path, valid: Valid, array: np.ndarray, rng: np.random.Generator) -> None:
    """The beginning of another format's file, then this one's."""
    other = VALID[int(rng.integers(len(VALID)))]
    with tempfile.TemporaryDirectory() as folder:
        other.write(Path(folder) / other.name, voxels(other, rng))
        begin = (Path(folder) / other.name).read_bytes()[:100]
    _changed(path, lambda content: begin + content[100:])


def missing(path: Path, *_: Any) -> bool:
    path.unlink()
    path.symlink_to("nowhere")
    return True


def folder(path: Path, *_: Any) -> bool:
    path.unlink()
    path.mkdir()
    return True


def huge(path: Path, valid: Valid, array: np.ndarray, rng: np.random.Generator) -> None:
    """Sizes far beyond the file in its header."""
    big = int(rng.choice([20_000, 30_000]))
    header = path.with_suffix(".hdr") if path.suffix == ".img" else path

    def change(content: bytearray) -> bytearray | None:
        if path.name.endswith(".nii.gz"):
            inner = bytearray(gzip.decompress(content))
            inner[42:48] = struct.pack("<3h", big, big, big)
            return bytearray(gzip.compress(inner))
        if path.suffix in (".nii", ".img"):
            content[42:48] = struct.pack("<3h", big, big, big)
        elif path.suffix in (".nrrd", ".mha", ".mhd"):
            return bytearray(content.replace(b"9 8 7", b"%d %d %d" % (big, big, big)))
        elif path.suffix == ".png":
            content[16:24] = struct.pack(">2I", big, big)
            content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
        elif path.suffix == ".bmp":
            content[18:26] = struct.pack("<2i", big, big)
        elif path.suffix == ".gif":
            content[6:10] = struct.pack("<2H", big, big)
        elif path.suffix in (".ppm", ".pgm"):
            return bytearray(content.replace(b"26 21", b"%d %d" % (big, big)))
        elif path.suffix == ".npy":
            return bytearray(content.replace(b"(21, 26), }" + b" " * 10, b"(%d, %d), }" % (big, big) + b" " * 4))
        elif path.suffix == ".tif":
            return bytearray(content.replace(struct.pack("<HHI", 256, 4, 1), struct.pack("<HHI", 256, 4, big), 1))
        return None

    _changed(header, change)


def not_finite(path: Path, valid: Valid, array: np.ndarray, rng: np.random.Generator) -> bool | None:
    if valid.dtype != "f4":
        return flip_header(path, valid, array, rng)
    broken = array.copy()
    broken.flat[int(rng.integers(broken.size))] = rng.choice([np.nan, np.inf, -np.inf])
    valid.write(path.with_name(valid.name), broken)
    return True


def odd_type(path: Path, valid: Valid, array: np.ndarray, rng: np.random.Generator) -> bool | None:
    """Another type or byte order, with the same voxels where it can hold them."""
    types = ["u1", "i4", "u8", "i8", "f8", ">i2", ">f4", ">f8", "c8", "?", "f2", "g", "U3", "O"]
    kind = np.dtype(types[int(rng.integers(len(types)))])
    other = array.astype(kind)
    target = path.with_name(valid.name)
    try:
        if path.suffix == ".npy":
            np.save(target, other, allow_pickle=True)
        elif path.name.endswith((".nii", ".nii.gz")):
            nibabel.save(nibabel.Nifti1Image(other, AFFINE), target)
        elif path.suffix == ".tif":
            tifffile.imwrite(target, other)
        elif path.suffix in (".nrrd", ".mha"):
            valid.write(target, other.astype(kind.newbyteorder("=")))
        else:
            return flip_header(path, valid, array, rng)
    except Exception:  # the format cannot hold it
        valid.write(target, array)
    return None


def odd_shape(path: Path, valid: Valid, array: np.ndarray, rng: np.random.Generator) -> None:
    """More or fewer axes, or none."""
    other = [array[None], array[..., None, None], array[:0], array[0], array.ravel()][int(rng.integers(5))]
    try:
        valid.write(path.with_name(valid.name), other)
    except Exception:  # the format cannot hold it
        valid.write(path.with_name(valid.name), array)


def wrong_suffix(path: Path, valid: Valid, array: np.ndarray, rng: np.random.Generator) -> None:
    """The content of another format under this name."""
    other = VALID[int(rng.integers(len(VALID)))]
    with tempfile.TemporaryDirectory() as folder:
        other.write(Path(folder) / other.name, voxels(other, rng))
        shutil.copy(Path(folder) / other.name, path)


def odd_name(path: Path, valid: Valid, array: np.ndarray, rng: np.random.Generator) -> bool:
    """Suffix in capitals, or a name that is not UTF-8."""
    stem, dot, suffix = valid.name.partition(".")
    name = rng.choice(
        [stem + dot + suffix.upper(), os.fsdecode(b"sc\xff\xfe.") + suffix, f"lunge [ü] {{0}} %s.{suffix}"]
    )
    path.with_name(valid.name).rename(path.with_name(str(name)))
    header = path.with_suffix(".hdr")
    if header.exists():
        header.rename(path.with_name(str(name)).with_suffix(".HDR" if str(name).isupper() else ".hdr"))
    return True


DAMAGES: list[Damage] = [
    flip_anywhere, flip_anywhere, flip_anywhere, flip_header, flip_header, flip_header, truncate, truncate, append, zero_block,
    empty, random_bytes, text, foreign_header, missing, folder, huge, huge, not_finite, odd_type, odd_type, odd_shape,
    wrong_suffix, odd_name,
]  # fmt: skip


def make_input(index: int, seed: int, place: Path) -> tuple[Path, Valid, np.ndarray, bool | None, str]:
    """The damaged file of an index, its valid file, voxels, whether these must be found, and what was done."""
    rng = np.random.default_rng([seed, index])
    valid = VALID[index % len(VALID)]
    damage = DAMAGES[int(rng.integers(len(DAMAGES)))]
    array = voxels(valid, rng)
    place.mkdir(parents=True)
    valid.write(place / valid.name, array)
    from r2seg.data.images import read_image

    before = read_image(place / valid.name).array.copy()
    data = next((path for path in place.iterdir() if "raw" in path.suffix.lower()), None)
    target = data if data and rng.random() < 0.5 and damage is not odd_name else place / valid.name
    must = damage(target, valid, array, rng)
    path = next(
        (p for p in sorted(place.iterdir()) if "raw" not in p.suffix.lower() and p.suffix.lower() != ".hdr"),
        place / valid.name,
    )
    return path, valid, before, must, f"{damage.__name__} of {target.name}"
