"""Pictures of cases: slices with contours and errors, small enough to be embedded in a page.

The worst, median and best cases are shown large, and every case small, as far as the page's size allows. The cases' files are
read again for it: a report holds no pixels. Turning a case into slices is the work of planes.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from r2seg.data.images import Image, ImageError, SeriesChoice, check_same_grid, read_image
from r2seg.evaluation.planes import Planes, planes
from r2seg.evaluation.results import Report, Target
from r2seg.evaluation.scoring import Job, Masks
from r2seg.metrics.catalogue import MEASURES
from r2seg.pictures.contours import is_thin, outline
from r2seg.pictures.embedding import jpeg, stencil
from r2seg.pictures.views import to_grey
from r2seg.workers import in_order

# Blue is the reference's side, orange the prediction's; distinct with any colour vision, and by dashes.
REFERENCE, PREDICTION, FALSE_NEGATIVE, FALSE_POSITIVE = "#56B4E9", "#E69F00", "#3FA7FF", "#FF6A00"
AGREEMENT, FIELD_OF_VIEW = "#3DDC97", "#F0E442"
MAX_CASES = 12
MAX_BYTES = 20_000_000  # of all small pictures together


@dataclass(frozen=True)
class Size:
    """How large a case is drawn.

    Attributes:
        slices: Of a volume, at most.
        slice_pixels, picture_pixels: Longer side of a slice and of a picture.
        quality: Of the JPEG.
    """

    slices: int
    slice_pixels: int
    picture_pixels: int
    quality: int


LARGE = Size(slices=24, slice_pixels=360, picture_pixels=760, quality=72)
SMALL = Size(slices=3, slice_pixels=240, picture_pixels=420, quality=60)


@dataclass(frozen=True)
class Slice:
    """One slice of a case, as a page shows it.

    Attributes:
        number: Number of the slice along its axis, from 1; 1 for pictures.
        image: data: address of the picture below, or None where there is no image.
        reference: SVG path of the reference's outline, in pixels of the slice.
        prediction: SVG path of the prediction's outline.
        field_of_view: SVG path of the border of what is counted, or "".
        agreement: data: address of the pixels of both, or None.
        false_positive: data: address of the predicted pixels outside the reference, or None.
        false_negative: data: address of the missed pixels, or None.
        num_errors: Pixels that differ.
        num_marked: Pixels of reference or prediction.
    """

    number: int
    image: str | None
    reference: str
    prediction: str
    field_of_view: str
    agreement: str | None
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
        note: Why there is no picture below the outlines, or which intensities it shows, or "".
        thin: Whether outlines would hide the structure, so that its pixels are tinted instead.
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
    thin: bool

    @property
    def num_bytes(self) -> int:
        """Of its pictures and outlines, about."""
        return sum(
            len(text or "")
            for each in self.slices
            for text in (each.image, each.reference, each.prediction, each.field_of_view, each.agreement,
                         each.false_positive, each.false_negative)
        )  # fmt: skip


def choose(report: Report) -> list[tuple[str, str, str, str]]:
    """Rank, case, label and measure of the cases to show: the worst of every label first, at most `MAX_CASES`."""
    key = _ranked_by(report)
    if key is None:
        return []
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


def _ranked_by(report: Report) -> str | None:
    keys = [key for key in report.measures if MEASURES[key].better]
    return "dice" if "dice" in keys else keys[0] if keys else None


def show(report: Report, rank: str, case: str, label: str, measure: str) -> Shown:
    """Reads one case again and draws it.

    Args:
        report: Its files must still be in place.
        rank, case, label, measure: One choice of `choose`.
    """
    target = report.targets[case]
    masks = Job.of(report).masks(target)[label]
    image, note = _image_of(target, masks, report.options.series)
    return _draw(report, rank, case, label, measure, masks, image, note, LARGE)


def show_all(report: Report) -> tuple[dict[tuple[str, str], Shown], int]:
    """Every case of the first method, small, the worst first, until the pictures fill `MAX_BYTES`.

    Returns:
        (case, label) -> the pictures; and how many cases are left out.
    """
    key = _ranked_by(report)
    scored = [row.case for row in report.rows if row.method == report.main.name]
    if key is None or not scored:
        return {}, 0
    cases = sorted(dict.fromkeys(scored), key=lambda case: _badness(report, case, key))
    job = Job.of(report)

    def draw(case: str) -> list[Shown]:
        target = report.targets[case]
        found = job.masks(target)
        image, note = _image_of(target, next(iter(found.values())), report.options.series)
        return [_draw(report, "", case, label, key, masks, image, note, SMALL) for label, masks in found.items()]

    shown: dict[tuple[str, str], Shown] = {}
    used = 0
    for num_shown, pictures in enumerate(in_order(draw, cases, report.options.workers)):
        used += sum(one.num_bytes for one in pictures)
        if used > MAX_BYTES:
            return shown, len(cases) - num_shown
        shown |= {(one.case, one.label): one for one in pictures}
    return shown, 0


def _badness(report: Report, case: str, key: str) -> float:
    """Sorts the worst case first: by the worst of its labels' scores; without any, last."""
    sign = 1 if MEASURES[key].better == "higher" else -1
    scores = [
        sign * row.scores.get(key, math.nan)
        for row in report.rows
        if row.case == case and row.method == report.main.name
    ]
    return min((score for score in scores if not math.isnan(score)), default=math.inf)


