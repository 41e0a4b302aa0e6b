"""Splits of cases into training, validation and test, by group, so that no patient is in two parts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from r2seg.data.cases import Case
from r2seg.errors import UserError, some

if TYPE_CHECKING:
    from r2seg.config import Split

PARTS = ("train", "validation", "test")


def split_cases(cases: Sequence[Case], split: Split, seed: int) -> dict[str, list[Case]]:
    """Cases of each part: "train", "validation", "test".

    Shares are shares of the groups, drawn with the seed from the sorted groups, at least one group if a share is above 0: the
    same data and seed give the same split on any machine. Lists name cases or whole groups.

    Raises:
        UserError: A name is neither a case nor a group, a case or group is in two parts, or no case is left to train or validate
            on.
    """
    group = {case.id: (case.group or case.id) if split.by == "group" else case.id for case in cases}
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
    _refuse_divided_groups(parts, group)
    for part in ("train", "validation"):
        if not parts[part]:
            raise UserError(
                f"data.split leaves no case for {part}: {len(cases)} cases in {len(groups)} groups; name cases, or change the shares"
            )
    return parts


def _refuse_divided_groups(parts: dict[str, list[Case]], group: dict[str, str]) -> None:
    side: dict[str, str] = {}
    for part, members in parts.items():
        for case in members:
            other = side.setdefault(group[case.id], part)
            if other != part:
                raise UserError(
                    f"data.split puts the group {group[case.id]!r} into both {other} and {part}: "
                    "a patient in two parts makes the score too good; name whole groups, or set data.split.by: case"
                )
