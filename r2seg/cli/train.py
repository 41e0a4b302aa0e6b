"""``r2seg-train``: a run from a config."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from r2seg.cli.frame import DeviceOption, ThreadsOption, command, open_console, say, start


@command
def train(
    config: Annotated[
        Path, typer.Argument(help="YAML file of the experiment, such as configs/lung_r2unet.yaml.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="RUN", help="Run folder; runs/<config name> where it is left out."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a key of the config: --set training.max_epochs=5. Repeatable."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run after its last complete epoch.")] = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check config and data, try one batch, print the plan and stop.")
    ] = False,
) -> None:
    """Train a network from a config and leave a run folder that r2seg-infer takes.

    Shows loss, validation Dice and time left; ends with Dice and IoU of the best checkpoint. Ctrl-C or a crash loses at most
    the current epoch: --resume goes on.

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
        from r2seg.training.plan import plan_training

        say(str(plan_training(settings, resolved)))
        return

    from r2seg.training.progress import progress_for
    from r2seg.training.train import train as run_training

    progress = progress_for(open_console())
    try:
        run = run_training(settings, run_path, resume=resume, device=resolved, progress=progress)
    except KeyboardInterrupt:
        progress.close()
        # With the same overrides: without them it would be another config.
        words = [str(config), "-o", str(run_path), *(word for text in overrides or () for word in ("--set", text))]
        say(f"stopped; go on with: {shlex.join(['r2seg-train', *words, '--resume'])}", error=True)
        raise typer.Exit(130) from None
    finally:
        progress.close()

    from r2seg.training.summary import next_commands, results_table

    open_console().print(results_table(run))
    say(f"run folder: {run.path}")
    for line in next_commands(run):
        say(f"next: {line}")
