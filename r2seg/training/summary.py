"""What is printed at the end of a training: scores of the best checkpoint and the command to type next."""

from __future__ import annotations

import shlex

from rich.table import Table

from r2seg.data.cases import find_cases
from r2seg.run import Run


def results_table(run: Run) -> Table:
    """Dice and IoU per part and label of a finished run."""
    manifest = run.manifest
    best = manifest["best"]
    table = Table(title=f"{run.config.name}: best checkpoint, epoch {best['epoch']}", title_justify="left")
    for column in ("cases", "label", "Dice", "IoU", "scored"):
        table.add_column(column, justify="left" if column in ("cases", "label") else "right")
    for part, scores in manifest["results"].items():
        for label, score in scores.items():
            numbers = ["-" if score[name] is None else f"{score[name]:.4f}" for name in ("dice", "iou")]
            empty = f" ({score['num_empty']} empty)" if score["num_empty"] else ""
            table.add_row(part, label, *numbers, f"{score['num_scored']}{empty}")
    return table


def next_command(run: Run) -> str:
    """The infer command for a held-out case of the run."""
    splits = run.splits
    held_out = (splits["test"] or splits["validation"])[0]
    case = next(case for case in find_cases(run.config.data) if case.id == held_out)
    files = " ".join(shlex.quote(str(path)) for path in case.images)
    return f"r2seg-infer {shlex.quote(str(run.path))} {files} -o predictions"
