"""The intensities of a run's training cases, and whether another case's are like them.

A CT stored with an offset of 1024, or a picture in another range, gives an empty or wrong mask without any error. What is compared is
what the network sees: the case's 0.5 and 99.5 percentiles after the intensity map. A kind that is measured on each case, such as
zscore, is therefore not disturbed by another scale.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from r2seg.data.intensity import Intensity

_PERCENTILES = (0.5, 99.5)
_SAMPLES = 200_000
# By how much an end may leave the range of the training cases' ends, as a share of their whole range. A CT stored with +1024 moves
# its lower end by .73 in a window of -1000 to 400 HU.
_MARGIN = 0.25


@dataclass(frozen=True)
class IntensityRange:
    """One channel of the training cases.

    Attributes:
        file: Smallest 0.5 percentile and largest 99.5 percentile of a case, as files hold the values.
        low: Smallest and largest 0.5 percentile of a case, as the network sees it.
        high: Smallest and largest 99.5 percentile of a case, as the network sees it.
    """

    file: tuple[float, float]
    low: tuple[float, float]
    high: tuple[float, float]


def _ends(array: np.ndarray) -> np.ndarray:
    """The 0.5 and 99.5 percentiles (C, 2) of values (C, *S), over evenly spread values."""
    ends = []
    for channel in array:
        step = max(1, channel.size // _SAMPLES) | 1  # odd: it does not run along one column of a grid
        ends.append(np.percentile(channel.ravel("K")[::step].astype(np.float64), _PERCENTILES))
    return np.array(ends)


def _seen(ends: np.ndarray, intensity: Intensity) -> np.ndarray:
    return intensity(torch.from_numpy(ends)).double().numpy()


def measure_ranges(cases: Iterable[tuple[np.ndarray, Intensity]]) -> list[dict[str, Any]]:
    """The intensity range of each channel, as plain data for the manifest.

    Args:
        cases: Values (C, *S) as files hold them, and intensity map, of each training case.
    """
    pairs = [(ends, _seen(ends, intensity)) for array, intensity in cases for ends in [_ends(array)]]
    file, seen = (np.stack(each) for each in zip(*pairs, strict=True))  # (cases, C, 2)
    return [
        asdict(
            IntensityRange(
                (float(file[:, c, 0].min()), float(file[:, c, 1].max())),
                (float(seen[:, c, 0].min()), float(seen[:, c, 0].max())),
                (float(seen[:, c, 1].min()), float(seen[:, c, 1].max())),
            )
        )
        for c in range(seen.shape[1])
    ]


def ranges_of(value: Any) -> list[IntensityRange]:
    """The ranges in a manifest.

    Raises:
        ValueError: They are not what ``measure_ranges`` made.
    """
    try:
        return [IntensityRange(**{name: _pair(ends) for name, ends in channel.items()}) for channel in value]
    except (AttributeError, TypeError) as error:
        raise ValueError("intensity_range is not a list of channels with file, low and high") from error


def _pair(ends: Any) -> tuple[float, float]:
    low, high = ends
    return float(low), float(high)


def unlike_training(array: np.ndarray, intensity: Intensity, ranges: Sequence[IntensityRange]) -> str | None:
    """What is unlike in a case's intensities, as part of a sentence; None if nothing is.

    Args:
        array: Values (C, *S) as the file holds them.
        intensity: The case's intensity map.
        ranges: One per channel.
    """
    ends = _ends(array)
    for number, (file, seen, known) in enumerate(zip(ends, _seen(ends, intensity), ranges, strict=True)):
        margin = _MARGIN * (known.high[1] - known.low[0])
        inside = [
            least - margin <= value <= most + margin
            for value, (least, most) in zip(seen, (known.low, known.high), strict=True)
        ]
        if not all(inside):
            which = f"channel {number}: " if len(ranges) > 1 else ""
            return (
                f"{which}its intensities, {file[0]:.5g} to {file[1]:.5g} (0.5 and 99.5 percentile), are unlike those of the "
                f"training cases, {known.file[0]:.5g} to {known.file[1]:.5g}: are they stored with another offset or scale?"
            )
    return None
