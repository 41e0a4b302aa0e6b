"""What the files of cases hold: sizes, geometry, intensities, label voxels, and what is wrong with them.

Facts of one case at a time, on the grid of its file; nothing is oriented or resampled. Choosing settings from them is planning, and
showing them is the data check.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from r2seg.data.cases import Case
from r2seg.data.images import CUT, IGNORE, GridError, Image, SeriesChoice, read_image, read_label_map, read_labels
from r2seg.errors import UserError
from r2seg.labels import IgnoreLabel, Labels
from r2seg.metrics import label_mask

ImageType = TypeVar("ImageType", bound=Image)

PERCENTILES = (0.5, 50.0, 99.5)
# Values looked at for percentiles: enough for a tenth of a percentile, and bounded for large volumes.
_SAMPLES = 200_000


@dataclass(frozen=True)
class CaseFacts:
    """What the files of one case hold. Where a file cannot be read, its facts are empty and ``problems`` says why.

    Attributes:
        id: The case's id.
        group: Its patient.
        shape: Spatial size (*S) in the file's axis order; () if the image cannot be read.
        num_channels: Channels of the image.
        dtype: Type of its values, such as "int16"; "float32" if the header rescales.
        spacing_mm: Voxel size along R, A and S of a volume, (X, Y) of a picture that has geometry; None without geometry.
        orientation: Direction in which each axis of a volume's file grows, such as "RAS" or "LPS"; None without geometry.
        intensity: For each channel minimum, 0.5 percentile, median, 99.5 percentile and maximum; minimum and maximum are exact,
            the others are of evenly spread values.
        foreground: Label -> voxels inside the field of view; {} if the label map cannot be read, or there is none.
        num_voxels: Voxels of the image.
        num_counted: Voxels that are trained on and scored: inside the field of view and not ignored.
        problems: Why the case cannot be used, one line each, files by name; () if it can.
        warnings: What a person should know about its files, one line each.
    """

    id: str
    group: str
    shape: tuple[int, ...] = ()
    num_channels: int = 0
    dtype: str = ""
    spacing_mm: tuple[float, ...] | None = None
    orientation: str | None = None
    intensity: tuple[tuple[float, float, float, float, float], ...] = ()
    foreground: Mapping[str, int] = dataclasses.field(default_factory=dict)
    num_voxels: int = 0
    num_counted: int = 0
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class CaseContents:
    """A case in memory, as far as its files can be read.

    Attributes:
        image: The image, or None.
        indices: Class indices (*S) uint8 on the image's grid, `IGNORE` outside the field of view; None if there are none.
        problems: Why the case cannot be used, one line each.
        warnings: What a person should know, one line each.
    """

    image: Image | None
    indices: np.ndarray | None
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def read_case(
    case: Case,
    labels: Labels,
    ignore_label: IgnoreLabel | None = None,
    *,
    overlapping: bool = False,
    series: SeriesChoice = (),
) -> CaseContents:
    """The files of a case; unlike training, which stops at the first, it lists everything that is wrong with them.

    Args:
        case: Its files.
        labels: Name -> values in the files, in class order; {} to leave the labels out.
        ignore_label: Value in the files of pixels that are neither trained on nor scored.
        overlapping: Whether labels may overlap: indices are bits then.
        series: Numbers or UIDs of DICOM series, which choose in folders that hold several.
    """
    problems: list[str] = []
    warnings: list[str] = []

    def read(kind: str, function: Callable[[], ImageType]) -> ImageType | None:
        try:
            return function()
        except GridError as error:
            problems.append(_with_remedy(error, f"export the {kind} on the grid of its image, or remove the case"))
        except UserError as error:
            problems.append(_with_remedy(error, f"replace the {kind}, or remove the case"))
        return None

    image = read("image", lambda: read_image(case.images, series=series))
    label = mask = None
    if case.labels and labels:
        label = read(
            "label", lambda: read_labels(case.labels, labels, ignore_label, overlapping=overlapping, like=image)
        )
    if (field := case.mask) is not None:
        mask = read("mask", lambda: read_label_map(field, {"field of view": 255}, like=image))
        if mask is not None and not mask.array.any():
            problems.append(f"{field}: the field of view is empty; export it again, or remove the case")
    for path in case.observers if labels else ():  # only evaluations use them: training goes on without
        try:
            read_labels((path,), labels, ignore_label, overlapping=overlapping, like=image)
        except UserError as error:
            warnings.append(_with_remedy(error, "replace or remove this second reference"))
    for kind, found in (("label", label), ("mask", mask)):
        if found is not None and found.cut:
            warnings.append(
                f"{found.path}: the {kind} is blurred by JPEG or resizing, and was cut (0/255 at {CUT}, colours to the nearest)"
            )
    indices = None if label is None else label.array[0]
    if indices is not None and mask is not None:
        indices = np.where(mask.array[0] > 0, indices, np.uint8(IGNORE))
    return CaseContents(image, indices, tuple(problems), tuple(warnings))


def _with_remedy(error: UserError, remedy: str) -> str:
    """The error's line, with a remedy if it names none itself."""
    text = str(error)
    if "; declared: " in text:
        return f"{text}; declare these values too, or correct the file"
    return text if ";" in text and not text.endswith("?") else f"{text}; {remedy}"


