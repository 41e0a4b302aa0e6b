"""The commands. Each is one public function with options; torch and monai are imported only when one runs."""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from r2seg.errors import UserError

if TYPE_CHECKING:
    import torch
    from rich.console import Console

DeviceOption = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps; auto takes a GPU where there is one.")
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads; all cores where it is left out.")
]


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def _say(text: str, *, error: bool = False) -> None:
    _console(error).print(text, markup=False, soft_wrap=True)


def _command(function: Callable[..., None]) -> Callable[..., None]:
    """A command whose user's mistakes end with one line and exit status 2, and whose interruption is no traceback."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        # A scheduler's SIGTERM ends a run as Ctrl-C does: the last checkpoint is whole, bars are put away.
        signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        try:
            function(*args, **kwargs)
        except UserError as error:
            for line in str(error).splitlines():
                _say(f"error: {line}", error=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            _say("stopped", error=True)
            raise typer.Exit(130) from None
        except BrokenPipeError:  # the reader, such as head, has gone
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None

    return run


def _start(device: str, threads: int | None) -> torch.device:
    """Sets threads, resolves and announces the device."""
    import logging

    import torch

    from r2seg.inference.devices import describe_device, resolve_device, why_no_cuda

    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("r2seg").setLevel(logging.INFO)
    if threads is not None:
        torch.set_num_threads(threads)
    resolved = resolve_device(device)
    if device == "auto" and resolved.type == "cpu" and (reason := why_no_cuda()):
        _say(f"warning: {reason}", error=True)
    _say(f"device {describe_device(resolved)}")
    return resolved


@_command
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
    resolved = _start(device, threads)
    if dry_run:
        from r2seg.training.plan import plan_training

        _say(str(plan_training(settings, resolved)))
        return

    from r2seg.training.progress import progress_for
    from r2seg.training.train import train as run_training

    progress = progress_for(_console())
    try:
        run = run_training(settings, run_path, resume=resume, device=resolved, progress=progress)
    except KeyboardInterrupt:
        progress.close()
        _say(
            f"stopped; what is done is in {run_path}; go on with: r2seg-train {config} -o {run_path} --resume",
            error=True,
        )
        raise typer.Exit(130) from None
    finally:
        progress.close()

    from r2seg.training.summary import next_commands, results_table

    _console().print(results_table(run))
    _say(f"run folder: {run.path}")
    for command in next_commands(run):
        _say(f"next: {command}")


@_command
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
    resolved = _start(device, threads)

    from r2seg.inference.batch import infer as infer_jobs
    from r2seg.inference.batch import plan_case_jobs, plan_jobs
    from r2seg.inference.progress import inference_progress
    from r2seg.inference.segmenter import Segmenter

    if split is None:
        jobs = plan_jobs(inputs, output, opened.manifest["in_channels"])
    else:
        jobs = plan_case_jobs(cases_of(run, split).cases, output)
    segmenter = Segmenter.from_run(run, resolved, overlap=overlap, batch_size=batch_size)
    with inference_progress(_console(), len(jobs)) as progress:
        outcomes = infer_jobs(
            segmenter, jobs, probabilities=probabilities, on_progress=progress.share, on_outcome=progress.outcome
        )
    failed = [outcome for outcome in outcomes if outcome.error]
    _say(f"{len(outcomes) - len(failed)} of {len(outcomes)} cases written to {output}")
    if failed:
        raise typer.Exit(1)


@_command
def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Folder of label maps, or one label map.", show_default=False)],
    references: Annotated[
        Path,
        typer.Argument(
            help="Folder of label maps, one label map, a run, or a config, whose layout knows the pairs.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="REPORT", help="Folder for cases.csv and summary.json.")
    ] = None,
    masks: Annotated[
        Path | None, typer.Option("--masks", metavar="DIR", help="Fields of view; pixels outside are not counted.")
    ] = None,
    reference_name: Annotated[
        str,
        typer.Option("--reference-name", metavar="PATTERN", help="Reference file names around the id: '{id}_1stHO'."),
    ] = "{id}",
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="PART",
            help="With a run or a config: score its test, validation or train cases, or all; test where it is left out.",
        ),
    ] = None,
    missing: Annotated[
        str,
        typer.Option(
            "--missing", help="miss: a case without prediction counts as nothing predicted; skip: leave it out."
        ),
    ] = "miss",
) -> None:
    """Score label maps against references: Dice, IoU and more per label and case, their means, and pooled over all pixels.

    It reads written files, so it scores any tool's output. Stems must match; what has no partner is listed.

    Example: r2seg-evaluate predictions/ sample_data/lung/labels -o report
    """
    from r2seg.evaluation.evaluate import evaluate as score
    from r2seg.run import cases_of, names_cases

    options: dict[str, Any] = {"missing": missing, "masks": masks, "reference_name": reference_name}
    if names_cases(references):
        chosen = cases_of(references, split)
        _say(f"scoring {chosen}")
        data = chosen.config.data
        report = score(predictions, chosen.cases, labels=data.labels, ignore_label=data.ignore_label, **options)
    elif split is not None:
        raise UserError(f"--split {split} goes with a run or a config, and {references} is neither")
    else:
        report = score(predictions, references, **options)
    _console().print(report.terminal())
    if output is not None:
        written = report.write(output, ("csv", "json"))
        _say(f"written: {', '.join(map(str, written))}")


@_command
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
    _say(f"run folder: {run.path} ({run.config.network.name}, {run.config.network.output})")
    _say(f"next: r2seg-infer {run.path} INPUT... -o OUT")


_APP_OPTIONS = {"add_completion": False, "rich_markup_mode": None, "pretty_exceptions_enable": False}
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


def _app_of(*commands: Callable[..., None]) -> typer.Typer:
    app = typer.Typer(context_settings=_CONTEXT, no_args_is_help=True, **_APP_OPTIONS)
    for command in commands:
        app.command(context_settings=_CONTEXT, no_args_is_help=True)(command)
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


if __name__ == "__main__":
    main()
