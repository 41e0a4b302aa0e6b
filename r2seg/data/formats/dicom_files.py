"""Which files are DICOM and of which kind, read from their first bytes: cheap, and without pydicom.

What the headers say is read in dicom_headers.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

_STORAGE = "1.2.840.10008.5.1.4.1.1."
# SOP class -> what it is called; the rest of the UID follows _STORAGE.
SLICES = {"2": "CT", "4": "MR", "128": "PET"}
VOLUMES = {
    "2.1": "enhanced CT",
    "2.2": "converted enhanced CT",
    "4.1": "enhanced MR",
    "4.4": "converted enhanced MR",
    "130": "enhanced PET",
    "128.1": "converted enhanced PET",
}
PICTURES = {
    "1": "computed radiography",
    "1.1": "digital X-ray",
    "1.1.1": "digital X-ray",
    "1.2": "mammography",
    "1.2.1": "mammography",
    "1.3": "intra-oral X-ray",
    "1.3.1": "intra-oral X-ray",
    "77.1.1": "endoscopy",
    "77.1.2": "microscopy",
    "77.1.4": "photograph",
    "77.1.5.1": "ophthalmic photograph",
    "77.1.5.2": "ophthalmic photograph",
    "77.1.7": "dermoscopic photograph",
}
RTSTRUCT, SEG, LABELMAP_SEG = "481.3", "66.4", "66.7"
LABELS = {RTSTRUCT: "RTSTRUCT", SEG: "DICOM-SEG", LABELMAP_SEG: "DICOM-SEG"}
OTHERS = {
    "7": "secondary capture",
    "7.1": "secondary capture",
    "7.2": "secondary capture",
    "7.3": "secondary capture",
    "7.4": "secondary capture",
    "6.1": "ultrasound",
    "3.1": "ultrasound",
    "12.1": "angiography",
    "12.2": "fluoroscopy",
    "20": "nuclear medicine",
    "481.2": "RT dose",
    "481.5": "RT plan",
    "11.1": "presentation state",
    "88.11": "structured report",
    "88.22": "structured report",
    "88.33": "structured report",
    "88.67": "dose report",
    "66.1": "spatial registration",
    "66": "raw data",
    "104.1": "PDF",
}
UNKNOWN = ""  # DICOM whose file meta information does not name its class
SUFFIXES = (".dcm", ".ima", ".dicom")
_DIRECTORY = "1.2.840.10008.1.3.10"  # a DICOMDIR lists files and holds no pixels
# Folders of thousands of other files are not read to their end.
_MOST_CANDIDATES = 100


def kind_of(path: Path) -> str | None:
    """Kind of a DICOM file, a key of the tables above (or the whole UID of another class); None if it is not DICOM.

    It is the Media Storage SOP Class UID (0002,0002), in the file meta information behind the mark "DICM" at byte 128.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(2048)
    except OSError:
        return None
    if head[128:132] != b"DICM":
        return None
    at = 132
    while at + 12 <= len(head):
        group, element, kind, length = struct.unpack_from("<HH2sH", head, at)
        at += 8
        if kind in (b"OB", b"OW", b"UN", b"SQ", b"UT"):
            length = struct.unpack_from("<I", head, at)[0]
            at += 4
        if group != 2:
            break
        if element == 2:
            uid = head[at : at + length].decode("latin-1").strip(" \0")
            return uid.removeprefix(_STORAGE)
        at += length
    return UNKNOWN


def named_kind(kind: str) -> str:
    """What a kind is called in messages."""
    for table in (SLICES, VOLUMES, PICTURES, LABELS, OTHERS):
        if kind in table:
            return table[kind]
    return f"DICOM of class {kind}" if kind else "DICOM of unknown class"


def dicom_files(folder: Path) -> dict[Path, str]:
    """The DICOM files in a folder, not in its subfolders, by name: path -> kind. Hidden files and DICOMDIR are left out."""
    kinds = ((path, kind_of(path)) for path in sorted(_candidates(folder)))
    return {path: kind for path, kind in kinds if kind is not None and kind != _DIRECTORY}


def holds_slices(folder: Path) -> bool:
    """Whether a folder holds slices of a series: what stands in it directly are one image's files, not images."""
    for number, path in enumerate(sorted(_candidates(folder), key=_likely_first)):
        if number == _MOST_CANDIDATES:
            return False
        kind = kind_of(path)
        if kind in SLICES or kind == UNKNOWN:
            return True
    return False


def is_series_folder(folder: Path) -> bool:
    """Whether a folder is one image or one label: it holds a series' slices, or one RTSTRUCT, DICOM-SEG or multi-frame file alone."""
    if holds_slices(folder):
        return True
    candidates = sorted(_candidates(folder), key=_likely_first)[:_MOST_CANDIDATES]
    kinds = [kind for kind in map(kind_of, candidates) if kind is not None]
    return len(kinds) == 1 and (kinds[0] in LABELS or kinds[0] in VOLUMES)


def label_file_of(path: Path) -> tuple[Path, str] | None:
    """The RTSTRUCT or DICOM-SEG of a path, and its kind: the file itself, or the only one in a folder; None if there is none."""
    if path.is_dir():
        found = [(file, kind) for file, kind in dicom_files(path).items() if kind in LABELS]
        return found[0] if len(found) == 1 else None
    kind = kind_of(path)
    return (path, kind) if kind in LABELS else None


def is_dicom_label(path: Path) -> bool:
    """Whether a path is an RTSTRUCT or DICOM-SEG, or a folder of one without slices beside it."""
    if path.is_dir() and holds_slices(path):
        return False
    return label_file_of(path) is not None


def _candidates(folder: Path) -> Iterator[Path]:
    try:
        for path in folder.iterdir():
            if not path.name.startswith(".") and path.is_file():
                yield path
    except OSError:  # whoever reads the folder says why it cannot be read
        return


def _likely_first(path: Path) -> tuple[bool, str]:
    return path.suffix.lower() not in SUFFIXES, path.name
