"""DICOM images: a folder with one series, or one file that is a picture or a volume. Labels are read in dicom_labels.py.

The geometry of slices is worked out in dicom_stack.py, pixels are decoded in dicom_pixels.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from r2seg.data.formats.base import File, Grid, ImageError, errors_of
from r2seg.data.formats.dicom_files import (
    LABELS,
    PICTURES,
    SLICES,
    SUFFIXES,
    UNKNOWN,
    VOLUMES,
    dicom_files,
    kind_of,
    named_kind,
)
from r2seg.data.formats.dicom_headers import Frame, Series, frames_of, group_into_series, pydicom_for, read_header
from r2seg.data.formats.dicom_pixels import by_simpleitk, decoded, needs_simpleitk, read_volume
from r2seg.data.formats.dicom_stack import stack
from r2seg.data.formats.messages import say_once
from r2seg.errors import counted, some

# A series is chosen by its number or its UID.
SeriesChoice = Sequence[int | str]
_CHOOSE = "choose one by its number or UID with data.series in the config or --series of r2seg-infer"


@dataclass(frozen=True)
class DicomSource:
    """What tells whether a label was drawn on an image: its SeriesInstanceUID and FrameOfReferenceUID."""

    series: str
    frame_of_reference: str


def open_series(folder: Path, choice: SeriesChoice = ()) -> File:
    """The series in a folder, from the headers of its files.

    Args:
        folder: Files of any names; subfolders are not searched.
        choice: Numbers or UIDs of series, of which the folder must hold exactly one; needed where it holds several series.

    Raises:
        ImageError: There is no series or several to choose from, or its slices do not make a volume.
    """
    kinds = dicom_files(folder)
    _check_odd_files(folder, kinds)
    images = [path for path, kind in kinds.items() if kind in SLICES or kind in VOLUMES or kind == UNKNOWN]
    if not images:
        held = some(sorted({named_kind(kind) for kind in kinds.values()}))
        raise ImageError(
            f"{folder}: holds no slices of a CT, MR or PET series"
            + (f", but {counted(len(kinds), 'DICOM file')}: {held}" if kinds else "")
        )
    if other := sorted({named_kind(k) for k in kinds.values() if k not in (*SLICES, *VOLUMES, *LABELS, UNKNOWN)}):
        say_once(folder, f"its files that are not slices are left out: {some(other)}")
    found = group_into_series([(path, read_header(path, of=folder)) for path in images])
    series = _chosen(folder, found, choice)
    headers = _without_localizers(folder, series)
    frames = [frame for path, header in headers for frame in frames_of(path, header)]
    return _file_of(folder, frames, series, headers[0][1])


def open_dicom(path: Path) -> File:
    """One DICOM file: a picture (rows, columns) such as an X-ray or a photograph, or a volume in one file.

    A single slice of a series is read as a picture, without its place.

    Raises:
        ImageError: It is of another kind, or damaged.
    """
    kind = kind_of(path)
    if kind is None:
        raise ImageError(
            f"{path}: is not DICOM, or damaged: the mark DICM is missing at byte 128; if other programs read it, rewrite it with DCMTK's dcmconv"
        )
    if kind in LABELS:
        raise ImageError(f"{path}: is of the kind {named_kind(kind)}: a label, not an image")
    if kind in VOLUMES:
        header = read_header(path)
        (series,) = group_into_series([(path, header)])
        return _file_of(path, frames_of(path, header), series, header)
    if kind not in PICTURES and kind not in SLICES and kind != UNKNOWN:
        raise ImageError(
            f"{path}: is of the kind {named_kind(kind)}, which is not read as an image; expected a slice, an X-ray, a photograph or an "
            "enhanced CT, MR or PET"
        )
    return _open_picture(path)


def _file_of(path: Path, frames: Sequence[Frame], series: Series, header: Any) -> File:
    ordered, affine = stack(path, frames)
    rows, columns = ordered[0].size
    source = DicomSource(series.uid, str(header.get("FrameOfReferenceUID") or ""))
    grid = Grid(path, (columns, rows, len(ordered)), 1, affine)
    return File(grid, source, lambda _: (read_volume(path, ordered), None))


def _check_odd_files(folder: Path, kinds: dict[Path, str]) -> None:
    """Refuses files with a DICOM name that are not DICOM: a damaged slice is a missing one."""
    odd = sorted(
        path.name
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path not in kinds and path.is_file()
    )
    odd = [name for name in odd if kind_of(folder / name) is None]
    if odd:
        raise ImageError(
            f"{folder}: {counted(len(odd), 'file')} named as DICOM but not DICOM, or damaged: {some(odd)}; copy or remove them"
        )


def _chosen(folder: Path, found: Sequence[Series], choice: SeriesChoice) -> Series:
    matching = [series for series in found if not choice or series.number in choice or series.uid in choice]
    if len(matching) == 1:
        return matching[0]
    asked = f" that {some(list(choice))} chooses" if choice else ""
    if not matching:
        raise ImageError(f"{folder}: holds no series{asked}; it holds {'; '.join(map(str, found))}")
    several = [
        f"{len(values)} {what}"
        for values, what in (
            ({series.patient for series in matching}, "patients"),
            ({series.study for series in matching}, "studies"),
        )
        if len(values) > 1
    ]
    of = f" of {' and '.join(several)}" if several else ""
    listed = some([str(series) for series in matching], 12)
    remedy = "choose one by its UID" if choice else _CHOOSE
    raise ImageError(
        f"{folder}: holds {len(matching)} series{asked}{of}: {listed}; {remedy}, or give each its own folder"
    )


def _without_localizers(folder: Path, series: Series) -> list[tuple[Path, Any]]:
    scouts = [path for path, header in series.headers if "LOCALIZER" in (header.get("ImageType") or ())]
    if scouts and len(scouts) < len(series.headers):
        names = some([path.name for path in scouts])
        say_once(folder, f"{counted(len(scouts), 'localizer')} in the series left out: {names}")
        return [(path, header) for path, header in series.headers if path not in scouts]
    return list(series.headers)


def _open_picture(path: Path) -> File:
    header = read_header(path)
    frames, samples = int(header.get("NumberOfFrames") or 1), int(header.get("SamplesPerPixel") or 1)
    meaning = str(header.get("PhotometricInterpretation") or "")
    if frames != 1:
        raise ImageError(f"{path}: holds {frames} frames and is not a volume; expected one picture")
    if "ModalityLUTSequence" in header or meaning == "PALETTE COLOR":
        raise ImageError(
            f"{path}: its values are looked up in a table, which is not supported; convert it to PNG or TIFF"
        )
    lacking = [name for name in ("Rows", "Columns") if not header.get(name)]
    if lacking:
        raise ImageError(f"{path}: its header has no {', '.join(lacking)}: it is truncated, or not an image")
    slope, intercept = float(header.get("RescaleSlope") or 1), float(header.get("RescaleIntercept") or 0)

    def pixels(_: bool) -> tuple[np.ndarray, None]:
        dataset = pydicom_for(path).dcmread(path)
        if needs_simpleitk(dataset) and samples == 1:
            array = by_simpleitk(dataset, 0)
        else:
            array = decoded(path, dataset)
        if meaning == "MONOCHROME1":  # the lowest value is white
            array = (-1 - array) if array.dtype.kind == "i" else ((1 << int(dataset.BitsStored)) - 1 - array)
        if (slope, intercept) != (1.0, 0.0):
            scaled = array.astype(np.float64) * slope + intercept
            whole = slope.is_integer() and intercept.is_integer()
            fits = whole and scaled.min() >= -32768 and scaled.max() <= 32767
            array = scaled.astype(np.int16 if fits else np.float32)
        return (np.moveaxis(array, -1, 0) if samples > 1 else array[None]), None

    with errors_of(path, "read"):
        return File(Grid(path, (int(header.Rows), int(header.Columns)), samples, None), None, pixels)
