"""DICOM-SEG: segments on the grid of an image. Which segment is which label is decided in images/dicom_labels.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from r2seg.data.formats.base import Grid, ImageError, errors_of
from r2seg.data.formats.dicom import DicomSource
from r2seg.data.formats.dicom_headers import pydicom_for
from r2seg.data.formats.dicom_stack import frame_affine
from r2seg.errors import counted

# A segment's pixels lie within this part of a voxel of the image's voxels: as images.check_same_grid.
_TOLERANCE = 0.1


class Segments:
    """The segments of a DICOM-SEG file, to be placed on the grid of an image by position.

    Args:
        path: The file.
        grid: Of the image, a volume with an affine.
        source: Of the image, if it is DICOM: the frames of reference must agree.

    Attributes:
        names: Segment number -> label.

    Raises:
        ImageError: The file is damaged, fractional, or was drawn in another frame of reference.
    """

    def __init__(self, path: Path, grid: Grid, source: DicomSource | None) -> None:
        pydicom_for(path)
        try:
            from highdicom.seg import segread
        except ImportError:
            raise ImageError(f"{path}: is a DICOM-SEG, which needs highdicom: pip install 'r2seg[dicom]'") from None
        self.path, self.grid = path, grid
        with errors_of(path, "read"):
            self._dataset = segread(path)
            self.kind = str(self._dataset.segmentation_type.value)
            numbers = list(self._dataset.segment_numbers)
            self.names = {
                int(n): str(self._dataset.get_segment_description(n).segment_label).strip() for n in numbers if n
            }
        if self.kind == "FRACTIONAL":
            raise ImageError(
                f"{path}: is a fractional segmentation, whose threshold nobody has chosen; save it as a binary one"
            )
        frame = str(self._dataset.get("FrameOfReferenceUID") or "")
        if source is not None and frame and source.frame_of_reference and frame != source.frame_of_reference:
            raise ImageError(
                f"{path}: was drawn in the frame of reference {frame}, and the image {grid.path} has {source.frame_of_reference}: "
                "it belongs to another image"
            )

    def voxels(self, number: int) -> Iterator[np.ndarray]:
        """Indices (N, 3) of the voxels of a segment, frame by frame.

        Raises:
            ImageError: A frame does not lie on the image's voxels, or marks pixels outside the image.
        """
        # One frame at a time: a hundred segments of a large volume are gigabytes.
        for index, frame in enumerate(self._dataset.PerFrameFunctionalGroupsSequence):
            is_labelmap = self.kind == "LABELMAP"
            if not is_labelmap:
                segment = self._group(frame, "SegmentIdentificationSequence").ReferencedSegmentNumber
                if int(segment) != number:
                    continue
            with errors_of(self.path, "read"):
                pixels = np.asarray(self._dataset.get_stored_frame(index + 1))
            marked = pixels == (number if is_labelmap else 1)
            if marked.any():
                yield self._placed(np.argwhere(marked), frame, marked.shape, index)

    def _group(self, frame: Any, name: str) -> Any:
        for place in (frame, self._dataset.SharedFunctionalGroupsSequence[0]):
            if place.get(name):
                return place.get(name)[0]
        raise ImageError(f"{self.path}: is damaged: a frame has no {name}")

    def _placed(self, places: np.ndarray, frame: Any, shape: tuple[int, ...], index: int) -> np.ndarray:
        """Voxels of pixels (row, column) of a frame.

        Raises:
            ImageError: They are not voxels of the image.
        """
        assert self.grid.affine is not None
        affine = frame_affine(
            self._group(frame, "PlanePositionSequence").ImagePositionPatient,
            self._group(frame, "PlaneOrientationSequence").ImageOrientationPatient,
            self._group(frame, "PixelMeasuresSequence").PixelSpacing,
        )
        to_index = np.linalg.inv(self.grid.affine) @ affine
        corners = np.array([[c, r, 0, 1] for c in (0, shape[1] - 1) for r in (0, shape[0] - 1)], float)
        exact = (corners @ to_index.T)[:, :3]
        steps = to_index[:3, :2]
        if (
            np.abs(exact - np.rint(exact)).max() > _TOLERANCE
            or np.abs(np.abs(steps).sum(axis=0) - 1).max() > _TOLERANCE
        ):
            raise ImageError(
                f"{self.path}: frame {index + 1} does not lie on the voxels of {self.grid.path}: its first pixel is at voxel "
                f"({', '.join(f'{v:.3g}' for v in exact[0])}) and a pixel's step is ({', '.join(f'{v:.3g}' for v in steps[:, 0])}) "
                "voxels; it was made for another grid"
            )
        pixel = np.column_stack([places[:, 1], places[:, 0], np.zeros(len(places)), np.ones(len(places))])
        voxels = np.rint((pixel @ to_index.T)[:, :3]).astype(np.int64)
        if (voxels < 0).any() or (voxels >= np.array(self.grid.shape)).any():
            raise ImageError(
                f"{self.path}: frame {index + 1} marks {counted(len(voxels), 'pixel')}, some of them outside the image "
                f"{self.grid.path}; it was made for another grid"
            )
        return voxels
