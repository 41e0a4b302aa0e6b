"""report.html: one file that opens without a network, filled from templates/ with a report's numbers, plots and pictures."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from r2seg.errors import counted
from r2seg.evaluation import plots, viewer
from r2seg.evaluation.results import Report
from r2seg.evaluation.wording import ROLES, case_difference, leading, notes, num_compared, number, p_text, title
from r2seg.labels import hexadecimal
from r2seg.palette import drawn_colors
from r2seg.pictures.pages import render_page


def render(report: Report, summary: Mapping[str, Any], folder: Path) -> str:
    """The page.

    Args:
        report: Its files must still be in place: the pictures are made from them.
        summary: The report's, from `summarize`.
        folder: Where the page will lie; links to files are relative to it.
    """

    def link(path: Path) -> str:
        return quote(Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix())

    every, num_left_out = viewer.show_all(report)
    shown = [viewer.show(report, *choice) for choice in viewer.choose(report)]

    def sort_value(value: float) -> str:
        return "" if math.isnan(value) else "1e999" if math.isinf(value) else repr(float(value))

    return render_page(
        "r2seg.evaluation",
        "report.html.j2",
        report=report,
        summary=summary,
        notes=notes(summary),
        title=partial(title, summary),
        number=number,
        p_text=p_text,
        num_compared=num_compared,
        case_difference=case_difference,
        leading=leading(report.measures),
        roles=ROLES,
        statuses=sorted({row.status for row in report.rows}),
        shown=shown,
        every=every,
        num_left_out=num_left_out,
        max_megabytes=viewer.MAX_BYTES // 1_000_000,
        thin=2 * sum(case.thin for case in shown) > len(shown),
        has_field_of_view=any(slice_.field_of_view for case in shown for slice_ in case.slices),
        colours=viewer,
        label_colors={name: hexadecimal(color) for name, color in drawn_colors(report.labels).items()},
        distributions=plots.distributions(report, summary),
        bland_altman=plots.bland_altman(report),
        curves=plots.curves(report),
        as_text=_as_text,
        counted=counted,
        link=link,
        sort_value=sort_value,
    )


def _as_text(value: Any) -> str:
    """A setting as people read it: "a: 1, b: (2, 3)" of mappings and lists."""
    if isinstance(value, Mapping):
        return ", ".join(
            f"{key}: ({_as_text(inner)})"
            if isinstance(inner, Mapping | list) and inner
            else f"{key}: {_as_text(inner)}"
            for key, inner in value.items()
        )
    if isinstance(value, list) and value:
        return ", ".join(map(_as_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None or value == [] else str(value)
