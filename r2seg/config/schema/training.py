"""Sections ``window``, ``sampling``, ``augmentation`` and ``training``: what windows are drawn, how they are changed, how a network learns."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationInfo, field_validator

from r2seg.config.schema.base import AsTuple, Fraction, Plane, Precision, Probability, Section


class Window(Section):
    """The window that training draws and inference slides over the image: one setting for both."""

    size: Annotated[tuple[PositiveInt, ...], AsTuple, Field(min_length=2, max_length=3)] = Field(
        description="two numbers for 2-D windows (of pictures, or slices of volumes), three for 3-D ones, in the order of "
        "the working grid: R-L, A-P, S-I in volumes; rows, columns in pictures [pixels or voxels]",
        examples=[[128, 128], [96, 96, 32]],
    )
    plane: Plane | None = Field(
        None, description="plane in which 2-D windows lie in volumes; default: axial", examples=["coronal"]
    )
    neighbours: NonNegativeInt = Field(
        0,
        description="2.5-D: so many slices on each side of a 2-D window in a volume are further channels; at the ends of the volume "
        "its outermost slice is repeated [slices]",
        examples=[1],
    )
    overlap: Fraction = Field(
        0.25,
        description="least overlap of neighbouring windows in inference; more is smoother at borders and slower "
        "[fraction of the window]",
        examples=[0.5],
    )
    batch_size: PositiveInt = Field(
        8,
        description="windows that the network sees at once, in a training step and in inference [windows]",
        examples=[16],
    )
    blend: Literal["gaussian", "constant"] = Field(
        "gaussian",
        description="weights of overlapping predictions in inference: gaussian counts the centre of a window more than its "
        "border, constant counts all pixels alike",
        examples=["constant"],
    )

    @property
    def plane_in_volumes(self) -> Plane:
        """The plane in which 2-D windows lie in a volume: ``plane``, axial by default."""
        return self.plane or "axial"

    @property
    def num_slices(self) -> int:
        """Slices that a 2-D window of a volume shows the network: its own and its neighbours."""
        return 2 * self.neighbours + 1

    @field_validator("neighbours")
    @classmethod
    def _neighbours_go_with_two_dims(cls, neighbours: int, info: ValidationInfo) -> int:
        size = info.data.get("size", ())
        if neighbours and len(size) == 3:
            raise ValueError(
                f"{neighbours} neighbouring slices go with a 2-D window, and window.size {list(size)} is 3-D: leave neighbours out, or "
                "give two numbers"
            )
        return neighbours

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

    windows_per_epoch: PositiveInt = Field(
        256, description="number of windows (not cases) drawn in each epoch [windows]", examples=[1024]
    )
    foreground: Probability = Field(
        0.5,
        description="share of windows that are certain to hold a labelled pixel; 0 draws all anywhere [fraction of windows]",
        examples=[0.8],
    )


class Augmentation(Section):
    """Random changes of the training windows; a strength of 0 (or an empty list) turns a change off."""

    flip: Annotated[tuple[Literal["left-right", "front-back", "up-down"], ...], AsTuple] = Field(
        (),
        description="axes to mirror, each in half of the windows; pictures have left-right and up-down, volumes also front-back",
        examples=[["left-right", "up-down"]],
    )
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = Field(
        10.0,
        description="largest rotation about each axis; half of the windows that would reach beyond their image stay straight "
        "[degrees]",
        examples=[30],
    )
    scale: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="largest relative change of size; 0.1 draws factors from 0.9 to 1.1 [fraction]", examples=[0.2]
    )
    brightness: Annotated[float, Field(ge=0)] = Field(
        0.05, description="largest shift of a channel, up or down [preprocessed intensities]", examples=[0.2]
    )
    contrast: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="largest relative stretch of a channel about its mean [fraction]", examples=[0.25]
    )
    noise: Annotated[float, Field(ge=0)] = Field(
        0.02, description="largest standard deviation of Gaussian noise [preprocessed intensities]", examples=[0.1]
    )


class Training(Section):
    """Optimizer, learning rate, loss and length of the training."""

    max_epochs: PositiveInt = Field(100, description="length of the training [epochs]", examples=[300])
    learning_rate: PositiveFloat = Field(
        1e-3,
        description="largest learning rate: reached after warmup_epochs, then falls along half a cosine to a hundredth",
        examples=[2.0e-4],
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        1e-4, description="weight decay of the optimizer; biases and normalizations have none", examples=[0.01]
    )
    warmup_epochs: Annotated[float, Field(ge=0)] = Field(
        1.0, description="time in which the learning rate rises linearly to its largest value [epochs]", examples=[5]
    )
    optimizer: Literal["adamw", "sgd"] = Field(
        "adamw", description="adamw, or sgd with Nesterov momentum 0.9", examples=["sgd"]
    )
    loss: Literal["dice_ce", "ce", "dice"] = Field(
        "dice_ce",
        description="ce is the cross-entropy (binary for sigmoid outputs), dice the soft Dice loss over the batch, dice_ce their sum",
        examples=["ce"],
    )
    gradient_clip: PositiveFloat | None = Field(
        1.0, description="largest norm of the gradient; null does not clip", examples=[12.0]
    )
    backbone_learning_rate: PositiveFloat | None = Field(
        None,
        description="learning rate of backbone weights loaded by network.pretrained or network.weights; default: learning_rate",
        examples=[1.0e-4],
    )
    auxiliary_weight: Annotated[float, Field(ge=0)] = Field(
        0.4, description="weight of the loss of the auxiliary head, if the network has one", examples=[0.2]
    )
    precision: Precision = Field(
        "auto",
        description="number type of training; auto: bf16 where the hardware has it, fp16 on older CUDA devices, else float32",
        examples=["float32"],
    )
    validate_every: PositiveInt = Field(
        1, description="time between two validations on whole cases [epochs]", examples=[5]
    )
    early_stopping: PositiveInt | None = Field(
        None,
        description="training stops after this many validations without a better Dice; null: never [validations]",
        examples=[20],
    )
