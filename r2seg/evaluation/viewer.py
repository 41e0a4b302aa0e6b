"""Pictures of the worst, median and best cases: slices with contours and errors, small enough to be embedded in a page.

The cases' files are read again for it: a report holds no pixels.
"""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from r2seg.data.images import Image, ImageError, check_same_grid, read_image
from r2seg.evaluation.results import Report, Target
from r2seg.evaluation.scoring import Job, Masks
from r2seg.metrics.catalogue import MEASURES

# Blue is the reference's side, orange the prediction's; distinct with any colour vision, and by dashes.
REFERENCE, PREDICTION, FALSE_NEGATIVE, FALSE_POSITIVE = "#56B4E9", "#E69F00", "#0072B2", "#D55E00"
MAX_CASES = 12
MAX_SLICES = 24
SLICE_PIXELS = 360
PICTURE_PIXELS = 760


@dataclass(frozen=True)
class Slice:
    """One slice of a case, as a page shows it.

    Attributes:
        number: Number of the slice along its axis, from 1; 1 for pictures.
        image: data: address of the picture below, or None where there is no image.
        reference: SVG path of the reference's outline, in pixels of the slice.
        prediction: SVG path of the prediction's outline.
        false_positive: data: address of the predicted pixels outside the reference, or None.
        false_negative: data: address of the missed pixels, or None.
        num_errors: Pixels that differ.
        num_marked: Pixels of reference or prediction.
    """

    number: int
    image: str | None
    reference: str
    prediction: str
    false_positive: str | None
    false_negative: str | None
    num_errors: int
    num_marked: int


@dataclass(frozen=True)
class Shown:
    """One case of the viewer.

    Attributes:
        rank: "worst", "median" or "best".
        case, label: What is shown.
        measure, score: What it is ranked by.
        width, height: Of all slices, in pixels.
        axis: Orientation of the slices, such as "axial"; "" for pictures.
        num_slices: Slices of the whole volume.
        slices: Evenly chosen ones that hold reference or prediction.
        start: Index of the slice with the most errors; without errors, of that with the most marked pixels.
        note: Why there is no picture below the outlines, or "".
    """

    rank: str
    case: str
    label: str
    measure: str
    score: float
    width: int
    height: int
    axis: str
    num_slices: int
    slices: list[Slice]
    start: int
    note: str


