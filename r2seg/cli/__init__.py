"""The commands. Each is one public function with options; torch and monai are imported only when one runs."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from r2seg.cli.evaluation import evaluate
from r2seg.cli.frame import DeviceOption, GroupedHelp, ThreadsOption, command, open_console, say, start
from r2seg.errors import UserError


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


@command
def infer(
    run: Annotated[Path, typer.Argument(help="Run folder that r2seg-train made.", show_default=False)],
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="INPUT...", help="Images, or folders of them (searched below themselves).", show_default=False
        ),
    ] = None,
    *,
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT",
            help="Folder for the label maps; or a file, for one input.",
            show_default=False,
        ),
    ],
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    probabilities: Annotated[
        bool,
        typer.Option(
            "--probabilities", help="Also write OUT/probabilities/NAME (uint16, scale 1/65535, classes last)."
        ),
    ] = False,
    overlap: Annotated[
        float | None,
        typer.Option(
            "--overlap",
            min=0.0,
            max=0.95,
            help="Overlap of windows as a share of the window; the run's where it is left out.",
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Windows at a time; the run's where it is left out.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split", metavar="PART", help="Instead of INPUT: the run's own test, validation, train or all cases."
        ),
    ] = None,
) -> None:
    """Segment images with a trained run: label maps on the images' own grids, with their own headers.

    Relative paths, names and formats are kept (jpg gives png). Files that differ only in _0000, _0001, ... are the channels of
    one case. A case that fails is named with its reason and the others go on; the exit status is then 1.

    Example: r2seg-infer runs/lung_r2unet scans/ -o out/
    """
    from r2seg.run import Run, cases_of

    opened = Run.open(run)  # a wrong folder is told before torch is loaded
    if bool(inputs) == (split is not None):
        raise UserError("name images or folders to segment, or --split test for the run's own test cases")
    resolved = start(device, threads)

    from r2seg.inference.batch import infer as infer_jobs
    from r2seg.inference.batch import plan_case_jobs, plan_jobs
    from r2seg.inference.progress import inference_progress
    from r2seg.inference.segmenter import Segmenter

    references = [opened.config.data.root / name for name in ("labels", "masks", "SegmentationClass")]
    safely = {"probabilities": probabilities, "protected": references}
    if split is None:
        jobs = plan_jobs(inputs, output, opened.manifest["in_channels"], **safely)
    else:
        jobs = plan_case_jobs(cases_of(run, split).cases, output, **safely)
    segmenter = Segmenter.from_run(run, resolved, overlap=overlap, batch_size=batch_size)
    progress = None
    try:
        with inference_progress(open_console(), len(jobs)) as progress:
            outcomes = infer_jobs(
                segmenter, jobs, probabilities=probabilities, on_progress=progress.share, on_outcome=progress.outcome
            )
    except KeyboardInterrupt:
        say(f"stopped after {progress.done if progress else 0} of {len(jobs)} cases", error=True)
        raise typer.Exit(130) from None
    failed = [outcome for outcome in outcomes if outcome.error]
    say(f"{len(outcomes) - len(failed)} of {len(outcomes)} cases written to {output}")
    if failed:
        raise typer.Exit(1)


@command
def convert_weights(
    weights: Annotated[Path, typer.Argument(help="File that the original repository saved.", show_default=False)],
    origin: Annotated[
        str,
        typer.Option("--origin", help="leejunhyun, backboned-unet, ternausnet or csail-upernet.", show_default=False),
    ],
    config: Annotated[
        Path,
        typer.Option(
            "--config",
            help="YAML file with the labels, preprocessing and window it was trained with.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="RUN", help="Run folder to make.", show_default=False)
    ],
    volumes: Annotated[
        bool, typer.Option("--volumes/--pictures", help="Whether it will segment slices of volumes, or pictures.")
    ] = False,
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=1, help="leejunhyun: the t of R2U_Net, where the weights do not tell it."),
    ] = None,
) -> None:
    """Turn weights trained with an original repository into a run that r2seg-infer takes.

    Example: r2seg convert-weights R2U_Net.pth --origin leejunhyun --config skin.yaml -o runs/old_skin
    """
    from r2seg.config import load_config
    from r2seg.inference.convert import convert_weights as convert

    run = convert(
        weights,
        load_config(config),
        output,
        origin=origin,
        image_dims=3 if volumes else 2,
        options={} if steps is None else {"steps": steps},
    )
    say(f"run folder: {run.path} ({run.config.network.name}, {run.config.network.output})")
    say(f"next: r2seg-infer {run.path} INPUT... -o OUT")


_APP_OPTIONS = {"add_completion": False, "rich_markup_mode": None, "pretty_exceptions_enable": False}
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


def _app_of(*commands: Callable[..., None]) -> typer.Typer:
    app = typer.Typer(context_settings=_CONTEXT, no_args_is_help=True, **_APP_OPTIONS)
    for function in commands:
        app.command(cls=GroupedHelp, context_settings=_CONTEXT, no_args_is_help=True)(function)
    return app


def _version(value: bool) -> None:
    if value:
        from r2seg import __version__

        typer.echo(f"r2seg {__version__}")
        raise typer.Exit


def main() -> None:
    """``r2seg COMMAND``."""
    app = _app_of(train, infer, evaluate, convert_weights)

    @app.callback()
    def about(
        version: Annotated[
            bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
        ] = False,
    ) -> None:
        """Medical image segmentation with R2U-Net and its kin, on MONAI."""

    app()


def train_main() -> None:
    """``r2seg-train``."""
    _app_of(train)()


def infer_main() -> None:
    """``r2seg-infer``."""
    _app_of(infer)()


def evaluate_main() -> None:
    """``r2seg-evaluate``."""
    _app_of(evaluate)()
