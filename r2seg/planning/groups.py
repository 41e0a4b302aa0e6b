"""Which part of a case's id is the patient, guessed from the ids of all cases. What was guessed is always told."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from r2seg.errors import counted, some

_EYES = r"^(.*\d.*?|.*\d)[_\- .]?(?:left|right|OD|OS|L|R|l|r)$"
_SLICES = r"^(.+?)[_\- .]*(?:slice|sl|frame|img|image|instance|scan|visit|tp|z|Z)[_\- .]?\d+$"
_NUMBERED = r"^(.+)[_\- .]\d+$"
# A guess from numbers alone needs so many patients, and on average so many cases for each.
_LEAST_PATIENTS, _LEAST_CASES_EACH = 3, 1.5


@dataclass(frozen=True)
class Groups:
    """A guess.

    Attributes:
        pattern: Regular expression whose first group is the patient, or None if each case is a patient of its own.
        evidence: What was found, in one line.
        sure: Whether the ids say it, rather than only look like it.
    """

    pattern: str | None
    evidence: str
    sure: bool = True


def guess_groups(ids: Sequence[str]) -> Groups:
    """The patients among case ids: both eyes of one, slices of one volume, or ids that begin alike and end in a number."""
    for what, pattern, sure in (
        ("left and right eye", _EYES, True),
        ("slices, frames or visits", _SLICES, True),
        ("a number at the end", _NUMBERED, False),
    ):
        matches = [re.match(pattern, case_id) for case_id in ids]
        found = [match[1] for match in matches if match]
        members = Counter(found)
        if len(found) < len(ids) or len(members) == len(ids):
            continue
        if len(members) == 1 and sure:
            text = f"the ids look like {what} of one patient, {found[0]}; each counts as a patient of its own, so scores will be too good"
            return Groups(None, text, sure=False)
        if not sure and (len(members) < _LEAST_PATIENTS or len(ids) / len(members) < _LEAST_CASES_EACH):
            continue
        patients = f"{counted(len(members), 'patient')} with {counted(len(ids), 'case')} ({some(sorted(members), 3)})"
        doubt = "" if sure else ": a guess from the names, check it"
        return Groups(pattern, f"the ids end in {what}, so they are {patients}{doubt}", sure)
    return Groups(
        None,
        "the names do not tell the patients, so each case counts as a patient of its own; if one has several cases, set data.group",
        sure=False,
    )
