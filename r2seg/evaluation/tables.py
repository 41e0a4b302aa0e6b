"""A report as tables of text: for a terminal, and as Markdown and LaTeX for papers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from r2seg.evaluation.report import Report

_PAPER_NOTE = (
    "mean: over cases; pooled: all pixels of all cases together; brackets: 95 % bootstrap interval over groups; "
    "n: cases with a finite number where that is not all of them"
)


def terminal(report: Report) -> RenderableType:
    """A table a method and a comparison, and the notes."""
    from rich.console import Group
    from rich.text import Text

    parts = [_method_table(report, name, found) for name, found in report.summary["methods"].items()]
    parts += [_comparison_table(report, comparison) for comparison in report.summary["comparisons"]]
    return Group(*parts, *(Text(f"• {note}") for note in report.notes()))


def _method_table(report: Report, name: str, found: Mapping[str, Any]) -> RenderableType:
    rows = [
        [
            [
                report.title(key),
                report.with_interval(key, entry["mean"], entry["mean_interval"]),
                report.number(key, entry["median"]),
                report.with_interval(key, entry.get("pooled"), entry.get("pooled_interval")),
                str(entry["num_cases"]),
                _left_out(entry),
            ]
            for key, entry in label["measures"].items()
        ]
        for label in found["labels"].values()
    ]
    title = f"{name} ({found['role']})" if len(report.methods) > 1 else name
    head = ("Measure", "Mean over cases", "Median", "Pooled", "Cases", "Not in the mean")
    return _table(title, head, dict(zip(found["labels"], rows, strict=True)))


def _comparison_table(report: Report, comparison: Mapping[str, Any]) -> RenderableType:
    rows = {
        label: [
            [
                report.title(key),
                report.with_interval(key, entry["mean_difference"], entry["interval"], sign="+"),
                "" if entry["p_value"] is None else f"{entry['p_value']:.3g}",
                str(entry["num_cases"]),
                ", ".join(case["case"] for case in entry["largest"][:3]),
            ]
            for key, entry in found.items()
        ]
        for label, found in comparison["labels"].items()
    }
    head = ("Measure", "Mean difference", "p (Wilcoxon)", "Cases", "Differ most")
    return _table(f"{comparison['first']} less {comparison['second']}, same cases", head, rows)


def _table(title: str, head: Sequence[str], rows: Mapping[str, Iterable[Sequence[str]]]) -> RenderableType:
    """Rows by label; the first and last columns are text, the others numbers."""
    from rich.table import Table
    from rich.text import Text  # cells hold brackets, which rich would take for markup

    table = Table(title=Text(title, style="bold"), title_justify="left", title_style="")
    for column in ("Label", *head):
        table.add_column(column, justify="left" if column in ("Label", head[0], head[-1]) else "right")
    for label, section in rows.items():
        for index, cells in enumerate(section):
            table.add_row(Text(label if index == 0 else ""), *map(Text, cells))
        table.add_section()
    return table


def _left_out(entry: Mapping[str, Any]) -> str:
    parts = [f"{entry[key]} {name}" for key, name in (("num_nan", "NaN"), ("num_infinite", "∞")) if entry[key]]
    return ", ".join(parts)


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
