"""Section ``data``: where the cases are, how their files are named, and what their labels mean."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_serializer, field_validator

from r2seg.config.schema.base import FilePath, Section, shown
from r2seg.config.schema.labels import Labels, LabelValue
from r2seg.config.schema.split import Split


def _one_or_many_series(value: Any) -> Any:
    values = value if isinstance(value, list | tuple) else (value,)
    if any(isinstance(one, bool) or not isinstance(one, int | str) or one == "" for one in values):
        raise ValueError(f"{shown(value)}: give the number or the UID of a series, or a list of them")
    return tuple(values)


SeriesNames = Annotated[tuple[int | str, ...], BeforeValidator(_one_or_many_series)]


class Data(Section):
    """Where the cases are and what their labels mean."""

    layout: Literal["folder", "voc"] = Field("folder", description="how files are named and paired: see data/layouts/")
    root: FilePath = Field(
        description="folder with images/ and labels/ (masks/ for fields of view); relative to the config file"
    )
    labels: Labels = Field(
        description="foreground labels: name -> value(s) in the files; 0 is background, the first value is written"
    )
    series: SeriesNames = Field(
        (),
        description="numbers or UIDs of DICOM series, which choose in folders that hold several: exactly one of them must be there",
    )
    ignore_label: LabelValue | None = Field(
        None, description="value in the files of pixels that are neither trained on nor scored"
    )
    group: str | None = Field(
        None, description="regular expression whose first group, found in the case id, is the patient"
    )
    split: Split = Split()
    cache: FilePath | None = Field(None, description="folder for preprocessed cases; default: inside the run")

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
