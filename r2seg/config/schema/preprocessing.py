"""Section ``preprocessing``: the deterministic chain from a file to what the network sees."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, ValidationInfo, field_validator

from r2seg.config.schema.base import AsTuple, Section


def _above_low(high: float, info: ValidationInfo) -> float:
    low = info.data.get("low")
    if low is not None and low >= high:
        raise ValueError(f"{high:g} is not above low, {low:g}")
    return high


class HuWindow(Section):
    """Clip to [low, high] Hounsfield units, then map linearly to [0, 1]."""

    kind: Literal["hu_window"]
    low: float
    high: float

    _ordered = field_validator("high")(_above_low)


class Percentile(Section):
    """Clip each channel to two percentiles of the case, then map linearly to [0, 1]."""

    kind: Literal["percentile"]
    low: Annotated[float, Field(ge=0, le=100)] = 0.5
    high: Annotated[float, Field(ge=0, le=100, validate_default=True)] = 99.5

    _ordered = field_validator("high")(_above_low)


class ZScore(Section):
    """Each channel of a case to mean 0 and standard deviation 1."""

    kind: Literal["zscore"] = "zscore"


class Unit(Section):
    """The whole range of the file's integer type to [0, 1]: 255 of a uint8 picture becomes 1."""

    kind: Literal["unit"]


Intensity = Annotated[HuWindow | Percentile | ZScore | Unit, Field(discriminator="kind")]


class Preprocessing(Section):
    """The deterministic chain: orientation and spacing, then intensity."""

    intensity: Intensity = ZScore()
    spacing_mm: Annotated[tuple[PositiveFloat, ...], AsTuple, Field(min_length=3, max_length=3)] | None = Field(
        None, description="voxel size [R-L, A-P, S-I] of the working grid; default: the files' own"
    )
