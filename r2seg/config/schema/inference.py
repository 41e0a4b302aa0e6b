"""Sections ``infer`` and ``postprocessing``: how a trained run predicts, and what is done to its label maps."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from r2seg.config.schema.base import Precision, Section


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
