"""``outcomes.json``: what became of each case of an output folder, for programs and for those who look later."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from r2seg.errors import UserError
from r2seg.files import read_json, write_json
from r2seg.inference.batch import Job, Outcome

OUTCOMES = "outcomes.json"


def write_outcomes(folder: Path, outcomes: Iterable[Outcome]) -> Path:
    """Writes what became of each case; cases of earlier commands stay listed.

    The file holds, for each label map by its path in the folder: ``images``, ``error`` (null if it was written), ``found`` (voxels and
    millilitres of each label) and ``warnings``.

    Raises:
        UserError: The file cannot be written.
    """
    path = folder / OUTCOMES
    cases = _listed(path)
    for outcome in outcomes:
        cases[_text(outcome.job.output.relative_to(folder).as_posix())] = {
            "images": [_text(image) for image in outcome.job.images],
            "error": outcome.error and _text(outcome.error),
            "found": {name: asdict(found) for name, found in outcome.found.items()},
            "warnings": list(outcome.warnings),
        }
    write_json(path, {"cases": cases})
    return path


def refuse_data_files(folder: Path, jobs: Iterable[Job], roots: Iterable[Path]) -> None:
    """Refuses to overwrite files of the run's data, wherever its layout keeps labels; label maps of earlier commands may be replaced.

    Args:
        folder: The output folder.
        jobs: What is to be written.
        roots: Folders of the data sets that the run was trained and tested on.

    Raises:
        UserError: An output exists below one of them, and ``outcomes.json`` does not list it.
    """
    earlier = {name for name, case in _listed(folder / OUTCOMES).items() if case["error"] is None}
    below = [root.resolve() for root in roots]
    for job in jobs:
        path = job.output
        if path.exists() and any(path.resolve().is_relative_to(root) for root in below):
            if path.is_relative_to(folder) and _text(path.relative_to(folder).as_posix()) in earlier:
                continue
            raise UserError(f"{path} is a file of the run's data and would be overwritten: name another folder with -o")


def _listed(path: Path) -> dict[str, Any]:
    """The cases that earlier commands listed; none if the file is not there, not ours, or damaged."""
    try:
        return dict(read_json(path).get("cases", {})) if path.is_file() else {}
    except UserError:
        return {}


def _text(value: object) -> str:
    """Text that any encoding can hold: bytes of a file name that are not UTF-8 are written as \\xNN."""
    return str(value).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
