"""Writes a report's files. Each format is one entry of `FORMATS`; what it says comes from the renderers.

Only this module knows where a report goes. The renderers are imported when they are needed: the command reads the names of
the formats from here, and matplotlib and jinja are not needed for all of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r2seg.errors import UserError

if TYPE_CHECKING:
    from r2seg.evaluation.results import Report

Render = Callable[["Report", Mapping[str, Any], Path], str]


@dataclass(frozen=True)
class Format:
    """One file of a report.

    Attributes:
        file: Its name.
        render: (report, its summary, folder it will lie in) -> text.
    """

    file: str
    render: Render


def _csv(report: Report, summary: Mapping[str, Any], folder: Path) -> str:
    from r2seg.evaluation.tables import cases_csv

    return cases_csv(report)


def _json(report: Report, summary: Mapping[str, Any], folder: Path) -> str:
    return json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False)


def _html(report: Report, summary: Mapping[str, Any], folder: Path) -> str:
    from r2seg.evaluation.html import render

    return render(report, summary, folder)


def _markdown(report: Report, summary: Mapping[str, Any], folder: Path) -> str:
    from r2seg.evaluation.tables import markdown

    return markdown(summary)


def _latex(report: Report, summary: Mapping[str, Any], folder: Path) -> str:
    from r2seg.evaluation.tables import latex

    return latex(summary)


FORMATS = {
    "csv": Format("cases.csv", _csv),
    "json": Format("summary.json", _json),
    "html": Format("report.html", _html),
    "markdown": Format("summary.md", _markdown),
    "latex": Format("summary.tex", _latex),
}
DEFAULT_FORMATS = ("csv", "json", "html")


def write_report(
    report: Report,
    folder: Path | str,
    formats: Sequence[str] = DEFAULT_FORMATS,
    *,
    summary: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Writes the report's files and returns their paths; each file appears whole or not at all.

    With summary.json goes thresholds.json, if the probabilities of the first method were scored.

    Args:
        report: The report.
        folder: Where the files go; made if needed.
        formats: Of `FORMATS`.
        summary: The report's, from `summarize`, where it is known already.

    Raises:
        UserError: A format is unknown, or the folder cannot be written.
    """
    from r2seg.evaluation.summary import best_thresholds, summarize
    from r2seg.files import write_text
    from r2seg.thresholds import FILE as THRESHOLDS

    folder = Path(folder)
    check_output(folder, formats)
    summary = summarize(report) if summary is None else summary
    # All are made before any is written.
    texts = {FORMATS[name].file: FORMATS[name].render(report, summary, folder) for name in formats}
    if "json" in formats and (thresholds := best_thresholds(report)) is not None:
        texts[THRESHOLDS] = thresholds.json()
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def check_output(folder: Path | None, formats: Sequence[str]) -> None:
    """Checks what can be known about a report's folder and formats before the first case is scored.

    Raises:
        UserError: A format is unknown, or the folder is a file or cannot be written.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise UserError(f"{unknown[0]!r} is not a report format; give {', '.join(FORMATS)}")
    if folder is None:
        return
    standing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not standing.is_dir():
        raise UserError(f"{standing} is a file: name a folder for the report")
    if not os.access(standing, os.W_OK):
        raise UserError(f"{standing} cannot be written: name another folder for the report")
