"""Section ``preprocessing``: the deterministic chain from a file to what the network sees."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, ValidationInfo, field_validator, model_validator

from r2seg.config.schema.base import AsTuple, Section


def _above_low(high: float, info: ValidationInfo) -> float:
    low = info.data.get("low")
    if low is not None and low >= high:
        raise ValueError(f"{high:g} is not above low, {low:g}")
    return high


Region = Annotated[
    Literal["image", "nonzero", "field_of_view"],
    Field(
        description="where it is measured: in the whole image, in the voxels that are not 0 (such as MR without its background; each "
        "channel its own), or inside the field of view; the map applies to all voxels, but what lies outside the field of view becomes "
        "the mean inside, so that its rim is not an edge",
        examples=["nonzero"],
    ),
]


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
    region: Region = "image"

    _ordered = field_validator("high")(_above_low)


class ZScore(Section):
    """Each channel of a case to mean 0 and standard deviation 1."""

    kind: Literal["zscore"] = Field("zscore", description="chooses this intensity map", examples=["zscore"])
    region: Region = "image"


class Unit(Section):
    """The whole range of the file's integer type to [0, 1]: 255 of a uint8 picture becomes 1."""

    kind: Literal["unit"] = Field(description="chooses this intensity map", examples=["unit"])


Intensity = Annotated[HuWindow | Percentile | ZScore | Unit, Field(discriminator="kind")]


class Clahe(Section):
    """Contrast-limited adaptive histogram equalization, with the meaning of OpenCV's two numbers."""

    clip: Annotated[float, Field(ge=1)] = Field(
        2.0, description="cap of a histogram's bins [multiples of their mean count]", examples=[3.0]
    )
    tiles: Annotated[tuple[PositiveInt, PositiveInt], AsTuple] = Field(
        (8, 8), description="number of tiles [along rows, along columns]", examples=[[16, 16]]
    )


class Resize(Section):
    """The size at which the network sees pictures: ``size`` or ``longest_side``. Label maps are written in the picture's own size."""

    size: Annotated[tuple[PositiveInt, PositiveInt], AsTuple] | None = Field(
        None, description="rows and columns [pixels]", examples=[[224, 224]]
    )
    keep_aspect: bool = Field(
        False,
        description="with size: the largest picture of the same proportions that fits into it; where windows are larger, the edge is "
        "repeated and not trained on, as always",
        examples=[True],
    )
    longest_side: PositiveInt | None = Field(
        None, description="the longer of rows and columns; the proportions are kept [pixels]", examples=[512]
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> Resize:
        if (self.size is None) == (self.longest_side is None):
            raise ValueError("give size: [rows, columns], or longest_side")
        if self.keep_aspect and self.size is None:
            raise ValueError("keep_aspect goes with size; longest_side always keeps the proportions")
        return self

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Rows and columns of a picture of this shape after resizing."""
        if self.size is not None and not self.keep_aspect:
            return self.size
        if self.size is not None:
            factor = min(new / old for new, old in zip(self.size, shape, strict=True))
        else:
            factor = (self.longest_side or 1) / max(shape)
        return tuple(max(1, round(side * factor)) for side in shape)


class Preprocessing(Section):
    """The deterministic chain: of pictures the contrast and the size, of volumes orientation and spacing; then intensity."""

    color: Literal["keep", "grey", "green"] = Field(
        "keep",
        description="one channel of colour pictures: grey is the luma of ITU-R BT.601 (.299 R + .587 G + .114 B), green the green channel, "
        "in which vessels show best; pictures of one channel stay as they are",
        examples=["green"],
    )
    clahe: Clahe | None = Field(
        None,
        description="equalizes the contrast of pictures locally, after color; clip and tiles as in OpenCV; of colours the brightness",
        examples=[{"clip": 2.0, "tiles": [8, 8]}],
    )
    gamma: PositiveFloat | None = Field(
        None, description="x ** (1 / gamma) of pictures, after clahe: above 1 brightens", examples=[1.2]
    )
    field_of_view: Literal["given", "find"] = Field(
        "given",
        description="of pictures without a mask: given takes the whole picture, find takes what is not its dark border; labels "
        "outside are neither trained on nor scored in training",
        examples=["find"],
    )
    resize: Resize | None = Field(
        None,
        description="size of pictures as the network sees them; default: their own; predictions are brought back to it",
        examples=[{"size": [224, 224]}, {"longest_side": 512}],
    )

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
