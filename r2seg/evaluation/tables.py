"""A report as tables of text: for a terminal, and as Markdown and LaTeX for papers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from r2seg.evaluation.report import Report

_FEW_SECTIONS = 3
_PAPER_NOTE = (
    "mean: over cases; pooled: all pixels of all cases together; brackets: 95 % bootstrap interval over groups; "
    "n: cases with a finite number where that is not all of them"
)


def terminal(report: Report) -> RenderableType:
    """A table a method and a comparison, and the notes: readable at 80 columns."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    parts: list[RenderableType] = []
    for name, found in report.summary["methods"].items():
        parts.append(_method_table(report, name, found))
    for comparison in report.summary["comparisons"]:
        parts.append(_comparison_table(report, comparison))
        parts += [Padding(Text(line), (0, 0, 0, 1)) for line in _differ_most(report, comparison)]
    return Group(*parts, *(_bullet(note) for note in report.notes()), *_told_elsewhere(report))


def _shown(report: Report) -> Sequence[str]:
    """Measures of the terminal's tables: all, or the leading ones where many labels or methods would scroll away."""
    return report.measures if len(report.labels) * len(report.methods) <= _FEW_SECTIONS else report.leading


def _told_elsewhere(report: Report) -> list[RenderableType]:
    hidden = [report.title(key) for key in report.measures if key not in _shown(report)]
    return [_bullet(f"also scored, and written with -o: {', '.join(hidden)}")] if hidden else []


def _method_table(report: Report, name: str, found: Mapping[str, Any]) -> RenderableType:
    rows = {
        label: [
            [
                report.title(key),
                report.number(key, entry["mean"]),
                _interval(report, key, entry["mean_interval"]),
                report.number(key, entry["median"]),
                report.number(key, entry.get("pooled")),
                _num_cases(entry),
            ]
            for key, entry in label_found["measures"].items()
            if key in _shown(report)
        ]
        for label, label_found in found["labels"].items()
    }
    title = f"{name} ({found['role']})" if len(report.methods) > 1 else name
    return _table(title, ("Mean", "95 % interval", "Median", "Pooled", "Cases"), rows)


def _comparison_table(report: Report, comparison: Mapping[str, Any]) -> RenderableType:
    rows = {
        label: [
            [
                report.title(key),
                report.number(key, entry["mean_difference"], "+"),
                _interval(report, key, entry["interval"], "+"),
                "" if entry["p_value"] is None else f"{entry['p_value']:.3g}",
                str(entry["num_cases"]),
            ]
            for key, entry in found.items()
            if key in report.leading
        ]
        for label, found in comparison["labels"].items()
    }
    title = f"{comparison['first']} less {comparison['second']}, same cases"
    return _table(title, ("Difference", "95 % interval", "p (Wilcoxon)", "Cases"), rows)


def _differ_most(report: Report, comparison: Mapping[str, Any]) -> list[str]:
    """A line a label: the cases whose first measure differs most."""
    lines = []
    for label, found in comparison["labels"].items():
        for key, entry in list(found.items())[:1]:
            cases = [f"{case['case']} {report.number(key, case['difference'], '+')}" for case in entry["largest"][:3]]
            if cases:
                lines.append(f"{label}: {report.title(key)} differs most in {', '.join(cases)}")
    return lines


def _table(title: str, head: Sequence[str], rows: Mapping[str, Iterable[Sequence[str]]]) -> RenderableType:
    """Rows below the name of their label; the first column is text, the others numbers that are never broken; a column without any is left out."""
    from rich import box
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text  # cells hold brackets, which rich would take for markup

    table = Table(
        title=Text(title, style="bold"),
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


def _interval(report: Report, key: str, bounds: Sequence[float] | None, sign: str = "") -> str:
    if bounds is None:
        return ""
    return f"{report.number(key, bounds[0], sign)} to {report.number(key, bounds[1], sign)}"


def _num_cases(entry: Mapping[str, Any]) -> str:
    left_out = [f"{entry[key]} {name}" for key, name in (("num_nan", "NaN"), ("num_infinite", "∞")) if entry[key]]
    return f"{entry['num_cases']} ({', '.join(left_out)})" if left_out else str(entry["num_cases"])


def markdown(report: Report) -> str:
    """One row a method, label and kind of mean; one column a measure."""
    head, rows = _paper_rows(report)
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * 2 + "---:|" * (len(head) - 2)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([*lines, "", *(f"- {note}" for note in [_PAPER_NOTE, *report.notes()])]) + "\n"


def latex(report: Report) -> str:
    """The rows of `markdown` as a booktabs tabular."""
    head, rows = _paper_rows(report)
    lines = [f"% {note}" for note in [_PAPER_NOTE, *report.notes()]]
    lines += [r"\begin{tabular}{ll" + "r" * (len(head) - 2) + "}", r"\toprule"]
    lines += [" & ".join(map(_escaped, head)) + r" \\", r"\midrule"]
    lines += [" & ".join(map(_escaped, row)) + r" \\" for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _paper_rows(report: Report) -> tuple[list[str], list[list[str]]]:
    rows = []
    for method, found in report.summary["methods"].items():
        for label, entry in found["labels"].items():
            total = sum(entry["cases"].values())
            for kind in ("mean", "pooled"):
                cells = []
                for key in report.measures:
                    numbers = entry["measures"].get(key, {})
                    cell = report.with_interval(key, numbers.get(kind), numbers.get(f"{kind}_interval"))
                    fewer = kind == "mean" and numbers and numbers["num_cases"] != total
                    cells.append(f"{cell} (n={numbers['num_cases']})" if fewer else cell)
                rows.append([f"{method}, {kind}", label, str(total), *cells])
    return ["Method", "Label", "Cases", *map(report.title, report.measures)], rows


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "∞": r"$\infty$", "−": "$-$",
}  # fmt: skip


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
