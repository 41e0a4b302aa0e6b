"""Stored values of DICOM frames, from any transfer syntax that can be decoded.

pydicom reads what is not compressed, RLE and, with pyjpegls, JPEG-LS. JPEG 2000 and JPEG lossless are decoded by SimpleITK's GDCM, from a
file that holds nothing but the frame: it would scale the values by the header otherwise.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from r2seg.data.formats.base import ImageError, errors_of
from r2seg.data.formats.dicom_headers import Frame, pydicom_for

# JPEG extended (12 bits), lossless, lossless SV1; JPEG 2000 lossless and lossy
_BY_SIMPLEITK = {
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
}


def read_volume(path: Path, frames: Sequence[Frame]) -> np.ndarray:
    """Rescaled values of frames as (1, columns, rows, slices), the first axis fastest in memory.

    The type is int16 if all slopes and intercepts are integers and all values fit; the stored type if nothing is rescaled; else
    float32.

    Args:
        path: The series, which warnings name.
        frames: In order.

    Raises:
        ImageError: A file is damaged or cannot be decoded.
    """
    stored = list(_stored(path, frames))
    dtype = _type_of(stored, frames)
    volume = np.empty((len(frames), *frames[0].size), dtype)
    for k, frame in enumerate(frames):
        values, stored[k] = stored[k], np.empty(0)
        if (frame.slope, frame.intercept) == (1.0, 0.0):
            volume[k] = values
        else:
            volume[k] = values.astype(np.float64) * frame.slope + frame.intercept
    return volume.transpose(2, 1, 0)[None]


def _type_of(stored: Sequence[np.ndarray], frames: Sequence[Frame]) -> Any:
    scales = {(frame.slope, frame.intercept) for frame in frames}
    kinds = {values.dtype for values in stored}
    if scales == {(1.0, 0.0)} and len(kinds) == 1 and all(kind.itemsize <= 2 for kind in kinds):
        return kinds.pop().newbyteorder("=")
    if all(float(value).is_integer() for scale in scales for value in scale):
        ends = [
            end * frame.slope + frame.intercept
            for values, frame in zip(stored, frames, strict=True)
            for end in (int(values.min()), int(values.max()))
        ]
        if min(ends) >= -32768 and max(ends) <= 32767:
            return np.int16
    return np.float32


def _stored(path: Path, frames: Sequence[Frame]) -> Iterator[np.ndarray]:
    """Stored values (rows, columns) of each frame; a file of many frames is opened once."""
    pydicom = pydicom_for(path)
    opened: tuple[Path, Any, Any] | None = None
    for frame in frames:
        with errors_of(frame.path, "read", speaker=path):
            if opened is None or opened[0] != frame.path:
                opened = (frame.path, pydicom.dcmread(frame.path), None)
            _, dataset, whole = opened
            if needs_simpleitk(dataset):
                values = by_simpleitk(dataset, frame.number or 0)
            else:
                whole = decoded(frame.path, dataset) if whole is None else whole
                opened = (frame.path, dataset, whole)
                values = whole if frame.number is None or whole.ndim == 2 else whole[frame.number]
            if values.shape != frame.size:
                raise ImageError(f"{frame.path}: is damaged: holds {values.shape} pixels and states {frame.size}")
        yield values


def needs_simpleitk(dataset: Any) -> bool:
    """Whether pydicom has no decoder for it that r2seg may depend on."""
    return str(dataset.file_meta.TransferSyntaxUID) in _BY_SIMPLEITK


def decoded(path: Path, dataset: Any) -> np.ndarray:
    """pydicom's array of a dataset, its colours as RGB.

    Raises:
        ImageError: There is no decoder for its transfer syntax.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if "PixelData" not in dataset:
        raise ImageError(f"{path}: holds no pixels: it is truncated, or not an image")
    if syntax.is_compressed and syntax.is_encapsulated:
        from pydicom.pixels import get_decoder

        try:
            available = get_decoder(syntax).is_available
        except NotImplementedError:
            available = False
        if not available:
            raise ImageError(
                f"{path}: its compression, {syntax.name}, cannot be decoded; decompress it, for example with DCMTK's dcmdjpeg or gdcmconv --raw"
            )
    return np.asarray(dataset.pixel_array)


def by_simpleitk(dataset: Any, number: int) -> np.ndarray:
    """Stored values (rows, columns) of a compressed frame, decoded by SimpleITK."""
    import pydicom
    import SimpleITK
    from pydicom.encaps import encapsulate, get_frame

    frames = int(dataset.get("NumberOfFrames") or 1)
    frame = get_frame(dataset.PixelData, number, number_of_frames=frames)
    alone = pydicom.Dataset()
    alone.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    alone.SOPInstanceUID = pydicom.uid.generate_uid()
    for name in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
        setattr(alone, name, dataset[name].value)
    alone.SamplesPerPixel, alone.PhotometricInterpretation = 1, "MONOCHROME2"
    alone.PixelData = encapsulate([frame])
    alone["PixelData"].VR = "OB"
    alone.file_meta = pydicom.dataset.FileMetaDataset()
    alone.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    with tempfile.TemporaryDirectory(prefix="r2seg-") as folder:
        file = Path(folder) / "frame.dcm"
        alone.save_as(file, enforce_file_format=True)
        reader = SimpleITK.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(file))
        return SimpleITK.GetArrayFromImage(reader.Execute()).reshape(alone.Rows, alone.Columns)