def facts_of(case: Case, contents: CaseContents, labels: Labels, overlapping: bool = False) -> CaseFacts:
    """The facts of a case that is in memory.

    Args:
        case: Its files.
        contents: What ``read_case`` read.
        labels: Name -> values, in class order.
        overlapping: Whether its indices are the bits of overlapping labels.
    """
    image, indices = contents.image, contents.indices
    if image is None:
        return CaseFacts(case.id, case.group, problems=contents.problems, warnings=contents.warnings)
    num_voxels = int(np.prod(image.shape))
    foreground: dict[str, int] = {}
    num_counted = num_voxels
    if indices is not None:
        tally = _tally(indices)
        every = np.arange(256)
        foreground = {
            name: int(tally[label_mask(every, index, overlapping)].sum()) for index, name in enumerate(labels, start=1)
        }
        num_counted -= int(tally[IGNORE])
    spacing_mm, orientation = _geometry(image)
    return CaseFacts(
        id=case.id,
        group=case.group,
        shape=image.shape,
        num_channels=image.num_channels,
        dtype=str(image.array.dtype),
        spacing_mm=spacing_mm,
        orientation=orientation,
        intensity=tuple(_five_numbers(channel) for channel in image.array),
        foreground=foreground,
        num_voxels=num_voxels,
        num_counted=num_counted,
        problems=contents.problems,
        warnings=contents.warnings,
    )


def _tally(indices: np.ndarray) -> np.ndarray:
    """Voxels of each class index (256), part by part: bincount alone would need eight bytes per voxel."""
    flat, tally = indices.ravel("K"), np.zeros(256, np.int64)
    for start in range(0, flat.size, 1 << 20):
        tally += np.bincount(flat[start : start + (1 << 20)], minlength=256)
    return tally


def _geometry(image: Image) -> tuple[tuple[float, ...] | None, str | None]:
    """Voxel size in R, A, S order and orientation of a volume; a picture's own voxel size and None."""
    own = image.spacing_mm
    if own is None or image.affine is None or image.spatial_dims == 2:
        return own, None
    from nibabel.orientations import aff2axcodes, io_orientation

    order = np.argsort(io_orientation(image.affine)[:, 0])
    return tuple(own[int(axis)] for axis in order), "".join(aff2axcodes(image.affine))


def evenly_spread(channel: np.ndarray) -> np.ndarray:
    """Values (N,) of a channel, evenly spread over its voxels: enough for percentiles, and few of a large volume."""
    step = max(1, channel.size // _SAMPLES) | 1  # odd: it does not run along one column of a grid
    spread: np.ndarray = channel.ravel("K")[::step]
    return spread


def _five_numbers(channel: np.ndarray) -> tuple[float, float, float, float, float]:
    low, middle, high = np.percentile(evenly_spread(channel), PERCENTILES)
    return float(channel.min()), float(low), float(middle), float(high), float(channel.max())
