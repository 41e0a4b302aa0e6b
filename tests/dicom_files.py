"""Small DICOM series for tests, written with pydicom: slices of any place, order, scale and compression."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

AXIAL = np.array([1.0, 0, 0, 0, 1, 0])
# Rows and columns of no axis: orthonormal to float precision.
_A, _B = np.array([0.8, 0.36, 0.48]), np.array([-0.6, 0.48, 0.64])
OBLIQUE = np.concatenate([_A, _B])
FRAME_OF_REFERENCE = generate_uid(entropy_srcs=["r2seg", "frame"])


def stored_values(shape: tuple[int, int, int] = (120, 24, 20), *, signed: bool = True) -> np.ndarray:
    """Random stored values (slices, rows, columns) of 12 bits in 16."""
    rng = np.random.default_rng(0)
    low, kind = (-1024, np.int16) if signed else (0, np.uint16)
    return rng.integers(low, low + 4096, shape).astype(kind)


def slice_of(values: np.ndarray, position: Sequence[float], *, series: str, number: int, **tags: object) -> Dataset:
    """One CT slice, uncompressed."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
    dataset.Modality, dataset.PatientID, dataset.PatientName = "CT", "P1", "P1"
    dataset.PatientBirthDate = dataset.PatientSex = dataset.StudyDate = dataset.StudyTime = ""
    dataset.AccessionNumber = dataset.ReferringPhysicianName = dataset.StudyID = ""
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["study"]), series
    dataset.SeriesNumber, dataset.SeriesDescription, dataset.InstanceNumber = 3, "Thorax", number
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = FRAME_OF_REFERENCE, ""
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.ImagePositionPatient = [f"{v:.8g}" for v in position]
    dataset.ImageOrientationPatient = list(AXIAL)
    dataset.PixelSpacing, dataset.SliceThickness = [0.8, 0.7], 2.5
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = values.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    dataset.PixelData = values.tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    return dataset


def write_series(
    folder: Path,
    values: np.ndarray,
    *,
    orientation: np.ndarray = AXIAL,
    origin: Sequence[float] = (-100.25, 40.5, -300.75),
    step: Sequence[float] | None = None,
    reverse: bool = False,
    name: Callable[[int], str] = "IM{:04d}".format,
    transfer_syntax: str | None = None,
    change: Callable[[int, Dataset], None] | None = None,
    **tags: object,
) -> Path:
    """A folder with one file for each slice of ``values`` (slices, rows, columns).

    Args:
        step: From slice to slice in LPS+ millimetres; 2.5 along the normal by default.
        reverse: Whether instance numbers and file names run against the normal.
        transfer_syntax: To compress to.
        change: Called with the index along the normal and the dataset before it is written.
        tags: Set on every slice.
    """
    folder.mkdir(parents=True, exist_ok=True)
    series = generate_uid()
    step = 2.5 * np.cross(orientation[:3], orientation[3:]) if step is None else np.array(step)
    for k, one in enumerate(values):
        number = len(values) - k if reverse else k + 1
        place = np.array(origin) + k * step
        dataset = slice_of(
            one, place, series=series, number=number, **{"ImageOrientationPatient": list(orientation), **tags}
        )
        if transfer_syntax is not None:
            dataset.compress(transfer_syntax)
        if change is not None:
            change(k, dataset)
        pydicom.dcmwrite(folder / name(number), dataset, enforce_file_format=True)
    return folder


def write_enhanced(path: Path, values: np.ndarray, *, order: Sequence[int]) -> Path:
    """An enhanced CT: one file with a frame for each slice of ``values``, stored in another order, HU = stored - 1000."""
    dataset = slice_of(values[0], (0, 0, 0), series=generate_uid(), number=1)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        del dataset[name]
    del dataset.RescaleSlope, dataset.RescaleIntercept
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    dataset.NumberOfFrames, dataset.PixelData = len(values), values[list(order)].tobytes()

    def item(**tags: object) -> Dataset:
        made = Dataset()
        for name, value in tags.items():
            setattr(made, name, value)
        return made

    dataset.SharedFunctionalGroupsSequence = [
        item(
            PlaneOrientationSequence=[item(ImageOrientationPatient=list(AXIAL))],
            PixelMeasuresSequence=[item(PixelSpacing=[0.8, 0.7], SliceThickness=2.5)],
            PixelValueTransformationSequence=[item(RescaleSlope=1, RescaleIntercept=-1000)],
        )
    ]
    dataset.PerFrameFunctionalGroupsSequence = [
        item(PlanePositionSequence=[item(ImagePositionPatient=[-10, -20, 30 + 2.5 * k])]) for k in order
    ]
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def write_rtstruct(
    path: Path, rois: dict[str, list[np.ndarray]], *, kind: str = "CLOSED_PLANAR", **tags: object
) -> Path:
    """An RTSTRUCT: name of a structure -> contours (N, 3) in LPS+ millimetres, all in the series' frame of reference."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.481.3", generate_uid()
    dataset.Modality, dataset.PatientID = "RTSTRUCT", "P1"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(rois.items(), start=1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, FRAME_OF_REFERENCE
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for points in contours:
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = kind, len(points)
            contour.ContourData = [f"{v:.10g}"[:16] for v in np.ravel(points)]
            drawn.ContourSequence.append(contour)
        dataset.StructureSetROISequence.append(roi)
        dataset.ROIContourSequence.append(drawn)
    for tag, value in tags.items():
        setattr(dataset, tag, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path
