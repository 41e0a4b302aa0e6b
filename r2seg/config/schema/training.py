"""Sections ``window``, ``sampling``, ``augmentation`` and ``training``: what windows are drawn, how they are changed, how a network learns."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, ValidationInfo, field_validator

from r2seg.config.schema.base import AsTuple, Fraction, Plane, Precision, Probability, Section


class Window(Section):
    """The window that training draws and inference slides over the image: one setting for both."""

    size: Annotated[tuple[PositiveInt, ...], AsTuple, Field(min_length=2, max_length=3)]
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


class Sampling(Section):
    """How windows are drawn from the training cases."""

    windows_per_epoch: PositiveInt = Field(256, description="number of windows (not cases) drawn in each epoch")
    foreground: Probability = Field(0.5, description="share of windows that are certain to hold a labelled pixel")


class Augmentation(Section):
    """Random changes of the training windows; a strength of 0 (or an empty list) turns a change off."""

    flip: Annotated[tuple[Literal["left-right", "front-back", "up-down"], ...], AsTuple] = Field(
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
