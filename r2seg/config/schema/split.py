"""Section ``data.split``: which cases are trained on, which choose the checkpoint, and which are held out."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from r2seg.config.schema.base import Fraction, Names, Section


class Split(Section):
    """Which cases are for training, which choose the checkpoint and which are held out. Groups (patients) are never divided."""

    validation: Fraction | Names = Field(
        0.2,
        description="cases that choose the checkpoint: their share, or the ids of cases or groups [fraction of the groups]",
        examples=[0.1, ["case_07", "case_12"]],
    )
    test: Fraction | Names = Field(
        0.0,
        description="cases that are held out: their share, or the ids of cases or groups [fraction of the groups]",
        examples=[0.2],
    )
    train: Names | None = Field(
        None,
        description="ids of cases or groups to train on; default: all that remain",
        examples=[["case_01", "case_02"]],
    )
    by: Literal["group", "case"] = Field(
        "group",
        description="what is never divided: group keeps the cases of a patient together, case takes each case on its own",
        examples=["case"],
    )

    @field_validator("test")
    @classmethod
    def _leaves_something(cls, test: float | tuple[str, ...], info: ValidationInfo) -> float | tuple[str, ...]:
        shares = [share for share in (info.data.get("validation"), test) if isinstance(share, float)]
        if sum(shares) >= 1:
            raise ValueError(f"validation and test take {sum(shares):g} of the cases: leave some to train on")
        return test
