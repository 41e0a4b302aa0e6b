"""Sections ``infer`` and ``postprocessing``: how a trained run predicts, and what is done to its label maps."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from r2seg.config.schema.base import Precision, Section


class Infer(Section):
    """How a trained run predicts."""

    precision: Precision = Field(
        "auto",
        description="number type of inference; auto: bf16 where the hardware has it, fp16 on older CUDA devices, else float32",
        examples=["float32"],
    )


class LargestComponents(Section):
    """Keep the ``count`` largest connected components of a label."""

    step: Literal["largest_components"] = Field(
        description="chooses this step; components touch by faces, edges or corners", examples=["largest_components"]
    )
    label: str = Field(description="a name of data.labels", examples=["lung"])
    count: PositiveInt = Field(
        1,
        description="how many of the largest components stay; the others become background [components]",
        examples=[2],
    )


class FillHoles(Section):
    """Fill the holes of a label that background does not reach."""

    step: Literal["fill_holes"] = Field(
        description="chooses this step; a hole is background that the label encloses, in all axes at once",
        examples=["fill_holes"],
    )
    label: str = Field(description="a name of data.labels", examples=["lung"])


PostprocessingStep = Annotated[LargestComponents | FillHoles, Field(discriminator="step")]
