"""Section ``data``: where the cases are, how their files are named, and what their labels mean."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_serializer, field_validator

from r2seg.config.schema.base import FilePath, Section
from r2seg.config.schema.labels import IgnoredPixels, Labels, check_ignored, plain_label
from r2seg.config.schema.split import Split
from r2seg.labels import MOST_OVERLAPPING, IgnoreLabel


class Data(Section):
    """Where the cases are and what their labels mean."""

    layout: Literal["folder", "voc"] = Field("folder", description="how files are named and paired: see data/layouts/")
    root: FilePath = Field(
        description="folder with images/ and labels/ (masks/ for fields of view); relative to the config file"
    )
    labels: Labels = Field(
        description="foreground labels: name -> value(s) in the files, a colour, or a section; 0 is background; the first value is "
        "written"
    )
    overlapping: bool = Field(
        False,
        description="whether labels may overlap: a case has one label map per label, in the order of labels, or one of as many "
        "channels; at most 7 labels, with network.output sigmoid",
    )
    ignore_label: IgnoredPixels = Field(
        None, description="value, or colour such as [224, 224, 192], of pixels that are neither trained on nor scored"
    )
    group: str | None = Field(
        None, description="regular expression whose first group, found in the case id, is the patient"
    )
    split: Split = Split()
    cache: FilePath | None = Field(None, description="folder for preprocessed cases; default: inside the run")

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
    def _plain_labels(self, labels: dict[str, tuple[int, ...]]) -> dict[str, Any]:
        return {name: plain_label(label) for name, label in labels.items()}
