"""Section ``data.files``: how the files of a case are named, as patterns or in a table, for the layout ``files``."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator, model_validator

from r2seg.config.schema.base import FilePath, InWords, Section, as_tuple


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else as_tuple(value)


Patterns = Annotated[tuple[str, ...], BeforeValidator(_several), InWords("text, or list of texts")]


def _checked(pattern: str) -> None:
    """Refuses what can match no file below the root.

    Raises:
        ValueError: The pattern has no {id}, another placeholder, or leads out of the root.
    """
    shown = repr(pattern)
    others = [name for name in re.findall(r"\{([^{}]*)\}", pattern) if name not in ("id", "group")]
    if others:
        raise ValueError(f"{shown}: {{{others[0]}}} is unknown; the placeholders are {{id}} and {{group}}")
    if "{id}" not in pattern:
        raise ValueError(f"{shown}: has no {{id}}: put it where the case's name stands, such as '{{id}}_image.nii.gz'")
    if re.search(r"[{}]", re.sub(r"\{id\}|\{group\}", "", pattern)):
        raise ValueError(f"{shown}: a brace stands alone; the placeholders are {{id}} and {{group}}")
    if "\\" in pattern:
        raise ValueError(f"{shown}: separate folders by /")
    path = PurePosixPath(pattern)
    if path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", pattern):
        raise ValueError(f"{shown}: a pattern is relative to data.root and stays below it: name a higher folder there")
    if "**" in re.sub(r"(^|/)\*\*/", "/", pattern):
        raise ValueError(f"{shown}: ** stands for folders: write **/ in place of a folder")


class Files(Section):
    """Names of the files of a case: patterns, or a table. Paths are relative to ``data.root``.

    {id} stands for the case's name and {group} for its patient, both within one folder's or file's name; ``*`` is any part of a
    name, ``**/`` any folders, ``.*`` at the end any suffix of an image.
    """

    image: Patterns | None = Field(
        None,
        description="pattern of the image, such as '{id}_image.nii.gz' or '{group}/{id}/ct'; a list has one for each channel",
        examples=["{group}/{id}_image.nii.gz", ["{id}_t1.nii.gz", "{id}_flair.nii.gz"]],
    )
    label: str | dict[str, str] | None = Field(
        None,
        description="pattern of the label map; for overlapping labels one for each label: {lung: '{id}_lung.nii.gz', ...}",
        examples=["{group}/{id}_lungmask.nii.gz"],
    )
    mask: str | None = Field(
        None, description="pattern of the field of view, which every case then needs", examples=["{id}_fov.png"]
    )
    observers: Patterns = Field(
        (),
        description="patterns of label maps that others drew; only evaluations use them",
        examples=[["{id}_2ndHO.png"]],
    )
    table: FilePath | None = Field(
        None,
        description="CSV in place of patterns, with columns image and label and, as needed, id, mask, observers, group, split",
        examples=["cases.csv"],
    )

    @field_validator("image", "observers")
    @classmethod
    def _are_patterns(cls, patterns: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for pattern in patterns or ():
            _checked(pattern)
        return patterns

    @field_validator("label", "mask")
    @classmethod
    def _is_pattern(cls, given: str | dict[str, str] | None) -> str | dict[str, str] | None:
        for pattern in given.values() if isinstance(given, dict) else [given]:
            if pattern is not None:
                _checked(pattern)
        return given

    @model_validator(mode="after")
    def _say_one_thing(self) -> Files:
        roles = {
            **{f"image[{n}]" if len(self.image or ()) > 1 else "image": p for n, p in enumerate(self.image or ())},
            **({f"label.{n}": p for n, p in self.label.items()} if isinstance(self.label, dict) else {}),
            **({"label": self.label} if isinstance(self.label, str) else {}),
            **({"mask": self.mask} if self.mask else {}),
            **{f"observers[{n}]": p for n, p in enumerate(self.observers)},
        }
        if self.table is not None:
            if roles:
                raise ValueError(f"gives a table and the pattern {next(iter(roles))}: keep one of them")
            return self
        if not self.image or not self.label:
            raise ValueError("needs patterns for image and label, or a table")
        owner: dict[str, str] = {}
        for role, pattern in roles.items():
            if pattern in owner:
                raise ValueError(f"{owner[pattern]} and {role} are the same pattern {pattern!r}: make them differ")
            owner[pattern] = role
            if "{group}" in pattern and "{group}" not in self.image[0]:
                raise ValueError(
                    f"{role} has {{group}}, and the image's pattern {self.image[0]!r} does not: put it there too"
                )
        return self
