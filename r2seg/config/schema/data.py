"""Section ``data``: where the cases are, how their files are named, and what their labels mean."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_serializer, field_validator

from r2seg.config.schema.base import FilePath, Section
from r2seg.config.schema.labels import Labels, LabelValue
from r2seg.config.schema.source import GroupPattern, LayoutName
from r2seg.config.schema.split import Split


class Data(Section):
    """Where the cases are and what their labels mean."""

    layout: LayoutName = Field("folder", description="how files are named and paired: see data/layouts/")
    root: FilePath = Field(
        description="folder with images/ and labels/ (masks/ for fields of view); relative to the config file"
    )
    labels: Labels = Field(
        description="foreground labels: name -> value(s) in the files; 0 is background, the first value is written"
    )
    ignore_label: LabelValue | None = Field(
        None, description="value in the files of pixels that are neither trained on nor scored"
    )
    group: GroupPattern | None = Field(
        None, description="regular expression whose first group, found in the case id, is the patient"
    )
    split: Split = Field(
        Split(),
        description="which cases train, validate and test; `leave_one_out` is short for `{folds: leave_one_out}`",
    )
    cache: FilePath | None = Field(None, description="folder for preprocessed cases; default: inside the run")

    @field_validator("ignore_label")
    @classmethod
    def _ignored_is_no_label(cls, ignore_label: int | None, info: ValidationInfo) -> int | None:
        for name, values in info.data.get("labels", {}).items():
            if ignore_label in values:
                raise ValueError(f"{ignore_label} is also a value of the label {name}")
        return ignore_label

    @field_serializer("labels")
    def _plain_labels(self, labels: dict[str, tuple[int, ...]]) -> dict[str, int | list[int]]:
        return {name: values[0] if len(values) == 1 else list(values) for name, values in labels.items()}
