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

    kind: Literal["hu_window"] = Field(description="chooses this intensity map: a window of CT", examples=["hu_window"])
    low: float = Field(description="value that becomes 0, as all below it [HU]", examples=[-1000])
    high: float = Field(description="value that becomes 1, as all above it [HU]", examples=[400])

    _ordered = field_validator("high")(_above_low)


class Percentile(Section):
    """Clip each channel to two percentiles of the case, then map linearly to [0, 1]."""

    kind: Literal["percentile"] = Field(description="chooses this intensity map", examples=["percentile"])
    low: Annotated[float, Field(ge=0, le=100)] = Field(
        0.5, description="percentile that becomes 0, as all below it [percent]", examples=[1]
    )
    high: Annotated[float, Field(ge=0, le=100, validate_default=True)] = Field(
        99.5, description="percentile that becomes 1, as all above it [percent]", examples=[99]
    )

    _ordered = field_validator("high")(_above_low)


class ZScore(Section):
    """Each channel of a case to mean 0 and standard deviation 1."""

    kind: Literal["zscore"] = Field("zscore", description="chooses this intensity map", examples=["zscore"])


class Unit(Section):
    """The whole range of the file's integer type to [0, 1]: 255 of a uint8 picture becomes 1."""

    kind: Literal["unit"] = Field(description="chooses this intensity map", examples=["unit"])


Intensity = Annotated[HuWindow | Percentile | ZScore | Unit, Field(discriminator="kind")]


class Preprocessing(Section):
    """The deterministic chain: orientation and spacing, then intensity."""

    intensity: Intensity = Field(
        ZScore(),
        description="how intensities become the network's input, measured on each whole case: one of the kinds below",
        examples=[{"kind": "hu_window", "low": -1000, "high": 400}],
    )
    spacing_mm: Annotated[tuple[PositiveFloat, ...], AsTuple, Field(min_length=3, max_length=3)] | None = Field(
        None,
        description="voxel size of the working grid along R-L, A-P and S-I, of volumes; default: the files' own [mm]",
        examples=[[1.5, 1.5, 3]],
    )
