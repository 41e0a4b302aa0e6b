"""Masks in colours: colour pictures whose colours are declared for labels, also after lossy compression.

A colour is handled as one number, so that counting and looking up are those of mask_values.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from r2seg.data.formats import PICTURES, split_suffix
from r2seg.data.images.mask_values import LOSSY, Recognised
from r2seg.errors import some
from r2seg.labels import Rgb

# Largest difference of a channel from a declared colour that compression makes inside a structure; declared colours nearer to each
# other than twice this cannot be told apart in a smeared mask.
_NEAR = 31
_EXACT = 4
# A smeared picture has mostly pixels near its colours, and these gather at the colours themselves.
_MOST_BETWEEN = {True: 0.25, False: 0.1}  # lossy or not
_PEAK = 0.3
# In a lossless file few colours that hold many pixels are colours that somebody meant.
_FEWEST_COLORS, _LARGEST_SHARE = 16, 0.01
# Nearer than this to the mixtures of two other colours, a colour's pixels may be their border.
_MIXTURE = 48


def pack(colors: np.ndarray) -> np.ndarray:
    """Colours (..., 3) uint8 as numbers int32."""
    red, green, blue = np.moveaxis(colors.astype(np.int32), -1, 0)
    return (red << 16) | (green << 8) | blue


def packed(color: Rgb) -> int:
    """One colour as its number."""
    return (color[0] << 16) | (color[1] << 8) | color[2]


def unpack(number: int) -> Rgb:
    """The colour of a number."""
    return number >> 16, (number >> 8) & 255, number & 255


def as_bytes(channels: np.ndarray) -> np.ndarray | None:
    """Three channels (3, *S) as colours (*S, 3) uint8; None if they cannot be such colours."""
    if len(channels) != 3:
        return None
    if channels.dtype.kind == "f" and not np.array_equal(channels, np.rint(channels)):
        return None
    low, high = channels.min(), channels.max()
    if low < 0:
        return None
    if high > 255:
        # Colours of 16 bits that are those of 8 bits, stretched.
        if channels.dtype != np.uint16 or (channels % 257).any():
            return None
        channels = channels // 257
    return np.moveaxis(channels.astype(np.uint8), 0, -1)


def recognised_colors(path: Path, counts: Mapping[int, int], table: Mapping[int, int]) -> Recognised | None:
    """What the colours counted mean, or None if some are not declared and the picture is not a smeared one.

    Args:
        path: The file, for its suffix.
        counts: Number of a colour -> pixels.
        table: Number of a declared colour -> class index.
    """
    if counts.keys() <= table.keys():
        return Recognised(table)
    suffix = split_suffix(path)[1]
    if suffix not in PICTURES:
        return None
    numbers = np.fromiter(counts, np.int64, len(counts))
    pixels = np.fromiter(counts.values(), np.int64, len(counts))
    seen = np.stack([numbers >> 16, (numbers >> 8) & 255, numbers & 255], axis=1)
    declared = np.array([unpack(number) for number in table])
    present = _present(seen, pixels, declared)
    if not len(present) or _mixed(declared[present]):
        return None
    distances = np.abs(seen[:, None] - declared[present]).max(2)
    between = distances.min(1) > _NEAR
    lossy = suffix in LOSSY
    if pixels[between].sum() > _MOST_BETWEEN[lossy] * pixels.sum():
        return None
    undeclared = np.array([number not in table for number in counts])
    if not lossy and (
        undeclared.sum() < _FEWEST_COLORS or pixels[between].max(initial=0) > _LARGEST_SHARE * pixels.sum()
    ):
        return None
    nearest = ((seen[:, None] - declared[present]) ** 2).sum(2).argmin(1)
    classes = np.array(list(table.values()))[present]
    return Recognised({int(n): int(classes[k]) for n, k in zip(numbers, nearest, strict=True)}, cut=True)


def _present(seen: np.ndarray, pixels: np.ndarray, declared: np.ndarray) -> np.ndarray:
    """Places of the declared colours at which the pixels near them gather: others are only crossed by smeared borders."""
    distances = np.abs(seen[:, None] - declared).max(2)
    near = (pixels[:, None] * (distances <= _NEAR)).sum(0)
    exact = (pixels[:, None] * (distances <= _EXACT)).sum(0)
    return np.flatnonzero((near > 0) & (exact > _PEAK * near))


def _mixed(colors: np.ndarray) -> bool:
    """Whether two colours are too near to each other, or one lies between two others, so that borders may look like it."""
    for first in range(len(colors)):
        for second in range(first + 1, len(colors)):
            start, end = colors[first], colors[second]
            if np.abs(end - start).max() <= 2 * _NEAR:
                return True
            for other in range(len(colors)):
                if other in (first, second):
                    continue
                along = np.clip(((colors[other] - start) @ (end - start)) / ((end - start) @ (end - start)), 0, 1)
                if np.linalg.norm(colors[other] - (start + along * (end - start))) < _MIXTURE:
                    return True
    return False


def colors_in_words(counts: Mapping[int, int], most: int = 8) -> str:
    """Colours with their pixels, the most frequent first: "[128, 0, 0] (200 pixels)"."""
    by_pixels = sorted(counts.items(), key=lambda item: -item[1])
    return some([f"{list(unpack(number))} ({count} pixels)" for number, count in by_pixels], most)
