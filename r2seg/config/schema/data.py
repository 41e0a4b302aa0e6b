"""Section ``data``: where the cases are, how their files are named, and what their labels mean."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo, field_serializer, field_validator, model_validator
from pydantic_core import PydanticCustomError

from r2seg.config.schema.base import FilePath, Section, shown
from r2seg.config.schema.files import Files
from r2seg.config.schema.labels import IgnoredPixels, Labels, check_ignored, plain_label
from r2seg.config.schema.source import GroupPattern, LayoutName
from r2seg.config.schema.split import Split
from r2seg.errors import nearest, some
from r2seg.labels import MOST_OVERLAPPING, IgnoreLabel


def _one_or_many_series(value: Any) -> Any:
    values = value if isinstance(value, list | tuple) else (value,)
    if any(isinstance(one, bool) or not isinstance(one, int | str) or one == "" for one in values):
        raise ValueError(f"{shown(value)}: give the number or the UID of a series, or a list of them")
    return tuple(values)


SeriesNames = Annotated[tuple[int | str, ...], BeforeValidator(_one_or_many_series)]


class Data(Section):
    """Where the cases are and what their labels mean."""

    layout: LayoutName = Field(
        "folder",
        description="how files are named and paired: a data set as unpacked, folder (images/, labels/, masks/), or files, which "
        "data.files describes",
        examples=["drive"],
    )
    root: FilePath = Field(
        description="folder of the data set, for the layout folder the one with images/ and labels/; relative to the config file",
        examples=["../data/lungs"],
    )
    files: Files | None = Field(
        None,
        description="layout files: patterns of the files' names, or a table of cases",
        examples=[{"image": "{id}_image.nii.gz", "label": "{id}_lungmask.nii.gz"}],
    )
    labels: Labels = Field(
        description="foreground labels: name -> value(s) in the files, a colour, or a section; 0 is background; the first value is "
        "written",
        examples=[{"lung": 1}, {"lung": [1, 2], "heart": {"value": 3, "color": "#d62728"}}],
    )
    overlapping: bool = Field(
        False,
        description="whether labels may overlap: a case has one label map per label, in the order of labels, or one of as many "
        "channels; at most 7 labels, with network.output sigmoid",
        examples=[True],
    )
    series: SeriesNames = Field(
        (),
        description="numbers or UIDs of DICOM series, which choose in folders that hold several: exactly one of them must be there",
        examples=[[3]],
    )
    ignore_label: IgnoredPixels = Field(
        None,
        description="value, or colour such as [224, 224, 192], of pixels that are neither trained on nor scored",
        examples=[255],
    )
    group: GroupPattern | None = Field(
        None,
        description="regular expression whose first group, found in the case id, is the patient; default: the layout's, or each case is its own",
        examples=[r"^(patient_\d+)"],
    )
    split: Split = Field(
        Split(),
        description="which cases train, validate and test; `leave_one_out` is short for `{folds: leave_one_out}`",
        examples=["leave_one_out"],
    )
    cache: FilePath | None = Field(
        None, description="folder for preprocessed cases; default: inside the run", examples=["/scratch/cache"]
    )

    @field_validator("overlapping")
    @classmethod
    def _labels_are_channels(cls, overlapping: bool, info: ValidationInfo) -> bool:
        labels = info.data.get("labels", {})
        if overlapping and len(labels) > MOST_OVERLAPPING:
            raise ValueError(f"there are {len(labels)} labels: at most {MOST_OVERLAPPING} can overlap")
        values = [label[0] for label in labels.values()]
        if overlapping and values != sorted(
            values
        ):  # keys that some tool sorted would swap the channels without a word
            raise ValueError(
                f"the channels are in the order of labels, {', '.join(labels)}, but their values are {', '.join(map(str, values))}: "
                "list the labels by ascending value"
            )
        return overlapping

    @field_validator("ignore_label")
    @classmethod
    def _ignored_is_no_label(cls, ignore_label: IgnoreLabel | None, info: ValidationInfo) -> IgnoreLabel | None:
        check_ignored(ignore_label, info.data.get("labels", {}))
        return ignore_label

    @model_validator(mode="after")
    def _files_belong_to_their_layout(self) -> Data:
        if problem := self._problem_of_files():
            key, text = problem
            raise PydanticCustomError("at_key", "{text}", {"path": ("data", *key), "text": text})
        return self

    def _problem_of_files(self) -> tuple[tuple[str, ...], str] | None:
        """The key and what is wrong, where layout, files, labels and group contradict one another."""
        if self.files is None:
            if self.layout == "files":
                return ("files",), "is missing, and data.layout is files: give patterns of image and label, or a table"
            return None
        if self.layout != "files":
            return ("files",), f"is not used by the layout {self.layout}: set data.layout: files, or remove it"
        if isinstance(self.files.label, dict):
            if unknown := [name for name in self.files.label if name not in self.labels]:
                return ("files", "label"), f"{some(unknown)}: not in data.labels; {nearest(unknown[0], self.labels)}"
            if missing := [name for name in self.labels if name not in self.files.label]:
                return ("files", "label"), f"has no pattern for {some(missing)} of data.labels: add it"
        if self.group is not None and self.files.image and "{group}" in self.files.image[0]:
            return ("group",), "the patient is {group} in data.files.image already: remove one of them"
        return None

    @field_serializer("labels")
    def _plain_labels(self, labels: dict[str, tuple[int, ...]]) -> dict[str, Any]:
        return {name: plain_label(label) for name, label in labels.items()}
