"""The schema: one page of typed, frozen settings with their defaults.

What a config may hold, and which of its values contradict one another. How YAML becomes this is in reading.py; the messages
about mistakes are in problems.py and network.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from r2seg.errors import nearest


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _one_or_many(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    if not isinstance(value, list | tuple):
        raise ValueError(f"{shown(value)}: give a whole number, or a list of them")
    return tuple(value)


def _as_path(value: Any) -> Any:
    if not isinstance(value, str) or not value.strip():
        return value
    if "\0" in value:
        raise ValueError(f"{value!r}: no path holds a zero character")
    try:
        return Path(value).expanduser()
    except RuntimeError as error:  # ~nobody/data
        raise ValueError(f"{value!r}: {error}") from None


def shown(value: Any) -> str:
    """A value as YAML writes it, cut where it is long."""
    text = (
        {None: "null", True: "true", False: "false"}[value]
        if value is None or value is True or value is False
        else repr(value)
    )
    return text if len(text) < 60 else text[:57] + "..."


Fraction = Annotated[float, Field(ge=0, lt=1)]

Probability = Annotated[float, Field(ge=0, le=1)]

FilePath = Annotated[Path, BeforeValidator(_as_path)]

Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]

# Masks may have 16 bits; what is written has 8.
LabelValue = Annotated[int, Field(ge=1, le=65535)]

LabelValues = Annotated[tuple[LabelValue, ...], BeforeValidator(_one_or_many)]

Plane = Literal["axial", "coronal", "sagittal"]

Precision = Literal["auto", "float32", "bf16", "fp16"]

Problem = tuple[tuple[str, ...], str]  # the key's path and what is wrong

# Label maps are written as uint8.
_LARGEST_WRITTEN = 255

# Class indices are uint8 with 0 for background and 255 for ignored pixels.
_MOST_LABELS = 254


class Section(BaseModel):
    """Base of every section: frozen, strict types, finite numbers, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())


class Split(Section):
    """Which cases are for training, which choose the checkpoint and which are held out. Groups (patients) are never divided."""

    validation: Fraction | Names = Field(0.2, description="share of the groups, or the ids of cases or groups")
    test: Fraction | Names = Field(0.0, description="share of the groups, or the ids of cases or groups")
    train: Names | None = Field(None, description="ids of cases or groups; default: all that remain")
    by: Literal["group", "case"] = "group"

    @field_validator("test")
    @classmethod
    def _leaves_something(cls, test: float | tuple[str, ...], info: ValidationInfo) -> float | tuple[str, ...]:
        shares = [share for share in (info.data.get("validation"), test) if isinstance(share, float)]
        if sum(shares) >= 1:
            raise ValueError(f"validation and test take {sum(shares):g} of the cases: leave some to train on")
        return test


