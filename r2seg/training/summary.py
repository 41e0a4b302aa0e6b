"""What is printed at the end of a training: scores of the best checkpoint and the command to type next."""

from __future__ import annotations

import shlex

from rich.table import Table

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


def next_commands(run: Run) -> list[str]:
    """What to type next: segment the held-out cases and score them."""
    path = shlex.quote(str(run.path))
    part = "test" if run.splits["test"] else "validation"
    return [f"r2seg-infer {path} --split {part} -o predictions", f"r2seg-evaluate predictions {path} -o report"]
