"""``outcomes.json``: what became of each case of an output folder, for programs and for those who look later."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from r2seg.errors import UserError
from r2seg.files import read_json, write_json
from r2seg.inference.batch import Outcome

OUTCOMES = "outcomes.json"


def write_outcomes(folder: Path, outcomes: Iterable[Outcome]) -> Path:
    """Writes what became of each case; cases of earlier commands stay listed.

    The file holds, for each label map by its path in the folder: ``images``, ``error`` (null if it was written), ``found`` (voxels and
    millilitres of each label) and ``warnings``.

    Raises:
        UserError: The file cannot be written.
    """
    path = folder / OUTCOMES
    cases: dict[str, Any] = {}
    if path.is_file():
        try:
            cases = read_json(path).get("cases", {})
        except UserError:  # it is not ours, or damaged: this command's cases are what is known
            cases = {}
    for outcome in outcomes:
        cases[_text(outcome.job.output.relative_to(folder).as_posix())] = {
            "images": [_text(image) for image in outcome.job.images],
            "error": outcome.error and _text(outcome.error),
            "found": {name: asdict(found) for name, found in outcome.found.items()},
            "warnings": list(outcome.warnings),
        }
    write_json(path, {"cases": cases})
    return path


def _text(value: object) -> str:
    """Text that any encoding can hold: bytes of a file name that are not UTF-8 are written as \\xNN."""
    return str(value).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
