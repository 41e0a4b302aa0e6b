"""A report as text: tables for a terminal, Markdown and LaTeX for papers, and the table of cases as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from typing import TYPE_CHECKING, Any

from r2seg.evaluation.results import Report
from r2seg.evaluation.wording import (
    case_difference,
    leading,
    notes,
    num_compared,
    number,
    p_text,
    title,
    with_interval,
)
from r2seg.metrics.catalogue import FAMILIES

if TYPE_CHECKING:
    from rich.console import RenderableType

_FEW_SECTIONS = 3
_PAPER_NOTE = (
    "mean: over cases; pooled: all pixels of all cases together; brackets: 95 % jackknife interval over groups; "
    "n: cases with a finite number, and how many are left out (NaN: undefined, ∞: nothing found)"
)


def terminal(summary: Mapping[str, Any]) -> RenderableType:
    """One table per method and comparison, and the notes, for rich's ``Console.print``: readable at 80 columns."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    parts: list[RenderableType] = []
    for name, found in summary["methods"].items():
        parts.append(_method_table(summary, name, found))
    for comparison in summary["comparisons"]:
        parts.append(_comparison_table(summary, comparison))
        parts += [Padding(Text(line), (0, 0, 0, 1)) for line in _differ_most(summary, comparison)]
    return Group(*parts, *(_bullet(note) for note in notes(summary)), *_not_shown(summary))


def _shown(summary: Mapping[str, Any]) -> Sequence[str]:
    """Measures of the terminal's tables: all, or the leading ones if many labels or methods would scroll away."""
    measures = tuple(summary["measures"])
    num_sections = len(summary["settings"]["labels"]) * len(summary["methods"])
    return measures if num_sections <= _FEW_SECTIONS else leading(measures)


def _not_shown(summary: Mapping[str, Any]) -> list[RenderableType]:
    hidden = [title(summary, key) for key in summary["measures"] if key not in _shown(summary)]
    return [_bullet(f"also scored, and written with -o: {', '.join(hidden)}")] if hidden else []


def _method_table(summary: Mapping[str, Any], name: str, found: Mapping[str, Any]) -> RenderableType:
    rows = {
        label: [
            [
                title(summary, key),
                number(key, entry["mean"]),
                _interval(key, entry["mean_interval"]),
                number(key, entry["median"]),
                number(key, entry.get("pooled")),
                _num_cases(entry),
            ]
            for key, entry in label_found["measures"].items()
            if key in _shown(summary)
        ]
        for label, label_found in found["labels"].items()
    }
    heading = f"{name} ({found['role']})" if len(summary["methods"]) > 1 else name
    return _table(heading, ("Mean", "95 % interval", "Median", "Pooled", "Cases"), rows)


def _comparison_table(summary: Mapping[str, Any], comparison: Mapping[str, Any]) -> RenderableType:
    rows = {
        label: [
            line
            for key, entry in found.items()
            if key in leading(tuple(summary["measures"]))
            for line in _comparison_lines(summary, key, entry)
        ]
        for label, found in comparison["labels"].items()
    }
    heading = f"{comparison['first']} minus {comparison['second']}, same cases"
    return _table(heading, ("Difference", "95 % interval", "p", "p (Holm)", "Cases"), rows)


def _comparison_lines(summary: Mapping[str, Any], key: str, entry: Mapping[str, Any]) -> list[list[str]]:
    """A measure's mean difference, and below it the difference of the pooled scores if there is one."""
    lines = [
        [
            title(summary, key),
            number(key, entry["mean_difference"], "+"),
            _interval(key, entry["interval"], "+"),
            p_text(entry["p_value"]),
            p_text(entry["p_holm"]),
            num_compared(entry),
        ]
    ]
    if "pooled_difference" in entry:
        difference, bounds = entry["pooled_difference"], entry["pooled_interval"]
        lines.append(
            [f"{title(summary, key)}, pooled", number(key, difference, "+"), _interval(key, bounds, "+"), "", "", ""]
        )
    return lines


def _differ_most(summary: Mapping[str, Any], comparison: Mapping[str, Any]) -> list[str]:
    """One line per label: the cases whose first measure differs most."""
    lines = []
    for label, found in comparison["labels"].items():
        for key, entry in list(found.items())[:1]:
            cases = [case_difference(comparison, key, case) for case in entry["largest"][:3]]
            if cases:
                lines.append(f"{label}: {title(summary, key)} differs most in {', '.join(cases)}")
    return lines


def _table(heading: str, head: Sequence[str], rows: Mapping[str, Iterable[Sequence[str]]]) -> RenderableType:
    """Rows below the name of their label; columns without any number are left out.

    The first column is text; the others are numbers, which are never broken.
    """
    from rich import box
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text  # cells hold brackets, which rich would read as markup

    table = Table(
        title=Text(heading, style="bold"),
        title_justify="left",
        title_style="",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
    )
    table.add_column("Label, measure")
    used = [any(row[column] for section in rows.values() for row in section) for column in range(1, len(head) + 1)]
    for column in compress(head, used):
        table.add_column(column, justify="right", no_wrap=True)
    for label, section in rows.items():
        table.add_row(Text(label, style="bold"))
        for measure, *numbers in section:
            table.add_row(Padding(Text(measure), (0, 0, 0, 2)), *map(Text, compress(numbers, used)))
    return table