def _draw(
    report: Report,
    rank: str,
    case: str,
    label: str,
    measure: str,
    masks: Masks,
    image: Image | None,
    note: str,
    size: Size,
) -> Shown:
    stack = planes(masks, image, size.slice_pixels, size.picture_pixels, _window_of_run(report))
    score = next(row.scores[measure] for row in report.of(report.main.name, label) if row.case == case)
    slices = [_slice(stack, index, size.quality) for index in stack.chosen(size.slices)]
    return Shown(
        rank=rank,
        case=case,
        label=label,
        measure=measure,
        score=score,
        width=stack.size[1],
        height=stack.size[0],
        axis=stack.axis_name,
        num_slices=len(stack.reference),
        slices=slices,
        start=max(range(len(slices)), key=lambda index: (slices[index].num_errors, slices[index].num_marked)),
        note=note or stack.shown_as,
        thin=is_thin(stack.reference if stack.reference.any() else stack.prediction),
    )


def _window_of_run(report: Report) -> tuple[float, float] | None:
    """Hounsfield units that the network saw, if the run or config states them."""
    facts = report.options.provenance or {}
    preprocessing = facts.get("segmented_by", facts).get("preprocessing") or {}
    intensity = preprocessing.get("intensity") or {}
    if isinstance(intensity, list):
        intensity = intensity[0]
    return (intensity["low"], intensity["high"]) if intensity.get("kind") == "hu_window" else None


def _image_of(target: Target, masks: Masks, series: SeriesChoice) -> tuple[Image | None, str]:
    """The image on the masks' grid, or None and why there is none."""
    if not target.images:
        return None, "no image given (--images)"
    try:
        image = read_image(target.images[0], series=series)
        check_same_grid(masks.like, image)
    except ImageError as error:
        return None, str(error)
    return image, ""


def _slice(planes: Planes, index: int, quality: int) -> Slice:
    reference, prediction = planes.reference[index], planes.prediction[index]
    counted = None if planes.counted is None else planes.counted[index]
    return Slice(
        number=index + 1,
        image=None if planes.image is None else jpeg(to_grey(planes.image[index], planes.window), planes.size, quality),
        reference=outline(reference, planes.size),
        prediction=outline(prediction, planes.size),
        field_of_view="" if counted is None or counted.all() else outline(counted, planes.size),
        agreement=stencil(prediction & reference, [AGREEMENT], planes.size),
        false_positive=stencil(prediction & ~reference, [FALSE_POSITIVE], planes.size),
        false_negative=stencil(reference & ~prediction, [FALSE_NEGATIVE], planes.size),
        num_errors=int((reference != prediction).sum()),
        num_marked=int((reference | prediction).sum()),
    )
