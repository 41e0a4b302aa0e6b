"""The whole config: all sections on one page, and contradictions between them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from r2seg.config.schema.base import AsTuple, Problem, Section
from r2seg.config.schema.data import Data
from r2seg.config.schema.inference import Infer, PostprocessingStep
from r2seg.config.schema.network import Network
from r2seg.config.schema.preprocessing import Preprocessing
from r2seg.config.schema.training import Augmentation, Sampling, Training, Window
from r2seg.errors import nearest


class Config(Section):
    """A whole experiment; see configs/ for examples."""

    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")] = Field(
        description="name of the experiment: letters, digits, _, . and -; its run is runs/NAME unless the command names a folder",
        examples=["lung_r2unet"],
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0,
        description="seed of everything random: the split, the first weights, windows and their augmentation, dropout",
        examples=[42],
    )
    data: Data
    preprocessing: Preprocessing = Preprocessing()
    window: Window
    network: Network = Network()
    sampling: Sampling = Sampling()
    augmentation: Augmentation = Augmentation()
    training: Training = Training()
    infer: Infer = Infer()
    postprocessing: Annotated[tuple[PostprocessingStep, ...], AsTuple] = Field(
        (),
        description="steps that are applied to each predicted label map, in this order",
        examples=[[{"step": "largest_components", "label": "lung", "count": 2}]],
    )

    @property
    def spatial_dims(self) -> int:
        """2 where windows are slices or pictures, 3 where they are boxes."""
        return len(self.window.size)

    @property
    def out_channels(self) -> int:
        """Channels of the logits: labels and background for softmax, labels alone for sigmoid."""
        return len(self.data.labels) + (self.network.output == "softmax")

    @model_validator(mode="after")
    def _overlapping_labels_are_independent(self) -> Config:
        if self.data.overlapping and self.network.output != "sigmoid":
            path = ("data", "overlapping")
            text = (
                f"labels that overlap need network.output: sigmoid, and it is {self.network.output}, which gives each pixel "
                "one label"
            )
            raise PydanticCustomError("at_key", "{text}", {"path": path, "text": text})
        return self

    @model_validator(mode="after")
    def _steps_name_labels(self) -> Config:
        for path, text in unknown_labels(self.data.labels, [step.label for step in self.postprocessing]):
            raise PydanticCustomError("at_key", "{text}", {"path": path, "text": text})
        return self

    @model_validator(mode="after")
    def _stopping_needs_validation(self) -> Config:
        if self.data.split.validation == 0 and self.training.early_stopping is not None:
            text = "needs validation cases, and data.split.validation is 0: remove one of the two"
            path = ("training", "early_stopping")
            raise PydanticCustomError("at_key", "{text}", {"path": path, "text": text})
        return self


def unknown_labels(labels: Iterable[str], named: Iterable[Any]) -> list[Problem]:
    """Postprocessing steps whose label is not declared."""
    return [
        (("postprocessing", str(index), "label"), f"{label!r} is none of data.labels; {nearest(label, labels)}")
        for index, label in enumerate(named)
        if isinstance(label, str) and label not in labels
    ]
