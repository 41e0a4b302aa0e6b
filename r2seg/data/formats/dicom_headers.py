"""What DICOM headers say: frames with their place and scale, grouped into series. Pixels are read in dicom_pixels.py.

A file of one slice holds one frame, an enhanced CT or MR all frames of its volume: both are lists of frames from here on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from r2seg.data.formats.base import ImageError, errors_of
from r2seg.errors import counted

_TAGS = [
    "SpecificCharacterSet",
    "ImageType",
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    "SeriesDescription",
    "PatientID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "FrameOfReferenceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]


@dataclass(frozen=True, eq=False)
class Frame:
    """One slice: where it lies and how its values are scaled.

    Attributes:
        path: Its file.
        number: Which frame of the file, from 0; None of a file with one frame only.
        size: (rows, columns).
        position: Centre of its first pixel, ImagePositionPatient, in LPS+ millimetres.
        orientation: Direction cosines of a row and of a column, ImageOrientationPatient.
        spacing_mm: PixelSpacing: between rows, between columns.
        thickness_mm: Distance to the next slice or the slice's thickness as the header states it, or None.
        slope, intercept: Value = stored value * slope + intercept.
    """

    path: Path
    number: int | None
    size: tuple[int, int]
    position: np.ndarray
    orientation: np.ndarray
    spacing_mm: np.ndarray
    thickness_mm: float | None
    slope: float
    intercept: float

    @property
    def name(self) -> str:
        return self.path.name if self.number is None else f"{self.path.name} frame {self.number + 1}"


@dataclass(frozen=True)
class Series:
    """Files of one series.

    Attributes:
        patient, study, uid: PatientID, StudyInstanceUID, SeriesInstanceUID.
        number, description, modality: For people to choose by.
        headers: Path and header of each file.
    """

    patient: str
    study: str
    uid: str
    number: int | None
    description: str
    modality: str
    headers: Sequence[tuple[Path, Any]]

    def __str__(self) -> str:
        first = self.headers[0][1]
        frames = sum(int(header.get("NumberOfFrames") or 1) for _, header in self.headers)
        size = f"{first.get('Rows')}x{first.get('Columns')}"
        number = "without a number" if self.number is None else f"number {self.number}"
        return f"{number} {self.description!r} ({self.modality}, {size}, {counted(frames, 'slice')}, UID {self.uid})"


def pydicom_for(path: Path) -> Any:
    """The library.

    Raises:
        ImageError: It is not installed; the message has the command.
    """
    try:
        import pydicom
        import pydicom.config
    except ImportError:
        raise ImageError(f"{path}: is DICOM, which needs pydicom: pip install 'r2seg[dicom]'") from None
    return pydicom


def read_header(path: Path, *, of: Path | None = None) -> Any:
    """The elements of a header that are used here.

    Args:
        path: A DICOM file.
        of: The folder that warnings name: one warning for a series, not one for each slice.

    Raises:
        ImageError: It is not DICOM, or damaged.
    """
    pydicom = pydicom_for(path)
    with errors_of(path, "read", speaker=of):
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
        if not header.get("SeriesInstanceUID"):
            raise ImageError(f"{path}: its header has no SeriesInstanceUID: it is damaged or truncated")
        return header


def group_into_series(headers: Iterable[tuple[Path, Any]]) -> list[Series]:
    """The series of some files, by number; files of several patients or studies are never one series."""
    groups: dict[tuple[str, str, str], list[tuple[Path, Any]]] = {}
    for path, header in headers:
        key = (_text(header, "PatientID"), _text(header, "StudyInstanceUID"), _text(header, "SeriesInstanceUID"))
        groups.setdefault(key, []).append((path, header))
    found = []
    for key, members in groups.items():
        first = members[0][1]
        number = first.get("SeriesNumber")
        found.append(
            Series(
                *key,
                None if number in (None, "") else int(number),
                _text(first, "SeriesDescription"),
                _text(first, "Modality") or "no modality",
                members,
            )
        )
    return sorted(found, key=lambda series: (series.number is None, series.number, series.patient, series.uid))


def frames_of(path: Path, header: Any) -> list[Frame]:
    """The frames of a file.

    Raises:
        ImageError: The header lacks what places a frame, or its values are not grey.
    """
    check_grey(path, header)
    if "ModalityLUTSequence" in header:
        raise ImageError(f"{path}: its values are scaled by a table (Modality LUT), which is not supported")
    count = int(header.get("NumberOfFrames") or 1)
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    if per_frame is None:
        if count > 1:
            raise ImageError(f"{path}: holds {count} frames without a position for each; it is not a volume")
        return [_frame(path, None, header, lambda name, _: header.get(name))]
    shared = (header.get("SharedFunctionalGroupsSequence") or [{}])[0]
    if len(per_frame) != count:
        raise ImageError(f"{path}: is damaged: states {count} frames and describes {len(per_frame)}")

    def lookup(index: int) -> Callable[[str, str], Any]:
        def value(name: str, group: str) -> Any:
            for place in (per_frame[index], shared):
                if group in place and place.get(group):
                    return place.get(group)[0].get(name)
            return None

        return value

    return [_frame(path, index, header, lookup(index)) for index in range(count)]


def check_grey(path: Path, header: Any) -> None:
    """Refuses colour.

    Raises:
        ImageError: It has more than one sample per pixel, or a palette.
    """
    samples, meaning = int(header.get("SamplesPerPixel") or 1), _text(header, "PhotometricInterpretation")
    if samples != 1 or meaning == "PALETTE COLOR":
        raise ImageError(f"{path}: is in colour ({meaning}); a volume's slices must be grey, as a scanner made them")


def _frame(path: Path, number: int | None, header: Any, value: Callable[[str, str], Any]) -> Frame:
    """One frame from a function (element, functional group) -> value, which may be None."""
    needed = {
        "ImagePositionPatient": (value("ImagePositionPatient", "PlanePositionSequence"), 3),
        "ImageOrientationPatient": (value("ImageOrientationPatient", "PlaneOrientationSequence"), 6),
        "PixelSpacing": (value("PixelSpacing", "PixelMeasuresSequence"), 2),
    }
    sizes = [header.get("Rows"), header.get("Columns")]
    lacking = [name for name, (found, length) in needed.items() if found is None or len(found) != length]
    lacking += [name for name, size in zip(("Rows", "Columns"), sizes, strict=True) if not size]
    if lacking:
        raise ImageError(f"{path}: its header has no {', '.join(lacking)}, so it is not a slice with a known place")
    position, orientation, spacing = (np.array([float(v) for v in found]) for found, _ in needed.values())
    thickness = value("SpacingBetweenSlices", "PixelMeasuresSequence") or value(
        "SliceThickness", "PixelMeasuresSequence"
    )
    slope = value("RescaleSlope", "PixelValueTransformationSequence")
    intercept = value("RescaleIntercept", "PixelValueTransformationSequence")
    row, column = orientation[:3], orientation[3:]
    square = abs(np.linalg.norm(row) - 1) + abs(np.linalg.norm(column) - 1) + abs(row @ column)
    numbers = np.concatenate([position, orientation, spacing])
    if not np.isfinite(numbers).all() or spacing.min() <= 0 or square > 1e-3:
        raise ImageError(
            f"{path}: its geometry is not that of a slice: orientation {_numbers(orientation)}, spacing {_numbers(spacing)} mm, "
            f"position {_numbers(position)}"
        )
    if slope is not None and not float(slope):
        raise ImageError(f"{path}: its rescale slope is 0, so all its values would be equal")
    return Frame(
        path=path,
        number=number,
        size=(int(sizes[0]), int(sizes[1])),
        position=position,
        orientation=orientation,
        spacing_mm=spacing,
        thickness_mm=float(thickness) if thickness else None,
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
    )


def _text(header: Any, name: str) -> str:
    value = header.get(name)
    return "" if value is None else str(value).strip()


def _numbers(values: Iterable[float]) -> str:
    return "(" + ", ".join(f"{v:g}" for v in values) + ")"
