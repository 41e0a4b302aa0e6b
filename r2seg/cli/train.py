"""``r2seg-train``: trains a network from a config and leaves a run folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from r2seg.cli.frame import DeviceOption, ThreadsOption, command, counting_bar, open_console, say, start

if TYPE_CHECKING:
    from rich.table import Table

    from r2seg.run import Run


@command
def train(
    config: Annotated[
        Path, typer.Argument(help="YAML file of the experiment, such as configs/lung_r2unet.yaml.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="RUN", help="Run folder. [default: runs/<name of the config>]"),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a key of the config: --set training.max_epochs=5. Repeatable."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run after its last complete epoch.")] = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check config and data, try two training steps, print the plan and stop.")
    ] = False,
) -> None:
    """Train a network from a config and leave a run folder that r2seg-infer takes.

    Shows loss, validation Dice and time left, and at the end Dice and IoU of the best checkpoint. Ctrl-C or a crash loses at
    most the current epoch: run the same command again with --resume.

    Example: r2seg-train configs/lung_r2unet.yaml --set training.max_epochs=5
    """
    from r2seg.config import load_config

    settings = load_config(config, overrides or (), require_data=True)
    run_path = output or Path("runs") / settings.name
    if not (resume or dry_run):
        from r2seg.run import refuse_used

        refuse_used(run_path)
    resolved = start(device, threads)
    if dry_run:
        from r2seg.data_check.tables import data_table
        from r2seg.training.plan import plan_training

        with counting_bar("checking the data") as bar:
            plan = plan_training(settings, resolved, bar)
        open_console().print(data_table(plan.check))
        say(str(plan))
        return

    from r2seg.training.progress import progress_for
    from r2seg.training.train import train as run_training

    progress = progress_for(open_console())
    try:
        run = run_training(settings, run_path, resume=resume, device=resolved, progress=progress)
    except KeyboardInterrupt:
        progress.close()
        # With the same overrides, or it would be another config; with the same device and threads, or the last bits would differ.
        words = [str(config), "-o", str(run_path), *(word for text in overrides or () for word in ("--set", text))]
        words += ["--device", device] if device != "auto" else []
        words += ["--threads", str(threads)] if threads is not None else []
        say(f"stopped; continue with: {shlex.join(['r2seg-train', *words, '--resume'])}", error=True)
        raise typer.Exit(130) from None
    finally:
        progress.close()

    if run.manifest["results"]:
        open_console().print(_results_table(run))
    say(f"run folder: {run.path}")
    path = shlex.quote(str(run.path))
    part = next((part for part in ("test", "validation") if run.splits[part]), None)
    if part is None:
        say(f"next: r2seg-infer {path} IMAGES -o predictions (all cases trained the run, so none is left to score it)")
        return
    say(f"next: r2seg-infer {path} --split {part} -o predictions")
    say(f"next: r2seg-evaluate predictions {path} -o report")


def _results_table(run: Run) -> Table:
    """Dice and IoU per part and label of a finished run."""
    from rich.table import Table

    manifest = run.manifest
    best = manifest["best"]
    chosen = (
        f"last epoch, {best['epoch']}, without validation"
        if "chosen_by" in best
        else f"best checkpoint, epoch {best['epoch']}"
    )
    table = Table(title=f"{run.config.name}: {chosen}", title_justify="left")
    for column in ("cases", "label", "Dice", "IoU", "scored"):
        table.add_column(column, justify="left" if column in ("cases", "label") else "right")
    for part, scores in manifest["results"].items():
        for label, score in scores.items():
            numbers = ["-" if score[name] is None else f"{score[name]:.4f}" for name in ("dice", "iou")]
            empty = f" ({score['num_empty']} empty)" if score["num_empty"] else ""
            table.add_row(part, label, *numbers, f"{score['num_scored']}{empty}")
    return table
