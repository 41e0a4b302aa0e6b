"""Slices in space: sorted, checked to lie at equal distances, and their affine. No file is read here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from r2seg.data.formats.base import RAS_FROM_LPS, ImageError
from r2seg.data.formats.dicom_headers import Frame
from r2seg.data.formats.messages import say_once
from r2seg.errors import counted, some

# Slices may lie this part of a voxel beside the place that equal distances give them: positions are rounded in headers, and
# images.check_same_grid allows as much.
_TOLERANCE = 0.1
_SAME_PLACE_MM = 1e-3

Numbers = Sequence[float] | np.ndarray


def stack(path: Path, frames: Sequence[Frame]) -> tuple[list[Frame], np.ndarray]:
    """Frames in ascending order along the slice normal (row x column), and the affine of their volume.

    Voxel (i, j, k) is column i, row j, slice k. The affine's columns are PixelSpacing times the direction cosines of
    ImageOrientationPatient, the mean step from one ImagePositionPatient to the next, and the first slice's ImagePositionPatient
    (DICOM PS3.3 C.7.6.2.1.1), turned from LPS+ to RAS+. Slices of a tilted gantry are shifted against each other, so their affine
    is sheared; this is said in a warning.

    Args:
        path: Named in errors.
        frames: At least one.

    Raises:
        ImageError: Sizes, orientations or pixel spacings differ, slices are missing or doubled, or distances vary.
    """
    _check_alike(path, frames, lambda frame: np.array(frame.size[::-1]), 0, "sizes (columns x rows)")
    _check_alike(path, frames, lambda frame: frame.orientation, 1e-4, "orientations")
    _check_alike(path, frames, lambda frame: frame.spacing_mm, 1e-4, "pixel spacings (mm)")
    row, column = frames[0].orientation[:3], frames[0].orientation[3:]
    normal = np.cross(row, column)
    frames = sorted(frames, key=lambda frame: float(frame.position @ normal))
    positions = np.array([frame.position for frame in frames])
    step = _single_step(path, frames[0], normal) if len(frames) == 1 else _step(path, frames, positions, normal)
    affine = frame_affine(positions[0], frames[0].orientation, frames[0].spacing_mm)
    affine[:3, 2] = RAS_FROM_LPS[:3, :3] @ step
    return list(frames), affine


def frame_affine(position: Numbers, orientation: Numbers, spacing_mm: Numbers) -> np.ndarray:
    """Affine (4, 4) of one frame, (column, row, 0) -> RAS+ millimetres; the third column is the unit normal."""
    row, column = np.array([float(v) for v in orientation]).reshape(2, 3)
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1] = row * float(spacing_mm[1]), column * float(spacing_mm[0])
    lps[:3, 2] = np.cross(row, column)
    lps[:3, 3] = [float(v) for v in position]
    return RAS_FROM_LPS @ lps


def _check_alike(
    path: Path, frames: Sequence[Frame], of: Callable[[Frame], np.ndarray], tolerance: float, what: str
) -> None:
    groups: list[tuple[np.ndarray, list[Frame]]] = []
    for frame in frames:
        for value, members in groups:
            if np.allclose(of(frame), value, rtol=0, atol=tolerance):
                members.append(frame)
                break
        else:
            groups.append((of(frame), [frame]))
    if len(groups) > 1:
        groups.sort(key=lambda group: -len(group[1]))
        listed = "; ".join(
            f"{_numbers(value)} of {counted(len(members), 'slice')} ({some([frame.name for frame in members], 3)})"
            for value, members in groups[:4]
        )
        raise ImageError(
            f"{path}: its slices have {len(groups)} different {what}: {listed}; move those that do not belong away"
        )


def _single_step(path: Path, frame: Frame, normal: np.ndarray) -> np.ndarray:
    if frame.thickness_mm is None:
        say_once(path, "holds one slice, which does not state its thickness: 1 mm is assumed")
    return normal * (frame.thickness_mm or 1.0)


def _step(path: Path, frames: Sequence[Frame], positions: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """The step from slice to slice, in LPS+ millimetres."""
    along = positions @ normal
    gaps = np.diff(along)
    _check_doubled(path, frames, gaps)
    usual = float(np.median(gaps))
    if missing := [k for k, gap in enumerate(gaps) if gap > 1.5 * usual]:
        listed = [
            f"{max(1, round(gaps[k] / usual) - 1)} between {frames[k].name} and {frames[k + 1].name} "
            f"({along[k]:.6g} and {along[k + 1]:.6g} mm along the slice normal)"
            for k in missing
        ]
        raise ImageError(
            f"{path}: slices are missing, the usual distance being {usual:.4g} mm: {some(listed, 4)}; copy the whole series again"
        )
    step = (positions[-1] - positions[0]) / (len(frames) - 1)
    beside = positions - (positions[0] + np.arange(len(frames))[:, None] * step)
    if np.ptp(beside @ normal) / 2 > _TOLERANCE * usual:  # half: the ends are rounded, too
        raise ImageError(
            f"{path}: distances between its slices vary from {gaps.min():.4g} mm (after {frames[int(gaps.argmin())].name}) to "
            f"{gaps.max():.4g} mm (after {frames[int(gaps.argmax())].name}), so they are not one grid of voxels"
        )
    across = beside - (beside @ normal)[:, None] * normal
    shifts = np.linalg.norm(across, axis=1)
    pixel_mm = float(frames[0].spacing_mm.min())
    if shifts.max() > _TOLERANCE * pixel_mm:
        raise ImageError(
            f"{path}: its slices are shifted unevenly within their planes, {frames[int(shifts.argmax())].name} by "
            f"{shifts.max():.4g} mm, so they are not one grid of voxels"
        )
    shift = float(np.linalg.norm(step - (step @ normal) * normal))
    if shift * (len(frames) - 1) > _TOLERANCE * pixel_mm:
        angle = float(np.degrees(np.arctan2(shift, step @ normal)))
        say_once(
            path,
            f"has a gantry tilt of {angle:.3g} degrees: each slice is shifted by {shift:.4g} mm within its plane; voxels stay as "
            "they are, and the affine is sheared accordingly",
        )
    return step


def _check_doubled(path: Path, frames: Sequence[Frame], gaps: np.ndarray) -> None:
    doubled = [k for k, gap in enumerate(gaps) if gap < _SAME_PLACE_MM]
    if not doubled:
        return
    places = np.concatenate([[0], np.cumsum(gaps >= _SAME_PLACE_MM)])
    times = set(Counter(places.tolist()).values())
    if len(times) == 1 and len(set(places)) > 1:
        raise ImageError(
            f"{path}: holds {times.pop()} slices at each position, as of several times or echoes: keep the files of one volume"
        )
    listed = [
        f"{frames[k].name} and {frames[k + 1].name} at ImagePositionPatient {_numbers(frames[k].position)}"
        for k in doubled
    ]
    raise ImageError(f"{path}: slices lie at the same position: {some(listed, 4)}; remove the copies")


def _numbers(values: np.ndarray) -> str:
    return " x ".join(f"{v:g}" for v in values) if len(values) == 2 else f"({', '.join(f'{v:g}' for v in values)})"
