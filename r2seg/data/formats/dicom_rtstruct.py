"""RTSTRUCT: contours of structures, filled on an image's grid. Which structure is which label is decided in images/dicom_labels.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from r2seg.data.formats.base import RAS_FROM_LPS, Grid, ImageError, errors_of
from r2seg.data.formats.dicom import DicomSource
from r2seg.data.formats.dicom_headers import pydicom_for
from r2seg.data.formats.messages import say_once
from r2seg.errors import counted, some

# A contour belongs to a slice if it lies this part of the slice distance beside its middle: coordinates are rounded in files.
_OFF_PLANE = 0.1
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")


class Structures:
    """The structures of an RTSTRUCT file, to be filled on the grid of an image.

    Args:
        path: The file.
        grid: Of the image, a volume with an affine.
        source: Of the image, if it is DICOM: the file must have been drawn in its frame of reference.

    Attributes:
        names: ROI number -> name, of the structures that have contours.

    Raises:
        ImageError: The file is damaged, or was drawn in another frame of reference.
    """

    def __init__(self, path: Path, grid: Grid, source: DicomSource | None) -> None:
        pydicom = pydicom_for(path)
        self.path, self.grid = path, grid
        with errors_of(path, "read"):
            dataset = pydicom.dcmread(path)
            items = {
                int(item.ReferencedROINumber): item.get("ContourSequence") or []
                for item in dataset.get("ROIContourSequence") or []
            }
            rois = list(dataset.get("StructureSetROISequence") or [])
        self._contours: dict[int, Sequence[Any]] = {}
        self.names: dict[int, str] = {}
        for roi in rois:
            number = int(roi.ROINumber)
            if items.get(number):
                self.names[number], self._contours[number] = str(roi.get("ROIName") or "").strip(), items[number]
        if source is not None:
            self._check_drawn_on(dataset, rois, source)

    def _check_drawn_on(self, dataset: Any, rois: Sequence[Any], source: DicomSource) -> None:
        references = list(dataset.get("ReferencedFrameOfReferenceSequence") or [])
        frames = {str(item.get("FrameOfReferenceUID") or "") for item in references}
        frames |= {str(roi.get("ReferencedFrameOfReferenceUID") or "") for roi in rois}
        frames -= {""}
        if frames and source.frame_of_reference and source.frame_of_reference not in frames:
            raise ImageError(
                f"{self.path}: was drawn in the frame of reference {some(sorted(frames))}, and the image {self.grid.path} has "
                f"{source.frame_of_reference}: it belongs to another image"
            )
        drawn_on = {
            str(series.SeriesInstanceUID)
            for frame in references
            for study in frame.get("RTReferencedStudySequence") or []
            for series in study.get("RTReferencedSeriesSequence") or []
        }
        if drawn_on and source.series not in drawn_on:
            say_once(
                self.path,
                f"was drawn on series {some(sorted(drawn_on))}, and is used for series {source.series} of {self.grid.path}, which "
                "has the same frame of reference",
            )

    def voxels(self, number: int) -> Iterator[np.ndarray]:
        """Indices (N, 3) of the voxels of a structure, slice by slice.

        A voxel belongs if its centre lies inside an odd number of the slice's contours, or on one: a contour within another is
        a hole. What cannot be filled is told in a warning.

        Raises:
            ImageError: Contours are damaged, cut through the slices, or mostly lie between or outside the slices.
        """
        by_slice, between, outside, other = self._by_slice(number)
        name = self.names[number]
        if between or outside:
            placed = sum(map(len, by_slice.values()))
            said = [
                f"{counted(len(between), 'contour')} between slices (at slices {some(between)}, counted from 0)"
            ] * bool(between)
            said += [f"{counted(outside, 'contour')} outside the image"] * bool(outside)
            if len(between) + outside >= placed:
                raise ImageError(
                    f"{self.path}: structure {name!r} does not fit the slices of {self.grid.path}: {' and '.join(said)} of "
                    f"{placed + len(between) + outside}; was it drawn on another series?"
                )
            say_once(self.path, f"structure {name!r}: {' and '.join(said)} left out")
        if other:
            say_once(self.path, f"structure {name!r}: {counted(other, 'contour')} left out that enclose no area")
        gaps = [k for k in range(min(by_slice), max(by_slice)) if k not in by_slice] if by_slice else []
        if gaps:
            say_once(
                self.path,
                f"structure {name!r} has no contour on {counted(len(gaps), 'slice')} between its first and last one "
                f"({some(gaps)}, counted from 0), which stay empty",
            )
        for k, contours in sorted(by_slice.items()):
            inside = _filled(contours, self.grid.shape[:2])
            places = np.argwhere(inside)
            yield np.column_stack([places, np.full(len(places), k)])

    def _by_slice(self, number: int) -> tuple[dict[int, list[np.ndarray]], list[str], int, int]:
        """Contours (N, 2) in voxels by slice; places of those between slices; numbers of those outside, and of those without area."""
        assert self.grid.affine is not None
        to_index = np.linalg.inv(self.grid.affine) @ RAS_FROM_LPS
        found: dict[int, list[np.ndarray]] = {}
        seen: set[tuple[int, bytes]] = set()
        between, outside, other = [], 0, 0
        for contour in self._contours[number]:
            values = np.array([float(v) for v in contour.get("ContourData") or []])
            kind = str(contour.get("ContourGeometricType") or "")
            if len(values) % 3 or not np.isfinite(values).all():
                raise ImageError(f"{self.path}: a contour of structure {self.names[number]!r} is damaged")
            if kind not in _CLOSED or len(values) < 9:
                other += 1
                continue
            points = values.reshape(-1, 3) @ to_index[:3, :3].T + to_index[:3, 3]
            # Centres on a contour are on it, although the affine's inverse is rounded.
            points = np.round(points, 6)
            middle = float(points[:, 2].mean())
            if np.abs(points[:, 2] - middle).max() > _OFF_PLANE:
                raise ImageError(
                    f"{self.path}: a contour of structure {self.names[number]!r} does not lie in a slice of {self.grid.path}: it "
                    f"reaches from slice {points[:, 2].min():.3g} to {points[:, 2].max():.3g}"
                )
            k = round(middle)
            if abs(middle - k) > _OFF_PLANE:
                between.append(f"{middle:.3g}")
            elif not 0 <= k < self.grid.shape[2] or _misses(points[:, :2], self.grid.shape[:2]):
                outside += 1
            elif (k, points.tobytes()) in seen:
                say_once(self.path, f"structure {self.names[number]!r} holds a contour of slice {k} twice: used once")
            else:
                seen.add((k, points.tobytes()))
                found.setdefault(k, []).append(points[:, :2])
        return found, between, outside, other


def _misses(points: np.ndarray, shape: Sequence[int]) -> bool:
    return bool((points.max(axis=0) < 0).any() or (points.min(axis=0) > np.array(shape) - 1).any())


def _filled(contours: Sequence[np.ndarray], shape: Sequence[int]) -> np.ndarray:
    """Pixels (X, Y) inside an odd number of contours, given in voxels; scikit-image counts a pixel on the edge as inside."""
    from skimage.draw import polygon

    inside = np.zeros(shape, bool)
    for points in contours:
        inside[polygon(points[:, 0], points[:, 1], shape)] ^= True
    return inside
