"""Masks by their values: what a single-channel mask's values mean, and values to class indices.

Masks of one label are written as 0/1, 0/255 or 0/65535, and are smeared by lossy compression; all of these are recognised here. Masks in
colours are in mask_colors.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from r2seg.data.formats import PICTURES, ImageError, split_suffix

LOSSY = (".jpg", ".jpeg")
CUT = 128  # from this grey level on, a smeared mask of 0 and 255 is foreground
_WHITE = (1, 255, 65535)  # what tools write for the foreground of a mask with 1, 8 or 16 bits


def as_integers(path: Path, array: np.ndarray) -> np.ndarray:
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


class Recognised(NamedTuple):
    """File value -> class index for all values of a file, and whether a smeared mask was cut for it."""

    classes: Mapping[int, int]
    cut: bool = False


def recognised_greys(
    path: Path, counts: Mapping[int, int], palette: np.ndarray, table: Mapping[int, int]
) -> Recognised | None:
    """Palette index -> class index by grey level, or None if a colour in use is not grey or not declared."""
    if max(counts) >= len(palette) or any(len(set(palette[index])) > 1 for index in counts):
        return None
    greys = {index: int(palette[index][0]) for index in counts}
    grey_counts: dict[int, int] = {}
    for index, count in counts.items():
        grey_counts[greys[index]] = grey_counts.get(greys[index], 0) + count
    known = recognised(path, dict(sorted(grey_counts.items())), table)
    if known is None:
        return None
    return Recognised({index: known.classes[grey] for index, grey in greys.items()}, known.cut)


def recognised(path: Path, counts: Mapping[int, int], table: Mapping[int, int]) -> Recognised | None:
    """What the values counted mean, or None if some value is not declared."""
    if counts.keys() <= table.keys():
        return Recognised(table)
    # A single label is written as 1 by one tool and as 255 by the next. For other declared values, 1 and 255 may be
    # structures that were left undeclared on purpose.
    if set(table.values()) != {0, 1} or not table.keys() <= {0, *_WHITE}:
        return None
    if any(counts.keys() <= {0, white} for white in _WHITE):
        return Recognised({0: 0, **dict.fromkeys(_WHITE, 1)})
    if _is_smeared(path, counts):
        return Recognised({value: int(value >= CUT) for value in counts}, cut=True)
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


_MANY_VALUES = 16


def values_in(indices: np.ndarray) -> list[int]:
    """The values that occur in a map of class indices, ascending.

    One pass for each value, with operations that release Python's lock: ``np.unique`` keeps it, and workers would wait for each other.

    Shape: (*S) uint8.
    """
    found = [int(indices.max())] if indices.size else []
    while found and found[0] > 0 and len(found) < _MANY_VALUES:
        below = indices < found[0]
        if not below.any():
            return found
        found.insert(0, int(np.multiply(indices, below, dtype=indices.dtype).max()))
        if found[0] == 0:
            return found
    return found if len(found) < _MANY_VALUES else [int(value) for value in np.unique(indices.ravel("K"))]


def count_values(array: np.ndarray) -> dict[int, int]:
    """Value -> number of pixels, by ascending value."""
    low, high = int(array.min()), int(array.max())
    if high - low < 1 << 16:
        tally = np.zeros(high - low + 1, np.int64)
        for block in _blocks(array):
            tally += np.bincount(block.astype(np.int64) - low, minlength=len(tally))
        return {int(i) + low: int(tally[i]) for i in np.flatnonzero(tally)}
    values, counts = np.unique(array, return_counts=True)
    return {int(value): int(count) for value, count in zip(values, counts, strict=True)}


_FEW = 32  # values are compared one by one up to here


def look_up(array: np.ndarray, table: Mapping[int, int]) -> np.ndarray:
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
    if len(table) > _FEW:
        values = np.array(sorted(table), np.int64)
        places = np.searchsorted(values, array).clip(max=len(values) - 1)
        known = values[places] == array
        return np.where(known, np.array([table[int(value)] for value in values], np.uint8)[places], np.uint8(0))
    indices = np.zeros_like(array, np.uint8)
    for value, index in table.items():
        if index:
            indices[array == value] = index
    return indices
