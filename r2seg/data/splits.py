"""Splits of cases into training, validation and test, by group, so that no patient and no copy of an image is in two parts."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from r2seg.data.cases import Case
from r2seg.data.duplicates import identical_images
from r2seg.errors import UserError, counted, some

if TYPE_CHECKING:
    from r2seg.config import Split

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class DrawnSplit:
    """A split, and what was found out about its cases.

    Attributes:
        parts: "train", "validation", "test" -> cases.
        num_groups: Part -> number of groups (patients) in it; copies of an image count as one group.
        identical: Ids of cases whose images are identical, one tuple for each set of copies.
    """

    parts: dict[str, list[Case]]
    num_groups: dict[str, int]
    identical: Sequence[tuple[str, ...]]

    def __str__(self) -> str:
        texts = []
        for part, members in self.parts.items():
            groups = f" in {counted(self.num_groups[part], 'group')}" if members else ""
            texts.append(f"{counted(len(members), f'{part} case')}{groups}")
        return ", ".join(texts)

    @property
    def warnings(self) -> list[str]:
        """What a person should know about the cases, one line each."""
        return [
            f"the images of the cases {' and '.join(ids)} are identical; they are kept in one part of the split"
            for ids in self.identical
        ]


def draw_split(cases: Sequence[Case], split: Split, seed: int) -> DrawnSplit:
    """``split_cases`` of these cases, with copies of one image kept together.

    Raises:
        UserError: As ``split_cases``.
    """
    identical = identical_images(cases)
    parts = split_cases(cases, split, seed, identical)
    groups = _groups(cases, split, identical)
    num_groups = {part: len({groups[case.id] for case in members}) for part, members in parts.items()}
    used = {case.id for members in parts.values() for case in members}
    return DrawnSplit(parts, num_groups, [ids for ids in identical if len(used.intersection(ids)) > 1])


def split_cases(
    cases: Sequence[Case], split: Split, seed: int, identical: Sequence[Sequence[str]] = ()
) -> dict[str, list[Case]]:
    """Cases of each part: "train", "validation", "test".

    Shares are shares of the groups, drawn with the seed from the sorted groups, at least one group if a share is above 0: the
    same data and seed give the same split on any machine. Lists name cases or whole groups.

    Args:
        cases: All cases.
        split: The config's section.
        seed: Of the draw.
        identical: Sets of ids whose images are copies of each other: the groups of a set become one.

    Raises:
        UserError: A name is neither a case nor a group, a case, a group or copies of an image are in two parts, or no case is
            left to train or validate on.
    """
    group = _groups(cases, split, identical)
    given = {"train": split.train, "validation": split.validation, "test": split.test}
    part_of_case: dict[str, str] = {case.id: case.split for case in cases if case.split}
    for part, names in given.items():
        if not isinstance(names, tuple):
            continue
        for name in names:
            ids = [case.id for case in cases if name in (case.id, case.group)]
            if not ids:
                raise UserError(
                    f"data.split.{part} names {name!r}, which is neither a case nor a group; there are {some(sorted(group))}"
                )
            for case_id in ids:
                taken = part_of_case.setdefault(case_id, part)
                if taken != part:
                    raise UserError(f"data.split puts the case {case_id!r} into both {taken} and {part}")

    groups = sorted(set(group.values()))
    free = [name for name in groups if not any(group[case_id] == name for case_id in part_of_case)]
    random.Random(seed).shuffle(free)
    part_of_group: dict[str, str] = {}
    default = None if split.train is not None else "train"
    # Rounding must not use up the groups that other parts need at least.
    kept = {"test": 0, "validation": int(default is not None and "train" not in part_of_case.values())}
    kept["test"] = kept["validation"] + int(isinstance(split.validation, float) and split.validation > 0)
    for part in ("test", "validation"):
        share = given[part]
        if isinstance(share, float) and share > 0:
            count = max(1, min(round(share * len(groups)), len(free) - kept[part]))
            for name in free[:count]:
                part_of_group[name] = part
            del free[:count]

    parts: dict[str, list[Case]] = {part: [] for part in PARTS}
    for case in cases:
        chosen = part_of_case.get(case.id) or part_of_group.get(group[case.id]) or default
        if chosen:
            parts[chosen].append(case)
    _refuse_divided_groups(parts, group, identical)
    for part in ("train", "validation"):
        if not parts[part]:
            raise UserError(
                f"data.split leaves no case for {part}: {len(cases)} cases in {len(groups)} groups; name cases, or change the shares"
            )
    return parts


def _groups(cases: Sequence[Case], split: Split, identical: Sequence[Sequence[str]]) -> dict[str, str]:
    """Case id -> its group: the patient, or the case itself; groups that hold copies of one image are one."""
    group = {case.id: (case.group or case.id) if split.by == "group" else case.id for case in cases}
    for ids in identical:
        joined = {group[case_id] for case_id in ids}
        name = min(joined)
        group = {case_id: name if own in joined else own for case_id, own in group.items()}
    return group


def _refuse_divided_groups(
    parts: Mapping[str, Sequence[Case]], group: Mapping[str, str], identical: Sequence[Sequence[str]]
) -> None:
    part_of = {case.id: part for part, members in parts.items() for case in members}
    for ids in identical:
        used = {part_of[case_id]: case_id for case_id in reversed(ids) if case_id in part_of}
        if len(used) > 1:
            (first, one), (second, other) = sorted(used.items(), key=lambda item: PARTS.index(item[0]))[:2]
            raise UserError(
                f"data.split puts the case {one!r} into {first} and the case {other!r} into {second}, but their images are "
                "identical: put both into one part, or remove one"
            )
    side: dict[str, str] = {}
    for part, members in parts.items():
        for case in members:
            other = side.setdefault(group[case.id], part)
            if other != part:
                raise UserError(
                    f"data.split puts the group {group[case.id]!r} into both {other} and {part}: "
                    "a patient in two parts makes the score too good; name whole groups, or set data.split.by: case"
                )
