"""A check as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from r2seg.data_check.check import DataCheck
from r2seg.data_check.figures import PartFigures, figures_of
from r2seg.data_check.findings import Finding, by_kind, verdict
from r2seg.errors import counted

# Lines of one kind that a terminal shows.
_MOST = 12


def common(tally: Mapping[str, int], noun: str) -> str:
    """What occurs: one alone; a few with their numbers, one per line; of many the first and the last."""
    if len(tally) == 1:
        return next(iter(tally))
    if len(tally) <= 3:
        return "\n".join(f"{text} ({number})" for text, number in tally.items())
    first, *_, last = tally
    return f"{len(tally)} {noun}:\n{first} to\n{last}"


def _most_common(tally: Mapping[str, int]) -> str:
    """What occurs, the most frequent first."""
    shown = [text if len(tally) == 1 else f"{text} ({number})" for text, number in list(tally.items())[:3]]
    return ", ".join(shown) + (f" and {len(tally) - 3} others" if len(tally) > 3 else "")


def share_text(share: float) -> str:
    """A share in percent: "4.12 %"; small ones with two digits that count."""
    return f"{100 * share:.2f} %" if share >= 0.001 or share == 0 else f"{100 * share:.2g} %"


def rows_of(check: DataCheck, figures: Mapping[str, PartFigures]) -> list[tuple[str, list[str]]]:
    """What is told of the parts: title, and a cell for each part; rows that say nothing are left out."""
    parts = list(figures.values())
    volumes = any(part.spacings_mm for part in parts)
    rows = [
        ("cases", [f"{part.num_cases} in {counted(part.num_groups, 'group')}" for part in parts]),
        ("size (R x A x S)" if volumes else "size", [common(part.sizes, "sizes") for part in parts]),
        ("voxel size in mm", [common(part.spacings_mm, "voxel sizes") for part in parts]),
        ("axes of the files", [_most_common(part.orientations) for part in parts]),
        ("channels x type", [_most_common(part.channels) for part in parts]),
        (
            "intensities",
            ["" if part.intensity is None else "{:.5g} to {:.5g}".format(*part.intensity) for part in parts],
        ),
    ]
    for label in check.config.data.labels:
        found = [part.labels.get(label) for part in parts]
        rows.append(
            (label, ["" if each is None else f"{share_text(each[0])} in {counted(each[1], 'case')}" for each in found])
        )
    return [(title, cells) for title, cells in rows if any(cells)]


def data_table(check: DataCheck) -> Table:
    """The parts with their sizes, intensities, and the share of each label in the pixels."""
    figures = figures_of(check)
    table = Table(title=f"{check.config.name}: {check.config.data.root}", title_justify="left", caption_justify="left")
    table.add_column("")
    for part in figures:
        table.add_column(part)
    for title, cells in rows_of(check, figures):
        table.add_row(Text(title), *(Text(cell or "-") for cell in cells))
    table.caption = EXPLANATION
    return table


EXPLANATION = "intensities: smallest 0.5 and largest 99.5 percentile of a case; labels: share of the pixels"


def finding_lines(check: DataCheck) -> list[tuple[str, str]]:
    """("error" or "warning", line) of the findings, errors first; of many of one kind the first, and how many follow."""
    lines = []
    for severity, findings in (("error", check.errors), ("warning", check.warnings)):
        for title, members in by_kind(findings).items():
            lines += [(severity, f"{severity}: {finding.text}") for finding in members[:_MOST]]
            if len(members) > _MOST:
                lines.append((severity, f"{severity}: and {len(members) - _MOST} more of this kind ({title.lower()})"))
    return lines


def verdict_of(check: DataCheck) -> str:
    """What came out, in one line."""
    errors: Sequence[Finding] = check.errors
    return f"{check.config.name}: {verdict(errors, check.warnings)}"