class Data(Section):
    """Where the cases are and what their labels mean."""

    layout: Literal["folder", "voc"] = Field("folder", description="how files are named and paired: see data/layouts/")
    root: FilePath = Field(
        description="folder with images/ and labels/ (masks/ for fields of view); relative to the config file"
    )
    labels: dict[str, LabelValues] = Field(
        description="foreground labels: name -> value(s) in the files; 0 is background, the first value is written"
    )
    ignore_label: LabelValue | None = Field(
        None, description="value in the files of pixels that are neither trained on nor scored"
    )
    group: str | None = Field(
        None, description="regular expression whose first group, found in the case id, is the patient"
    )
    split: Split = Split()
    cache: FilePath | None = Field(None, description="folder for preprocessed cases; default: inside the run")

    @field_validator("labels")
    @classmethod
    def _labels_are_distinct(cls, labels: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        if not labels:
            raise ValueError("name at least one label, such as {lung: 1}")
        if len(labels) > _MOST_LABELS:
            raise ValueError(
                f"{len(labels)} labels: at most {_MOST_LABELS} fit a label map beside background and ignored"
            )
        taken: dict[int, str] = {}
        for name, values in labels.items():
            if not name.strip():
                raise ValueError("a label has an empty name")
            if not values:
                raise ValueError(f"{name} has no value")
            for value in values:
                if value in taken:
                    both = (
                        f"{name} holds {value} twice"
                        if taken[value] == name
                        else f"{taken[value]} and {name} both take the value {value}"
                    )
                    raise ValueError(both)
                taken[value] = name
        for name, values in labels.items():
            if values[0] > _LARGEST_WRITTEN:
                free = next(value for value in (255, *range(1, 255)) if value not in taken)
                raise ValueError(
                    f"{name} is {values[0]}, but predictions are written with 8 bits: put the value to write first, such as "
                    f"{name}: {[free, *values]}"
                )
        return labels

    @field_validator("ignore_label")
    @classmethod
    def _ignored_is_no_label(cls, ignore_label: int | None, info: ValidationInfo) -> int | None:
        for name, values in info.data.get("labels", {}).items():
            if ignore_label in values:
                raise ValueError(f"{ignore_label} is also a value of the label {name}")
        return ignore_label

    @field_validator("group")
    @classmethod
    def _pattern_has_a_group(cls, group: str | None) -> str | None:
        if group is None:
            return None
        try:
            groups = re.compile(group).groups
        except re.error as error:
            raise ValueError(f"{group!r} is not a regular expression: {error}") from None
        if groups < 1:
            raise ValueError(f"{group!r} has no parentheses: put them around the patient's part of the id")
        return group

    @field_serializer("labels")
    def _plain_labels(self, labels: dict[str, tuple[int, ...]]) -> dict[str, int | list[int]]:
        return {name: values[0] if len(values) == 1 else list(values) for name, values in labels.items()}


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
    spacing_mm: (
        Annotated[tuple[PositiveFloat, ...], BeforeValidator(_as_tuple), Field(min_length=3, max_length=3)] | None
    ) = Field(None, description="voxel size [R-L, A-P, S-I] of the working grid; default: the files' own")


class Window(Section):
    """The window that training draws and inference slides over the image: one setting for both."""

    size: Annotated[tuple[PositiveInt, ...], BeforeValidator(_as_tuple), Field(min_length=2, max_length=3)]
    plane: Plane | None = Field(None, description="plane of 2-D windows in volumes")
    overlap: Fraction = 0.25
    batch_size: PositiveInt = 8
    blend: Literal["gaussian", "constant"] = "gaussian"

    @property
    def plane_in_volumes(self) -> Plane:
        """The plane in which 2-D windows lie in a volume: ``plane``, axial by default."""
        return self.plane or "axial"

    @field_validator("plane")
    @classmethod
    def _plane_goes_with_two_dims(cls, plane: str | None, info: ValidationInfo) -> str | None:
        size = info.data.get("size", ())
        if plane is not None and len(size) == 3:
            raise ValueError(
                f"{plane} goes with a 2-D window, and window.size {list(size)} is 3-D: leave plane out, or give two numbers"
            )
        return plane


class Network(Section):
    """Name of a network and its options; the class's signature is the schema of the rest."""

    model_config = ConfigDict(extra="allow")

    name: str = "R2UNet"
    output: Literal["softmax", "sigmoid"] = Field(
        "softmax", description="softmax: background and labels exclude each other"
    )
    weights: FilePath | None = Field(None, description="run or file of weights to start training from")
    reset: Names = Field(
        (), description="layers that keep their random start although weights are given, such as [head]"
    )

    @property
    def options(self) -> dict[str, Any]:
        """Keyword options for the class, as written in the config."""
        return dict(self.model_extra or {})


class Sampling(Section):
    """How windows are drawn from the training cases."""

    windows_per_epoch: PositiveInt = Field(256, description="number of windows (not cases) drawn in each epoch")
    foreground: Probability = Field(0.5, description="share of windows that are certain to hold a labelled pixel")


class Augmentation(Section):
    """Random changes of the training windows; a strength of 0 (or an empty list) turns a change off."""

    flip: Annotated[tuple[Literal["left-right", "front-back", "up-down"], ...], BeforeValidator(_as_tuple)] = Field(
        (), description="axes to mirror, of those that the windows have; pictures have left-right and up-down"
    )
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = Field(
        10.0,
        description="largest rotation about each axis; half of the windows that would reach beyond their image stay straight",
    )
    scale: Annotated[float, Field(ge=0, lt=1)] = Field(0.1, description="largest relative change of size")
    brightness: Annotated[float, Field(ge=0)] = 0.05
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.1
    noise: Annotated[float, Field(ge=0)] = 0.02


class Training(Section):
    """Optimizer, learning rate, loss and length of the training."""

    max_epochs: PositiveInt = 100
    learning_rate: PositiveFloat = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    warmup_epochs: Annotated[float, Field(ge=0)] = 1.0
    optimizer: Literal["adamw", "sgd"] = "adamw"
    loss: Literal["dice_ce", "ce", "dice"] = "dice_ce"
    gradient_clip: PositiveFloat | None = Field(1.0, description="largest norm of the gradient; null does not clip")
    backbone_learning_rate: PositiveFloat | None = Field(
        None,
        description="learning rate of backbone weights loaded by network.pretrained or network.weights; default: learning_rate",
    )
    auxiliary_weight: Annotated[float, Field(ge=0)] = Field(
        0.4, description="weight of the loss of the auxiliary head, if the network has one"
    )
    precision: Precision = "auto"
    validate_every: PositiveInt = Field(1, description="epochs between validations on whole cases")
    early_stopping: PositiveInt | None = Field(
        None, description="validations without a better Dice before training stops"
    )


class Infer(Section):
    """How a trained run predicts."""

    precision: Precision = "auto"


class LargestComponents(Section):
    """Keep the ``count`` largest connected components of a label."""

    step: Literal["largest_components"]
    label: str
    count: PositiveInt = 1


class FillHoles(Section):
    """Fill the holes of a label that background does not reach."""

    step: Literal["fill_holes"]
    label: str


PostprocessingStep = Annotated[LargestComponents | FillHoles, Field(discriminator="step")]


class Config(Section):
    """A whole experiment; see configs/ for examples."""

    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    data: Data
    preprocessing: Preprocessing = Preprocessing()
    window: Window
    network: Network = Network()
    sampling: Sampling = Sampling()
    augmentation: Augmentation = Augmentation()
    training: Training = Training()
    infer: Infer = Infer()
    postprocessing: Annotated[tuple[PostprocessingStep, ...], BeforeValidator(_as_tuple)] = ()

    @property
    def spatial_dims(self) -> int:
        """2 where windows are slices or pictures, 3 where they are boxes."""
        return len(self.window.size)

    @property
    def out_channels(self) -> int:
        """Channels of the logits: labels and background for softmax, labels alone for sigmoid."""
        return len(self.data.labels) + (self.network.output == "softmax")

    @model_validator(mode="after")
    def _steps_name_labels(self) -> Config:
        for path, text in unknown_labels(self.data.labels, [step.label for step in self.postprocessing]):
            raise PydanticCustomError("at_key", "{text}", {"path": path, "text": text})
        return self


def unknown_labels(labels: Iterable[str], named: Iterable[Any]) -> list[Problem]:
    """Postprocessing steps whose label is not declared."""
    return [
        (("postprocessing", str(index), "label"), f"{label!r} is none of data.labels; {nearest(label, labels)}")
        for index, label in enumerate(named)
        if isinstance(label, str) and label not in labels
    ]