def _bullet(text: str) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    line = Table.grid(padding=(0, 1, 0, 0))
    line.add_row(Text("•"), Text(text, overflow="fold"))
    return line


def _interval(key: str, bounds: Sequence[float] | None, sign: str = "") -> str:
    if bounds is None:
        return ""
    return f"{number(key, bounds[0], sign)} to {number(key, bounds[1], sign)}"


def _num_cases(entry: Mapping[str, Any], form: str = " ({})") -> str:
    """Cases that a mean is over, and those that are left out of it: "4 (1 ∞)"."""
    left_out = [f"{entry[key]} {name}" for key, name in (("num_nan", "NaN"), ("num_infinite", "∞")) if entry[key]]
    return f"{entry['num_cases']}{form.format(', '.join(left_out))}" if left_out else str(entry["num_cases"])


def markdown(summary: Mapping[str, Any]) -> str:
    """Tables for a paper or an issue, and the notes.

    One row per method, label and kind of mean, one column per measure; then, for each comparison, one row per label and
    measure.
    """
    tables = [_markdown_table(*table) for table in _paper_tables(summary)]
    said = "\n".join(f"- {note}" for note in [_PAPER_NOTE, *notes(summary)])
    return "\n\n".join([*tables, said]) + "\n"


def latex(summary: Mapping[str, Any]) -> str:
    """The tables of `markdown` as booktabs tabulars, and the notes in small print below: they belong to the numbers."""
    said = [f"{_escaped(note)}\\par" for note in [_PAPER_NOTE, *notes(summary)]]
    tables = [_latex_table(*table) for table in _paper_tables(summary)]
    return "\n".join([*tables, r"\par{\footnotesize\raggedright", *said, "}"]) + "\n"


Table = tuple[str, list[str], list[list[str]]]


def _paper_tables(summary: Mapping[str, Any]) -> list[Table]:
    """Heading, column heads and rows of each table; the first two columns are text, the others numbers."""
    return [("", *_paper_rows(summary)), *(_paper_comparison(summary, each) for each in summary["comparisons"])]


def _markdown_table(heading: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"**{heading}**", ""] if heading else []
    lines += ["| " + " | ".join(head) + " |", "|" + "---|" * 2 + "---:|" * (len(head) - 2)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _latex_table(heading: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"% {heading}"] if heading else []
    lines += [r"\begin{tabular}{ll" + "r" * (len(head) - 2) + "}", r"\toprule"]
    lines += [" & ".join(map(_escaped, head)) + r" \\", r"\midrule"]
    lines += [" & ".join(map(_escaped, row)) + r" \\" for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _paper_comparison(summary: Mapping[str, Any], comparison: Mapping[str, Any]) -> Table:
    rows = []
    for label, found in comparison["labels"].items():
        for key, entry in found.items():
            pooled = with_interval(key, entry.get("pooled_difference"), entry.get("pooled_interval"), "+")
            difference = with_interval(key, entry["mean_difference"], entry["interval"], "+")
            numbers = [difference, pooled, p_text(entry["p_value"]), p_text(entry["p_holm"]), num_compared(entry)]
            rows.append([label, title(summary, key), *numbers])
    head = ["Label", "Measure", "Mean difference", "Pooled difference", "p", "p (Holm)", "Cases"]
    return f"{comparison['first']} minus {comparison['second']}", head, rows


def _paper_rows(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for method, found in summary["methods"].items():
        for label, entry in found["labels"].items():
            total = sum(entry["cases"].values())
            for kind in ("mean", "pooled"):
                cells = []
                for key in summary["measures"]:
                    numbers = entry["measures"].get(key, {})
                    cell = with_interval(key, numbers.get(kind), numbers.get(f"{kind}_interval"))
                    fewer = kind == "mean" and numbers and numbers["num_cases"] != total
                    cells.append(f"{cell} (n={_num_cases(numbers, '; {}')})" if fewer else cell)
                rows.append([f"{method}, {kind}", label, str(total), str(entry.get("num_groups", 0)), *cells])
    return ["Method", "Label", "Cases", "Groups", *(title(summary, key) for key in summary["measures"])], rows


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "∞": r"$\infty$", "−": "$-$",
}  # fmt: skip


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def cases_csv(report: Report) -> str:
    """One row per case, method and label; undefined numbers are empty, infinite ones "inf"."""
    extra = [
        (name, column, index)
        for name, family in FAMILIES.items()
        if name != "counts" and any(name in row.evidence for row in report.rows)
        for index, column in enumerate(family.columns)
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["method", "case", "group", "label", "status", "tp", "fp", "fn", "tn", "undeclared_pixels", "smeared_masks_cut"]
        + [column for _, column, _ in extra]
        + list(report.measures)
        + ["prediction", "reference"]
    )
    for row in report.rows:
        writer.writerow(
            [row.method, row.case, row.group, row.label, row.status, *row.counts, row.undeclared, "; ".join(row.cut)]
            + [int(row.evidence[name][index]) if name in row.evidence else "" for name, _, index in extra]
            + [_csv_number(row.scores.get(key, math.nan)) for key in report.measures]
            + [row.prediction or "", row.reference]
        )
    return text.getvalue()


def _csv_number(value: float) -> str:
    return "" if math.isnan(value) else repr(float(value))
