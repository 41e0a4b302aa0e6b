"""Whether the voxel data of NRRD and MetaImage files are whole: their length and, if compressed, their checksum.

ITK verifies neither zlib's Adler-32 nor gzip's CRC-32, so that damaged data would be read as other voxels. The header is parsed here
only as far as it says where the data lie and how they are packed; ITK reads the image (itk.py).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from isal import isal_zlib

from r2seg.data.formats.base import ImageError, check_complete, warn_of_rest

_MAX_HEADER = 1 << 20
_BLOCK = 1 << 16
_ZLIB, _GZIP = 15, 31  # wbits
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class Stored:
    """Where the voxels of an image lie.

    Attributes:
        file: The file that holds them: the image's own, or a second one.
        offset: Where they begin, in bytes; None if they are the file's last bytes.
        wbits: How zlib is to unpack them; None if they are not compressed.
        stated_size: Compressed bytes that the header states, or None.
        before: Unpacked bytes before the first voxel.
    """

    file: Path
    offset: int | None = 0
    wbits: int | None = None
    stated_size: int | None = None
    before: int = 0


def find_voxels(path: Path) -> Stored | None:
    """Where an image's voxels lie, from its header; None if they are text or one file per slice, which ITK reports on.

    Raises:
        ImageError: The header cannot be read, or names its data in a way that ITK must not see.
    """
    return _HEADERS[path.suffix.lower()](path)


def check_voxels(path: Path, values: int, bytes_per_value: int) -> None:
    """Checks that an image's file holds the voxels that its header states, unharmed as far as the format can tell.

    Args:
        path: The image: .nrrd, .mha or .mhd in any case.
        values: Voxels times components.
        bytes_per_value: Size of one component.

    Raises:
        ImageError: Data are missing, or their length or checksum is wrong.
    """
    stored = find_voxels(path)
    if stored is None:
        return
    if not stored.file.is_file():
        raise ImageError(f"{path}: its voxel data {stored.file.name} are missing")
    size = values * bytes_per_value + stored.before
    have = stored.file.stat().st_size - (stored.offset or 0)
    if stored.wbits is None:
        check_complete(path, have, size)
        if stored.offset is not None:
            warn_of_rest(path, have, size)
        return
    if stored.stated_size is not None:
        check_complete(path, have, stored.stated_size, "compressed voxels")
    unpacked, consumed = _unpack(stored.file, stored.offset or 0, stored.wbits, size)
    check_complete(path, unpacked, size)
    if unpacked > size:
        raise ImageError(
            f"{path}: holds more than the {size} bytes of voxels that its header states: the header or the data are damaged"
        )
    # ITK would unpack the stated bytes alone.
    if stored.stated_size is not None and consumed > stored.stated_size:
        raise ImageError(
            f"{path}: holds {consumed} bytes of compressed voxels, but its header states {stored.stated_size}: it is damaged"
        )


def _unpack(path: Path, offset: int, wbits: int, limit: int) -> tuple[int, int]:
    """Unpacked and consumed bytes, the checksum verified; stops after more than ``limit`` unpacked bytes."""
    unpacked = consumed = 0
    with open(path, "rb") as file:
        file.seek(offset)
        block = file.read(_BLOCK)
        while True:
            stream = isal_zlib.decompressobj(wbits)
            while not stream.eof:
                if not block:
                    raise EOFError
                unpacked += len(stream.decompress(block))
                rest = stream.unused_data if stream.eof else b""
                consumed += len(block) - len(rest)
                block = rest or file.read(_BLOCK)
                if unpacked > limit:
                    return unpacked, consumed
            # Members of gzip may follow each other; anything else behind the end does not belong to the data.
            if wbits != _GZIP or not block.startswith(_GZIP_MAGIC):
                return unpacked, consumed


def _check_slices(path: Path, name: str, packed: bool) -> None:
    """Refuses one file per slice if it cannot be verified, or if ITK would end the process on the pattern of the names."""
    if packed:
        raise ImageError(f"{path}: compressed voxels in several files cannot be verified; convert it to one file")
    # ITK passes the pattern to printf: %s would read any memory.
    if "%" in name and not re.fullmatch(r"[^%]*%0?\d{0,2}[diu][^%]*", name):
        raise ImageError(f"{path}: names its data {name!r}, which is not a pattern such as slice_%03d.raw")


def _header_lines(path: Path, last: Callable[[bytes], bool]) -> tuple[list[str], int]:
    """The lines of a text header up to the one for which ``last`` is true, and the offset of what follows."""
    lines, offset = [], 0
    with open(path, "rb") as file:
        while line := file.readline(_MAX_HEADER):
            offset += len(line)
            lines.append(os.fsdecode(line).strip())  # it may hold the name of a file
            if last(line.strip()):
                return lines, offset
            if offset >= _MAX_HEADER:
                break
    raise ImageError(f"{path}: its header has no end: it is damaged")


def _metaimage(path: Path) -> Stored | None:
    lines, offset = _header_lines(path, lambda line: line.replace(b" ", b"").startswith(b"ElementDataFile="))
    fields = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
    name, packed = fields["ElementDataFile"], fields.get("CompressedData", "")[:1] in ("T", "t", "1")
    if name.split()[:1] == ["LIST"] or "%" in name:
        _check_slices(path, name, packed)
        return None
    local = name.upper() == "LOCAL"
    file = path if local else path.parent / name
    if not packed:
        header_size = int(fields.get("HeaderSize", "0"))
        return Stored(file, (None if header_size < 0 else header_size) if not local else offset)
    stated = int(fields.get("CompressedDataSize", "0"))
    if stated < 1:  # ITK would guess it, fail, and give voxels without an error
        raise ImageError(f"{path}: does not state its CompressedDataSize: its header is damaged")
    return Stored(file, offset if local else 0, _wbits_of(file, offset if local else 0), stated)


def _wbits_of(file: Path, offset: int) -> int:
    """How the compressed data of a MetaImage are unpacked: they are zlib's, or gzip's by their first bytes."""
    if not file.is_file():
        return _ZLIB
    with open(file, "rb") as data:
        data.seek(offset)
        return _GZIP if data.read(2) == _GZIP_MAGIC else _ZLIB


def _nrrd(path: Path) -> Stored | None:
    lines, offset = _header_lines(path, lambda line: not line or re.match(rb"data ?file:\s*LIST", line) is not None)
    fields = {}
    for line in lines:
        key, colon, value = line.partition(":")
        if colon and not line.startswith("#") and not value.startswith("="):
            fields[key.replace(" ", "")] = value.strip()
    encoding, name = fields.get("encoding", "").lower(), fields.get("datafile", "")
    packed = encoding in ("gzip", "gz")
    if name.split()[:1] == ["LIST"] or ("%" in name and len(name.split()) > 1):
        _check_slices(path, name, packed)
        return None
    if not packed and encoding != "raw":
        return None  # text: ITK reports what is missing
    file = path.parent / name if name else path
    skip = int(fields.get("byteskip", "0"))
    start = _after_lines(file, 0 if name else offset, int(fields.get("lineskip", "0")))
    if packed:
        return Stored(file, start, _GZIP, before=max(skip, 0))
    return Stored(file, None if skip < 0 else start + skip)


def _after_lines(file: Path, offset: int, count: int) -> int:
    if count < 1 or not file.is_file():
        return offset
    with open(file, "rb") as data:
        data.seek(offset)
        return offset + sum(len(data.readline(_MAX_HEADER)) for _ in range(count))


_HEADERS: dict[str, Callable[[Path], Stored | None]] = {".nrrd": _nrrd, ".mha": _metaimage, ".mhd": _metaimage}
