"""Test cases of another data set than the one that is trained on: section ``data.split.test`` with a ``root``.

How the files of a data set are found is in layouts/.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from r2seg.config import Data, HeldOut, Split
from r2seg.data.cases import Case
from r2seg.errors import UserError, some


def with_held_out(cases: Sequence[Case], data: Data, find: Callable[[Data], list[Case]]) -> list[Case]:
    """The cases of a data set and, as test cases, those of the data set that ``data.split.test`` names.

    The ids of the latter begin with a prefix, and so do their groups, unless patients of one name are said to be one person.

    Args:
        cases: Those of ``data.root``.
        data: The config's section.
        find: Finds the cases of a section.

    Raises:
        UserError: As ``find``, or two cases have one id.
    """
    test = data.split.test
    if not isinstance(test, HeldOut):
        return list(cases)
    same_layout = test.layout in (None, data.layout)
    changes = {
        "root": test.root,
        "layout": test.layout or data.layout,
        "files": test.files or (data.files if same_layout else None),
        "group": test.group or (data.group if same_layout else None),
        "split": Split(),
    }
    try:
        found = find(data.model_copy(update=changes))
    except UserError as error:  # the keys that it names are those of this section
        raise UserError("\n".join(map(_of_held_out, str(error).splitlines()))) from error
    held = [
        replace(
            case,
            id=f"{test.prefix}/{case.id}",
            group=case.group if test.same_patients else f"{test.prefix}/{case.group or case.id}",
            split="test",
        )
        for case in found
    ]
    if doubled := sorted({case.id for case in cases}.intersection(case.id for case in held)):
        raise UserError(
            f"data.split.test.prefix {test.prefix!r}: the cases {some(doubled)} of {test.root} have the ids of cases of {data.root}: "
            "give another prefix"
        )
    return [*cases, *held]


def _of_held_out(line: str) -> str:
    """A mistake in the section's files, told with the section's keys."""
    told = re.sub(r"\bdata\.(?=(root|layout|group|files)\b)", "data.split.test.", line)
    return told if told.startswith("data.split.test") else f"data.split.test: {told}"
