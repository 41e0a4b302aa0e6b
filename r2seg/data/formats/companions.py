"""The other files that an image file consists of: a header's voxel data, or the header of voxel data.

Nothing here reads voxels; whoever must know whether an image has changed asks for its companions too.
"""

from __future__ import annotations

from pathlib import Path

# Headers are text of a few hundred bytes; voxels may follow in the same file.
_HEADER_BYTES = 1 << 16


def companions(path: Path) -> tuple[Path, ...]:
    """The files that belong to an image: .hdr of .img, what .mhd, .mha and .nrrd name as their data; whether they exist or not.

    Those of a folder with a DICOM series are the files in it.

    Raises:
        OSError: The file cannot be read.
    """
    if path.is_dir():
        return tuple(sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith(".")))
    suffix = path.suffix.lower()
    if suffix == ".img":
        return (path.with_suffix(".hdr"),)
    if suffix in (".mhd", ".mha"):
        return _named_data(path, ("elementdatafile",), "=")
    if suffix == ".nrrd":
        return _named_data(path, ("data file", "datafile"), ":")
    return ()


def _named_data(path: Path, keys: tuple[str, ...], separator: str) -> tuple[Path, ...]:
    """The files that a header's line ``key separator value`` names: one, a list in the following lines, or a numbered series."""
    with open(path, "rb") as file:
        lines = file.read(_HEADER_BYTES).decode("latin-1").splitlines()
    for index, line in enumerate(lines):
        if separator == ":" and not line.strip():  # voxels follow the empty line of a NRRD header
            break
        key, found, value = line.partition(separator)
        if not found or key.strip().lower() not in keys:
            continue
        value = value.strip()
        if value.upper() == "LOCAL":
            return ()
        if value.upper().split()[:1] == ["LIST"]:
            names = [name.strip() for name in lines[index + 1 :] if name.strip()]
        else:
            names = _series(value)
        return tuple(path.parent / name for name in names if "\0" not in name)  # binary data are no name
    return ()


def _series(value: str) -> list[str]:
    """ "slice%03d.raw 1 10 1" -> ten names; any other value is a name itself."""
    words = value.rsplit(maxsplit=3)
    if "%" not in value or len(words) != 4 or not all(word.lstrip("-").isdigit() for word in words[1:]):
        return [value]
    first, last, step = map(int, words[1:])
    try:
        return [words[0] % number for number in range(first, last + 1, max(1, step))]
    except (TypeError, ValueError):  # % is part of the name
        return [value]
