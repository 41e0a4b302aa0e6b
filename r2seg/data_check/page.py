"""check.html and check.json: the check as files that can be kept, sent and opened anywhere."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from markupsafe import Markup

from r2seg import __version__
from r2seg.data_check.check import ALL, DataCheck
from r2seg.data_check.figures import Histogram, as_json, figures_of, intensity_histograms, size_histogram
from r2seg.data_check.findings import by_kind, verdict
from r2seg.data_check.tables import EXPLANATION, rows_of, share_text
from r2seg.errors import counted
from r2seg.files import write_json, write_text
from r2seg.pictures.charts import histogram
from r2seg.pictures.contact_sheet import MAX_BYTES, num_that_fit
from r2seg.pictures.pages import render_page

PAGE, DATA = "check.html", "check.json"

_PART_COLOURS = {"train": "#56B4E9", "validation": "#E69F00", "test": "#009E73", ALL: "#56B4E9"}


def write_check(check: DataCheck, folder: Path) -> list[Path]:
    """Writes both files and returns their paths.

    Args:
        check: Made with ``pictures=True``, or the page has no contact sheet.
        folder: It is made if needed; files of an earlier check are replaced.

    Raises:
        UserError: The folder cannot be written.
    """
    write_text(folder / PAGE, render(check))
    write_json(folder / DATA, as_json(check))
    return [folder / PAGE, folder / DATA]


def render(check: DataCheck) -> str:
    """The page."""
    flagged: dict[str, list[str]] = {}
    for severity, findings in (("error", check.errors), ("warning", check.warnings)):
        for finding in findings:
            if finding.case:
                flagged.setdefault(finding.case, []).append(f"{severity}: {finding.text}")
    # Cases with findings come first within a part, so that these are not the ones left out.
    ordered = [
        case
        for members in check.parts.values()
        for case in sorted(members, key=lambda case: (case.case.id not in flagged, case.case.id))
    ]
    by_need = sorted(ordered, key=lambda case: case.case.id not in flagged)
    fitting = {case.case.id for case in by_need[: num_that_fit([case.tile for case in by_need])]}
    sizes, figures = size_histogram(check), figures_of(check)
    return render_page(
        "r2seg.data_check",
        "check.html.j2",
        check=check,
        config=check.config,
        verdict=verdict(check.errors, check.warnings),
        errors=by_kind(check.errors),
        warnings=by_kind(check.warnings),
        figures=figures,
        rows=rows_of(check, figures),
        intensities=_intensity_charts(check),
        sizes=_chart(sizes, "Longest sides of the images") if sizes else None,
        part_colours=_PART_COLOURS,
        flagged=flagged,
        sheet=[case for case in ordered if case.case.id in fitting],
        num_left_out=len(ordered) - len(fitting),
        max_megabytes=MAX_BYTES // 1_000_000,
        explanation=EXPLANATION,
        share_text=share_text,
        counted=counted,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
    )


def _intensity_charts(check: DataCheck) -> dict[str, Markup]:
    """Title -> chart, one per channel."""
    made = intensity_histograms(check)
    colour = len(made) == 3 and all(len(case.facts.shape) == 2 for case in check.cases if case.facts.shape)
    names = ("red", "green", "blue") if colour else [f"channel {number}" for number in range(len(made))]
    titles = ["Intensities"] if len(made) == 1 else [f"Intensities, {name}" for name in names]
    return {title: _chart(each, title) for title, each in zip(titles, made, strict=True)}


def _chart(made: Histogram, title: str) -> Markup:
    return Markup(histogram(made.shares, made.edges, _PART_COLOURS, title))