def choose(report: Report) -> list[tuple[str, str, str, str]]:
    """Rank, case, label and measure of the cases to show: the worst of every label first, at most `MAX_CASES`."""
    keys = [key for key in report.measures if MEASURES[key].better]
    if not keys:
        return []
    key = "dice" if "dice" in keys else keys[0]
    sign = 1 if MEASURES[key].better == "higher" else -1
    chosen: list[tuple[str, str, str, str]] = []
    for rank in ("worst", "median", "best"):
        for label in report.labels:
            rows = [row for row in report.of(report.main.name, label) if not math.isnan(row.scores.get(key, math.nan))]
            rows.sort(key=lambda row: sign * row.scores[key])
            if not rows or (rank == "median" and len(rows) < 3) or (rank == "best" and len(rows) < 2):
                continue
            row = rows[{"worst": 0, "median": len(rows) // 2, "best": -1}[rank]]
            chosen.append((rank, row.case, label, key))
    return chosen[:MAX_CASES]


def show(report: Report, rank: str, case: str, label: str, measure: str) -> Shown:
    """Reads one case again and draws it.

    Args:
        report: Its files must still be in place.
        rank, case, label, measure: One choice of `choose`.
    """
    target = report.targets[case]
    masks = Job.of(report).masks(target, label)
    image, note = _image_of(target, masks)
    planes = _planes(masks, image)
    score = next(row.scores[measure] for row in report.of(report.main.name, label) if row.case == case)
    slices = [_slice(planes, index) for index in planes.chosen()]
    return Shown(
        rank=rank,
        case=case,
        label=label,
        measure=measure,
        score=score,
        width=planes.size[1],
        height=planes.size[0],
        axis=planes.axis_name,
        num_slices=len(planes.reference),
        slices=slices,
        start=max(range(len(slices)), key=lambda index: (slices[index].num_errors, slices[index].num_marked)),
        note=note,
    )


def _image_of(target: Target, masks: Masks) -> tuple[Image | None, str]:
    """The image on the masks' grid, or None and why there is none."""
    if not target.images:
        return None, "no image given (--images)"
    try:
        image = read_image(target.images[0])
        check_same_grid(masks.like, image)
    except ImageError as error:
        return None, str(error)
    return image, ""


@dataclass(frozen=True)
class _Planes:
    """A case as a stack of slices, oriented for viewing: rows downwards, the patient's right on the left.

    Shape: reference, prediction, counted (N, rows, columns) bool; image (N, rows, columns, 1 or 3) or None.
    """

    reference: np.ndarray
    prediction: np.ndarray
    image: np.ndarray | None
    window: tuple[float, float]
    size: tuple[int, int]
    axis_name: str

    def chosen(self) -> list[int]:
        """Slices that hold a mask, thinned evenly; the one with the most errors is always among them."""
        busy = np.flatnonzero((self.reference | self.prediction).any(axis=(1, 2)))
        if not len(busy):
            return [len(self.reference) // 2]
        first, last = max(busy[0] - 1, 0), min(busy[-1] + 1, len(self.reference) - 1)
        picked = set(np.linspace(first, last, min(MAX_SLICES, last - first + 1)).round().astype(int).tolist())
        errors = (self.reference != self.prediction).sum(axis=(1, 2))
        return sorted(picked | ({int(errors.argmax())} if errors.any() else set()))


def _planes(masks: Masks, image: Image | None) -> _Planes:
    arrays = [masks.reference, masks.prediction]
    channels = None if image is None else np.moveaxis(np.asarray(image.array), 0, -1)
    if masks.like.spatial_dims == 2:
        picture = image is not None and image.affine is None
        stacks = [array[None] if masks.like.affine is None else array.T[None, ::-1] for array in arrays]
        below = None
        if channels is not None:
            colours = channels if channels.shape[-1] == 3 else channels[..., :1]
            below = colours[None] if picture else colours.transpose(1, 0, 2)[None, ::-1]
        spacing, axis_name, longest = (1.0, 1.0), "", PICTURE_PIXELS
        if masks.like.affine is not None:
            rows_mm, columns_mm = (masks.like.spacing_mm or (1.0, 1.0))[:2]
            spacing = columns_mm, rows_mm
    else:
        import nibabel

        affine = np.eye(4) if masks.like.affine is None else masks.like.affine
        axes = nibabel.io_orientation(affine)
        spacing3 = np.array(masks.like.spacing_mm or (1.0, 1.0, 1.0))[np.argsort(axes[:, 0])]
        # Volumes of thick slices are shown along their thick axis; others in axial slices.
        order = np.argsort(spacing3)
        across = int(order[2]) if spacing3[order[2]] > 1.5 * spacing3[order[1]] else 2
        axis_name = ("sagittal", "coronal", "axial")[across]
        rest = [axis for axis in (0, 1, 2) if axis != across]
        view = (across, rest[1], rest[0])  # slice, rows, columns on axes R, A, S

        def turned(array: np.ndarray) -> np.ndarray:
            array = nibabel.apply_orientation(array, axes).transpose(view)
            array = array[:, ::-1]  # up is anterior or superior
            return array[:, :, ::-1] if 0 in rest else array  # the patient's right on the left, as radiologists look

        stacks = [turned(array) for array in arrays]
        below = None if channels is None else turned(channels[..., 0])[..., None]
        spacing, longest = (spacing3[rest[1]], spacing3[rest[0]]), SLICE_PIXELS
    rows, columns = stacks[0].shape[1:]
    # Never finer than the file: a browser enlarges just as well.
    scale = min(longest / max(rows * spacing[0], columns * spacing[1]), 1 / min(spacing))
    size = max(1, round(rows * spacing[0] * scale)), max(1, round(columns * spacing[1] * scale))
    return _Planes(stacks[0], stacks[1], below, _window(below), size, axis_name)


def _window(image: np.ndarray | None) -> tuple[float, float]:
    """Intensities shown as black and white."""
    if image is None or image.dtype == np.uint8:
        return 0.0, 255.0
    step = max(1, image.size // 2_000_000)
    low, high = np.percentile(image.reshape(-1)[::step], [1, 99])
    return float(low), float(high) if high > low else float(low) + 1


def _slice(planes: _Planes, index: int) -> Slice:
    reference, prediction = planes.reference[index], planes.prediction[index]
    return Slice(
        number=index + 1,
        image=None if planes.image is None else _jpeg(planes.image[index], planes.window, planes.size),
        reference=_outline(reference, planes.size),
        prediction=_outline(prediction, planes.size),
        false_positive=_stencil(prediction & ~reference, FALSE_POSITIVE, planes.size),
        false_negative=_stencil(reference & ~prediction, FALSE_NEGATIVE, planes.size),
        num_errors=int((reference != prediction).sum()),
        num_marked=int((reference | prediction).sum()),
    )


def _jpeg(pixels: np.ndarray, window: tuple[float, float], size: tuple[int, int]) -> str:
    from PIL import Image as Picture

    low, high = window
    grey = np.clip((pixels.astype(np.float32) - low) * (255 / (high - low)), 0, 255).astype(np.uint8)
    picture = Picture.fromarray(grey[..., 0] if grey.shape[-1] == 1 else grey)
    picture = picture.resize(size[::-1], Picture.Resampling.BILINEAR, reducing_gap=2)
    return _address(picture, "jpeg", quality=72)


def _stencil(mask: np.ndarray, colour: str, size: tuple[int, int]) -> str | None:
    """Coloured pixels on a transparent background."""
    from PIL import Image as Picture

    if not mask.any():
        return None
    picture = Picture.fromarray(mask.astype(np.uint8)).resize(size[::-1], Picture.Resampling.NEAREST)
    picture.putpalette([0, 0, 0, *bytes.fromhex(colour[1:])])
    return _address(picture, "png", transparency=0, bits=1)


def _address(picture: Any, kind: str, **options: Any) -> str:
    stream = io.BytesIO()
    picture.save(stream, kind, optimize=True, **options)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def _outline(mask: np.ndarray, size: tuple[int, int]) -> str:
    """SVG path along the mask's border, in pixels of the shown slice."""
    from skimage.measure import approximate_polygon, find_contours

    if not mask.any():
        return ""
    scale = np.array(size) / mask.shape
    parts = []
    for contour in find_contours(np.pad(mask, 1).astype(np.float32), 0.5):
        points = (approximate_polygon(contour, 0.4) - 0.5) * scale
        steps = " ".join(f"{x:.4g},{y:.4g}" for y, x in points[:-1])
        parts.append(f"M{steps}Z")
    return "".join(parts)
