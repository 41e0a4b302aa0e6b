"""Types of the keys that say where cases are and how they are named, shared by ``data`` and ``data.split.test``."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator

LayoutName = Literal[
    "drive", "stare", "chase_db1", "hrf", "isic", "kaggle_lung", "lctsc", "msd", "nnunet", "voc", "folder", "files"
]


def _has_a_group(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
    if groups < 1:
        raise ValueError(f"{pattern!r} has no parentheses: put them around the patient's part of the id")
    return pattern


GroupPattern = Annotated[str, AfterValidator(_has_a_group)]
