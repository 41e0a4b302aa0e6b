"""Intensity maps: statistics of a whole case, then a pure function of any part of it. The kinds are the table ``INTENSITIES``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from r2seg.errors import entry_of

if TYPE_CHECKING:
    from r2seg.config import Preprocessing


@dataclass(frozen=True)
class Intensity:
    """A clip and a linear map per channel: y = (clip(x, low, high) - shift) * factor.

    Every kind of the config comes down to these four numbers per channel, taken once from the whole case.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    shift: tuple[float, ...]
    factor: tuple[float, ...]

    def __call__(self, values: Tensor) -> Tensor:
        """Float32 values for the network.

        Shape: (C, ...) -> (C, ...).
        """
        view = [-1] + [1] * (values.ndim - 1)
        low, high, shift, factor = (
            torch.tensor(numbers, dtype=torch.float32, device=values.device).view(view)
            for numbers in (self.low, self.high, self.shift, self.factor)
        )
        return values.to(torch.float32).clamp(low, high).sub_(shift).mul_(factor)

    def repeated(self, times: int) -> Intensity:
        """The map of the same channels so many times, one set after the other."""
        return Intensity(self.low * times, self.high * times, self.shift * times, self.factor * times)

    def of_channels(self, part: slice) -> Intensity:
        """The map of some of the channels."""
        return Intensity(self.low[part], self.high[part], self.shift[part], self.factor[part])


def clip_each(maps: Sequence[Intensity], values: Tensor) -> Tensor:
    """The clip of each case's map, in place: what must come before interpolation.

    Shape: (B, C, ...) float32 -> the same.
    """
    low, high = _per_case([(each.low, each.high) for each in maps], values)
    return values if low.isinf().all() and high.isinf().all() else values.clamp_(low, high)


def scale_each(maps: Sequence[Intensity], values: Tensor) -> Tensor:
    """The linear part of each case's map, in place: it commutes with interpolation.

    Shape: (B, C, ...) float32 -> the same.
    """
    shift, factor = _per_case([(each.shift, each.factor) for each in maps], values)
    return values.sub_(shift).mul_(factor)


def _per_case(numbers: Sequence[tuple[Sequence[float], Sequence[float]]], values: Tensor) -> tuple[Tensor, ...]:
    """Two numbers per case and channel as tensors that broadcast over ``values`` (B, C, ...)."""
    view = values.shape[:2] + (1,) * (values.ndim - 2)
    return tuple(each.view(view) for each in torch.tensor(numbers, dtype=torch.float32).to(values.device).unbind(1))


# Values looked at for percentiles: enough for a tenth of a percentile, and bounded for large volumes.
_PERCENTILE_SAMPLES = 2_000_000

# (low, high, shift, factor) of one channel
ChannelMap = tuple[float, float, float, float]


def measure_intensity(
    array: np.ndarray, preprocessing: Preprocessing, field_of_view: np.ndarray | None = None
) -> Intensity:
    """The intensity map of a case, from its file's values.

    Args:
        array: Values (C, *S) of the whole case.
        preprocessing: Its ``intensity`` section names the kind, a key of ``INTENSITIES``, and its options.
        field_of_view: (*S), non-zero inside; needed by the region of that name.

    Raises:
        UserError: The kind or the region is unknown.
    """
    options = preprocessing.intensity
    measure = entry_of(INTENSITIES, options.kind, "preprocessing.intensity.kind")
    region = entry_of(REGIONS, getattr(options, "region", "image"), "preprocessing.intensity.region")
    parts = ((part if part.size else channel) for channel in array for part in [region(channel, field_of_view)])
    return Intensity(*zip(*(measure(part, options) for part in parts), strict=True))


def _inside(channel: np.ndarray, field_of_view: np.ndarray | None) -> np.ndarray:
    if field_of_view is None:
        raise ValueError("intensities inside the field of view need one")
    return channel[field_of_view > 0]


# preprocessing.intensity.region -> the values of a channel (*S) that are measured; all of them if none is left
REGIONS: dict[str, Callable[[np.ndarray, np.ndarray | None], np.ndarray]] = {
    "image": lambda channel, _: channel,
    "nonzero": lambda channel, _: channel[channel != 0],
    "field_of_view": _inside,
}


def _linear(low: float, high: float) -> ChannelMap:
    """Clip to [low, high], then map it to [0, 1]; to 0 if the two are one."""
    return low, high, low, 1 / (high - low) if high > low else 0.0


def _hu_window(channel: np.ndarray, options: Any) -> ChannelMap:
    """The given window."""
    return _linear(options.low, options.high)


def _percentile(channel: np.ndarray, options: Any) -> ChannelMap:
    """From one percentile to another, over evenly spread values."""
    step = max(1, channel.size // _PERCENTILE_SAMPLES)
    low, high = np.percentile(channel.ravel("K")[::step], (options.low, options.high))
    return _linear(float(low), float(high))


def _zscore(channel: np.ndarray, options: Any) -> ChannelMap:
    """Mean 0 and standard deviation 1; no clip."""
    mean, deviation = _mean_and_deviation(channel)
    infinite = float("inf")
    return -infinite, infinite, mean, 1 / deviation if deviation > 0 else 0.0


def _unit(channel: np.ndarray, options: Any) -> ChannelMap:
    """From 0 to the largest value of the integer type, or to 1 for real numbers."""
    return _linear(0.0, float(np.iinfo(channel.dtype).max) if channel.dtype.kind in "ui" else 1.0)


# Kind -> measure of one channel (*S), or of the values (N) of its region, with the options of its section in config/schema/
INTENSITIES: dict[str, Callable[[np.ndarray, Any], ChannelMap]] = {
    "hu_window": _hu_window,
    "percentile": _percentile,
    "zscore": _zscore,
    "unit": _unit,
}


def _mean_and_deviation(channel: np.ndarray) -> tuple[float, float]:
    """Mean and population standard deviation, part by part in memory order, so that no float64 copy of the volume is made."""
    flat = channel.ravel("K")
    parts = [flat[start : start + (1 << 20)] for start in range(0, flat.size, 1 << 20)]
    mean = sum(float(part.sum(dtype=np.float64)) for part in parts) / flat.size
    variance = sum(float(np.square(part.astype(np.float64) - mean).sum()) for part in parts) / flat.size
    return mean, variance**0.5
