"""Section ``data.split``: which cases are trained on, which choose the checkpoint, and which are held out.

How cases are drawn is in data/splits.py, how the file of a split is read in data/split_files.py.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from r2seg.config.schema.base import FilePath, Fraction, Names, Section, shown
from r2seg.config.schema.files import Files
from r2seg.config.schema.source import GroupPattern, LayoutName
from r2seg.errors import nearest

# What may stand in place of the section's keys and values.
SHORT_FORMS: dict[str, dict[str, Any]] = {"leave_one_out": {"folds": "leave_one_out"}}

SPLIT_FILES = (".json", ".yaml", ".yml", ".csv")


class HeldOut(Section):
    """Test cases of another data set, with the labels of ``data.labels``; all its cases are test cases."""

    root: FilePath = Field(description="its folder, relative to the config file", examples=["../data/other_site"])
    layout: LayoutName | None = Field(
        None, description="how its files are named and paired; default: as data.layout", examples=["nnunet"]
    )
    files: Files | None = Field(
        None,
        description="layout files: patterns of its files' names, or a table; default: data.files, if the layout is the same",
        examples=[{"table": "cases.csv"}],
    )
    group: GroupPattern | None = Field(
        None,
        description="regular expression whose first group, found in the id of its case, is the patient; default: that of data.group, "
        "if the layout is the same",
        examples=[r"^(patient_\d+)"],
    )
    prefix: Annotated[str, Field(pattern=r"^\w[\w.-]*$")] = Field(
        "test",
        description="put before the ids of its cases (test/01), so that two data sets may both have a case 01",
        examples=["site_b"],
    )
    same_patients: bool = Field(
        False,
        description="whether a patient of one name in both data sets is one person; by default they are two",
        examples=[True],
    )


class Split(Section):
    """Which cases are for training, which choose the checkpoint and which are held out. Groups (patients) are never divided."""

    validation: Fraction | Names | None = Field(
        0.2,
        description="cases that choose the checkpoint: their share, or the ids of cases or groups; 0 trains without validation; left "
        "out with folds or file [fraction of the groups]",
        examples=[0.1, ["case_07", "case_12"]],
    )
    test: Fraction | Names | HeldOut = Field(
        0.0,
        description="cases that are held out: their share, the ids of cases or groups, or where another data set lies "
        "[fraction of the groups]",
        examples=[0.2, {"root": "../data/other_site"}],
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
    stratify: bool = Field(
        False,
        description="whether the labels that occur are spread evenly over the parts; every label map is read first",
        examples=[True],
    )
    folds: int | Literal["leave_one_out"] | None = Field(
        None,
        description="number of folds of a cross-validation, or leave_one_out for a fold of each group; the test cases are taken away "
        "first [folds]",
        examples=[5, "leave_one_out"],
    )
    file: FilePath | None = Field(
        None,
        description="split to use, relative to the config file: splits.json of a run, nnU-Net's splits_final.json, or a CSV with the "
        "columns id (or group) and part",
        examples=["splits_final.json"],
    )
    fold: Annotated[int, Field(ge=0)] | None = Field(
        None, description="the fold that validates, counted from 0; default: 0, where there are folds", examples=[1]
    )

    @model_validator(mode="before")
    @classmethod
    def _written_out(cls, value: Any) -> Any:
        """Short forms as keys and values; with folds or a file no share of validation."""
        if isinstance(value, str):
            if value not in SHORT_FORMS:
                raise ValueError(
                    f"{shown(value)}: give keys and values, or a short form: {nearest(value, SHORT_FORMS)}"
                )
            return SHORT_FORMS[value] | {"validation": None}
        if isinstance(value, dict) and (value.get("folds") is not None or value.get("file") is not None):
            return {"validation": None, **value}
        return value

    @field_validator("test")
    @classmethod
    def _leaves_something(cls, test: Any, info: ValidationInfo) -> Any:
        shares = [share for share in (info.data.get("validation"), test) if isinstance(share, float)]
        if sum(shares) >= 1:
            raise ValueError(f"validation and test take {sum(shares):g} of the cases: leave some to train on")
        return test

    @field_validator("folds", mode="before")
    @classmethod
    def _two_folds_at_least(cls, folds: Any) -> Any:
        number = folds if isinstance(folds, int) and not isinstance(folds, bool) else 0
        if folds is not None and folds != "leave_one_out" and number < 2:
            raise ValueError(f"{shown(folds)}: give a whole number from 2 on, or leave_one_out")
        return folds

    @field_validator("folds")
    @classmethod
    def _folds_go_alone(cls, folds: int | str | None, info: ValidationInfo) -> int | str | None:
        if folds is None:
            return None
        for key, why in (("validation", "choose the validation cases"), ("train", "choose the training cases")):
            if info.data.get(key) is not None:
                raise ValueError(f"folds {why} themselves: leave data.split.{key} out")
        if folds == "leave_one_out":
            if _takes_own_cases(info.data.get("test")):
                raise ValueError(
                    "leave_one_out validates every group once, and data.split.test takes some away: leave it out, or give a number "
                    "of folds"
                )
            if info.data.get("stratify"):
                raise ValueError("leave_one_out leaves nothing to stratify: leave data.split.stratify out")
        return folds

    @field_validator("file")
    @classmethod
    def _file_goes_alone(cls, file: Any, info: ValidationInfo) -> Any:
        if file is None:
            return None
        if file.suffix.lower() not in SPLIT_FILES:
            raise ValueError(f"{file.name!r} is not one of the kinds that are read: {', '.join(SPLIT_FILES)}")
        given = {
            "validation": info.data.get("validation") not in (None, 0.0),
            "test": _takes_own_cases(info.data.get("test")),
            "train": info.data.get("train") is not None,
            "folds": info.data.get("folds") is not None,
            "stratify": info.data.get("stratify"),
        }
        if twice := [f"data.split.{key}" for key, is_given in given.items() if is_given]:
            raise ValueError(f"the file says which cases are in which part, and so does {', '.join(twice)}: remove one")
        return file

    @field_validator("fold")
    @classmethod
    def _fold_is_there(cls, fold: int | None, info: ValidationInfo) -> int | None:
        if fold is None or not {"folds", "file"} <= info.data.keys():
            return fold
        folds = info.data["folds"]
        if folds is None and info.data["file"] is None:
            raise ValueError(f"there are no folds to take fold {fold} of: give data.split.folds, such as 5")
        if isinstance(folds, int) and fold >= folds:
            raise ValueError(f"{fold}: there are {folds} folds, counted from 0: give 0 to {folds - 1}")
        return fold

    @model_validator(mode="after")
    def _draws_what_is_asked(self) -> Split:
        if self.folds is None and self.file is None and self.validation is None:
            raise ValueError("validation is null: give a share such as 0.2, a list, or 0 to train without validation")
        shares = [share for share in (self.validation, self.test) if isinstance(share, float) and share > 0]
        if self.stratify and self.folds is None and not shares:
            raise ValueError(
                "stratify goes with shares or folds, and nothing is drawn here: leave data.split.stratify out"
            )
        return self


def _takes_own_cases(test: Any) -> bool:
    """Whether ``test`` holds out cases of ``data.root``."""
    return not isinstance(test, HeldOut) and bool(test)
