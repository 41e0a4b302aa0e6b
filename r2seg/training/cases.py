"""The cases of a training: preprocessed, and checked to go together and to hold the labels.

How files are found, split and preprocessed is in ``r2seg.data``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from r2seg.config import Config
from r2seg.data.cache import CachedCase, cache_cases
from r2seg.data.cases import Case
from r2seg.errors import UserError, counted, some


def cache_parts(
    parts: Mapping[str, Sequence[Case]], config: Config, folder: Path, on_case: Callable[[Case], None] | None = None
) -> dict[str, list[CachedCase]]:
    """The cases of each part, preprocessed into a folder or read from there.

    Raises:
        UserError: With every case that cannot be used; those that can are kept in the folder.
    """
    cached = cache_cases([case for members in parts.values() for case in members], config, folder, on_case)
    by_id = {case.id: case for case in cached}
    return {part: [by_id[case.id] for case in members] for part, members in parts.items()}


@dataclass(frozen=True)
class TrainingCases:
    """Preprocessed cases that a network can be trained and validated on.

    Attributes:
        parts: "train", "validation", "test" -> cases.
        in_channels: Channels of every case.
        image_dims: 2 where all cases are pictures, 3 where all are volumes.
    """

    parts: Mapping[str, Sequence[CachedCase]]
    in_channels: int
    image_dims: int

    @classmethod
    def of(cls, parts: Mapping[str, Sequence[CachedCase]], config: Config) -> TrainingCases:
        """The cases of each part, checked.

        Raises:
            UserError: They do not go together, or lack labels of the config.
        """
        first = next(case for members in parts.values() for case in members)
        cases = cls(parts, in_channels=len(first.voxels), image_dims=first.label.ndim)
        cases._check(config)
        return cases

    @property
    def ids(self) -> dict[str, list[str]]:
        """Ids of the cases of each part."""
        return {part: [case.id for case in members] for part, members in self.parts.items()}

    def _check(self, config: Config) -> None:
        everything = [case for members in self.parts.values() for case in members]
        first = everything[0]
        for case in everything:
            if case.label.ndim != self.image_dims:
                raise UserError(
                    f"case {case.id} has {case.label.ndim} axes and case {first.id} has {self.image_dims}: "
                    "train on pictures or on volumes, not on both"
                )
            if len(case.voxels) != self.in_channels:
                raise UserError(
                    f"case {case.id} has {counted(len(case.voxels), 'channel')} and case {first.id} has "
                    f"{self.in_channels}: all cases need the same number"
                )
        if config.window.plane and self.image_dims == 2:
            raise UserError(
                f"window.plane is {config.window.plane} and the cases are pictures, not volumes: leave window.plane out"
            )
        for part in ("train", "validation"):
            found = {index for case in self.parts[part] for index in case.foreground}
            lost = [name for index, name in enumerate(config.data.labels, start=1) if index not in found]
            if lost and (part == "train" or not found):
                raise UserError(
                    f"no {part} case holds the label{'s' * (len(lost) > 1)} {some(lost, 8)} "
                    f"(of {len(self.parts[part])}): check data.labels and data.split"
                )
