"""Label maps: masks in any encoding to class indices, and class indices to a label map on an image's own grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from r2seg.data.formats import PICTURES, Header, ImageError, SeriesChoice, open_file, split_suffix, write_array
from r2seg.data.formats.dicom_files import label_file_of
from r2seg.data.images.dicom_labels import Labels, read_dicom_label
from r2seg.data.images.image import Image, check_finite
from r2seg.errors import some

IGNORE = 255

LOSSY = (".jpg", ".jpeg")
CUT = 128  # from this grey level on, a smeared mask of 0 and 255 is foreground


@dataclass(frozen=True, eq=False)
class LabelMap(Image):
    """A label map as class indices, and what was done to the values of its file.

    Attributes:
        cut: Whether the file is a 0/255 mask smeared by JPEG or smooth resizing, which was cut at `CUT`.
        num_undeclared: Pixels of undeclared values that became background.
    """

    cut: bool = False
    num_undeclared: int = 0


def read_label_map(
    path: str | Path,
    labels: Labels,
    ignore_label: int | None = None,
    *,
    undeclared: str = "error",
    image: Path | None = None,
    series: SeriesChoice = (),
) -> LabelMap:
    """Label map of a file as class indices, however the mask is encoded.

    Accepted are the declared values; palette pictures, whose index is the label, or the grey level if all colours in use are
    grey and declared; several equal channels; floats with integer values. If the only label is declared as 1 or as 255, masks of
    0/1 and of 0/255 are accepted too, and such masks smeared by jpeg or by smooth resizing, cut at 128.

    Args:
        path: The file.
        labels: Name -> value or values in the file, in class order; 0 is background.
        ignore_label: Value in the file of pixels that are neither trained nor scored.
        undeclared: "error" refuses values that are not declared; "background" counts them as background. Masks of 0/1, of
            0/255 and smeared ones are recognised first, so that their foreground is never taken for undeclared values.
        image: The image that the labels were drawn on; an RTSTRUCT or DICOM-SEG is read on its grid, by the labels' names.
        series: Numbers or UIDs of DICOM series, which choose if the image is a folder that holds several.

    Shape: array (1, *S) uint8: 0 background, 1..K the labels in their order, 255 (`IGNORE`) ignored.

    Raises:
        ImageError: As `read_image`; or colours, fractions, or values that are not declared, listed with their counts. With
            undeclared="background": the undeclared pixels are the whole foreground, or the file is a JPEG.
    """
    if undeclared not in ("error", "background"):
        raise ValueError(f"undeclared is {undeclared!r}: give error or background")
    path = Path(path)
    if label_file_of(path) is not None:
        drawn, grid = read_dicom_label(path, labels, image, series=series)
        return LabelMap(drawn[None], grid.affine, path)
    table = {0: 0}
    for index, values in enumerate(labels.values(), start=1):
        table |= {int(value): index for value in ([values] if isinstance(values, int | np.integer) else values)}
    if ignore_label is not None:
        table[int(ignore_label)] = IGNORE

    file = open_file(path)
    channels, palette = file.load(indices=True)
    check_finite(path, channels)
    array = channels[0]
    if not all(np.array_equal(array, other) for other in channels[1:]):
        raise ImageError(f"{path}: its {len(channels)} channels differ; expected one label value per pixel")
    if array.dtype.kind == "f":
        array = _as_integers(path, array)

    # All values between 0 and the largest declared: nothing to count (the pass over them takes as long as inflating the file).
    declared = next(value for value in range(len(table) + 1) if value not in table) - 1
    if palette is None and array.min() >= 0 and array.max() <= declared:
        return LabelMap(_look_up(array, table)[None], file.grid.affine, path, file.source)
    counts = _count_values(array)
    known = None if palette is None else _recognised_greys(path, counts, palette, table)
    known = known or _recognised(path, counts, table)
    if known is not None:
        return LabelMap(_look_up(array, known.classes)[None], file.grid.affine, path, file.source, cut=known.cut)
    stray = {value: count for value, count in counts.items() if value not in table}
    if undeclared == "error":
        raise ImageError(
            f"{path}: holds undeclared label values {_listed(stray)}; declared: {_declared(labels, ignore_label)}"
        )
    if split_suffix(path)[1] in LOSSY:
        raise ImageError(
            f"{path}: holds undeclared label values {_listed(stray)}, which JPEG may have made of declared ones; "
            "save the label map as PNG"
        )
    if not any(table.get(value) not in (None, 0, IGNORE) for value in counts):
        raise ImageError(
            f"{path}: all its foreground is of undeclared label values: {_listed(stray)}; declared: "
            f"{_declared(labels, ignore_label)}; declare these values too, or correct the file"
        )
    indices = _look_up(array, {**table, **dict.fromkeys(stray, 0)})[None]
    return LabelMap(indices, file.grid.affine, path, file.source, num_undeclared=sum(stray.values()))


def _listed(stray: Mapping[int, int]) -> str:
    return some([f"{value} ({count} pixels)" for value, count in stray.items()], 8)


def _declared(labels: Labels, ignore_label: int | None) -> str:
    named = [f"{name} {values if isinstance(values, int) else list(values)}" for name, values in labels.items()]
    return ", ".join(["background 0", *named] + ([] if ignore_label is None else [f"ignored {ignore_label}"]))


def _as_integers(path: Path, array: np.ndarray) -> np.ndarray:
    low, high = float(array.min()), float(array.max())
    if max(abs(low), abs(high)) >= 2**31:
        raise ImageError(f"{path}: label values reach from {low:g} to {high:g}; is it a label map?")
    integers = array.astype(np.int32)
    if not np.array_equal(integers, array):
        example = array.ravel("K")[int((integers != array).ravel("K").argmax())]
        raise ImageError(
            f"{path}: label values are not integers, for example {example:g}; is it an image, or was it resampled with interpolation?"
        )
    return integers


class _Recognised(NamedTuple):
    """File value -> class index for all values of a file, and whether a smeared mask was cut for it."""

    classes: Mapping[int, int]
    cut: bool = False


def _recognised_greys(
    path: Path, counts: Mapping[int, int], palette: np.ndarray, table: Mapping[int, int]
) -> _Recognised | None:
    """Palette index -> class index by grey level, or None if a colour in use is not grey or not declared."""
    if max(counts) >= len(palette) or any(len(set(palette[index])) > 1 for index in counts):
        return None
    greys = {index: int(palette[index][0]) for index in counts}
    grey_counts: dict[int, int] = {}
    for index, count in counts.items():
        grey_counts[greys[index]] = grey_counts.get(greys[index], 0) + count
    known = _recognised(path, dict(sorted(grey_counts.items())), table)
    if known is None:
        return None
    return _Recognised({index: known.classes[grey] for index, grey in greys.items()}, known.cut)


def _recognised(path: Path, counts: Mapping[int, int], table: Mapping[int, int]) -> _Recognised | None:
    """What the values counted mean, or None if some value is not declared."""
    if counts.keys() <= table.keys():
        return _Recognised(table)
    # A single label is written as 1 by one tool and as 255 by the next. For other declared values, 1 and 255 may be
    # structures that were left undeclared on purpose.
    if table not in ({0: 0, 1: 1}, {0: 0, 255: 1}):
        return None
    if counts.keys() <= {0, 1} or counts.keys() <= {0, 255}:
        return _Recognised({0: 0, 1: 1, 255: 1})
    if _is_smeared(path, counts):
        return _Recognised({value: int(value >= CUT) for value in counts}, cut=True)
    return None


def _is_smeared(path: Path, counts: Mapping[int, int]) -> bool:
    """Whether values are those of a 0/255 mask after lossy compression or smooth resizing: two peaks, little between.

    A map of many labels, one of them declared, must not pass: it has no peak at 255 that falls off downwards.
    """
    suffix = split_suffix(path)[1]
    if suffix not in PICTURES or min(counts) < 0 or max(counts) > 255:
        return False

    def within(low: int, high: int) -> list[int]:
        return [count for value, count in counts.items() if low <= value <= high]

    black, dark, between, light, white = (within(*r) for r in ((0, 3), (4, 31), (32, 223), (224, 251), (252, 255)))
    peaks = sum(black) > 0.3 * sum(dark) and sum(white) > 0.3 * sum(light)
    total = sum(counts.values())
    if suffix in LOSSY:
        return peaks and sum(between) < 0.25 * total
    # In a lossless file few values are labels that somebody meant.
    return (
        peaks
        and min(len(within(1, 31)), len(within(224, 254))) >= 3
        and sum(between) < 0.1 * total
        and max(between, default=0) < 0.01 * total
    )


def _blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """The values in memory order, a million at a time: temporary arrays stay small next to a large volume."""
    flat = array.ravel("K")
    for start in range(0, flat.size, 1 << 20):
        yield flat[start : start + (1 << 20)]


def _count_values(array: np.ndarray) -> dict[int, int]:
    """Value -> number of pixels, by ascending value."""
    low, high = int(array.min()), int(array.max())
    if high - low < 1 << 16:
        tally = np.zeros(high - low + 1, np.int64)
        for block in _blocks(array):
            tally += np.bincount(block.astype(np.int64) - low, minlength=len(tally))
        return {int(i) + low: int(tally[i]) for i in np.flatnonzero(tally)}
    values, counts = np.unique(array, return_counts=True)
    return {int(value): int(count) for value, count in zip(values, counts, strict=True)}


def _look_up(array: np.ndarray, table: Mapping[int, int]) -> np.ndarray:
    """uint8 array of `table[value]` in the memory order of the input, which is returned itself if nothing changes."""
    if array.dtype != np.uint8 and min(table) >= 0 and max(table) < 256:
        array = array.astype(np.uint8)  # all values are in the table
    if array.dtype == np.uint8:
        entries = np.arange(256, dtype=np.uint8)
        for value, index in table.items():
            if 0 <= value < 256:
                entries[value] = index
        if np.array_equal(entries, np.arange(256)):
            return array
        indices = np.empty_like(array)
        flat, done = indices.ravel("K"), 0
        if not np.shares_memory(flat, indices):
            return entries[array]
        for block in _blocks(array):
            flat[done : done + block.size] = entries[block]
            done += block.size
        return indices
    indices = np.zeros_like(array, np.uint8)
    for value, index in table.items():
        if index:
            indices[array == value] = index
    return indices


def write_label_map(path: str | Path, indices: np.ndarray, like: Image, labels: Labels) -> None:
    """Writes class indices as a uint8 label map on the grid of the image they were made from.

    NIfTI keeps every field of the input's header except data type, scaling and display range; NRRD and MetaImage keep origin, spacing
    and direction; pictures become palette images whose index is the label value. The file appears whole or not at all.

    Args:
        path: File to write; its folder is made if needed.
        indices: Class indices, 0 background and 1..K the labels in their order.
        like: The image, as read: its grid and header are kept.
        labels: Name -> value in the file; the first of several is written.

    Shape: indices (*S) uint8, with S that of `like`.

    Raises:
        ImageError: A label's value is above 255, the format cannot hold the map, or the file cannot be written.
    """
    path = Path(path)
    values = [0]
    for name, value in labels.items():
        values.append(int(value if isinstance(value, int | np.integer) else value[0]))
        if not 0 <= values[-1] <= 255:
            raise ImageError(
                f"{path}: label {name!r} has value {values[-1]}; label maps are written as uint8, 0 to 255"
            )
    indices = np.asarray(indices)
    if indices.shape != like.shape:
        raise ValueError(f"indices {indices.shape} are not on the grid {like.shape} of {like.path}")
    if indices.size and not 0 <= int(indices.min()) <= int(indices.max()) < len(values):
        raise ValueError(
            f"class indices from {indices.min()} to {indices.max()}, but there are {len(values) - 1} labels"
        )
    array = _look_up(indices.astype(np.uint8, copy=False), dict(enumerate(values)))
    write_array(path, array, Header(like.source, like.affine))
