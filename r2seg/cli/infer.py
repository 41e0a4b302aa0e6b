"""``r2seg-infer``: label maps of images, from a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from r2seg.cli.frame import DeviceOption, ThreadsOption, command, open_console, parse_series, say, start
from r2seg.errors import UserError

if TYPE_CHECKING:
    from r2seg.inference.batch import Job, Outcome
    from r2seg.inference.segmenter import Segmenter


@command
def infer(
    run: Annotated[Path, typer.Argument(help="Run folder that r2seg-train made.", show_default=False)],
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="INPUT...",
            help="Images, or folders of images or DICOM series (subfolders too).",
            show_default=False,
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
            help="Overlap of windows as a fraction of the window; default: the run's.",
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Windows per call of the network; default: the run's.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision", help="auto, float32, bf16 or fp16; default: infer.precision of the run.", show_default=False
        ),
    ] = None,
    series: Annotated[
        list[str] | None,
        typer.Option(
            "--series",
            metavar="NUMBER|UID",
            help="DICOM series to take from folders that hold several. Repeatable.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split", metavar="PART", help="Instead of INPUT: the run's own cases, test, validation, train or all."
        ),
    ] = None,
) -> None:
    """Segment images with a trained run: label maps on the images' own grids, with their own headers.

    Relative paths, names and formats are kept (jpg gives png). Files that differ only in _0000, _0001, ... are the channels of
    one case. A folder with the slices of a DICOM series is one image, and its label map NAME.nii.gz. A case that fails is reported with
    its reason and the others continue; the exit status is then 1. Each case's line says how much of each label was found; an empty label
    map and intensities unlike those of the training are warned of. OUT/outcomes.json holds the same.

    Example: r2seg-infer runs/lung_r2unet scans/ -o out/
    """
    from r2seg.case_sets import cases_of
    from r2seg.config import HeldOut
    from r2seg.run import Run

    opened = Run.open(run)  # fails early, before torch is loaded, if the folder is not a run folder
    if bool(inputs) == (split is not None):
        raise UserError("name images or folders to segment, or --split test for the run's own test cases")
    if series and split is not None:
        raise UserError("--series goes with INPUT: the run's own cases are read by data.series of its config")
    resolved = start(device, threads)

    from r2seg.inference.batch import plan_case_jobs, plan_jobs
    from r2seg.inference.outcomes import OUTCOMES, refuse_data_files
    from r2seg.inference.segmenter import Segmenter

    data = opened.config.data
    roots = [data.root, *([data.split.test.root] if isinstance(data.split.test, HeldOut) else [])]
    references = [root / name for root in roots for name in ("labels", "masks", "SegmentationClass")]
    if split is None:
        channels = opened.in_channels
        jobs = plan_jobs(
            inputs or (),
            output,
            channels,
            probabilities=probabilities,
            protected=references,
            series=parse_series(series),
        )
    else:
        own = opened.config.data.series
        jobs = plan_case_jobs(
            cases_of(run, split).cases, output, probabilities=probabilities, protected=references, series=own
        )
    refuse_data_files(output, jobs, roots)
    segmenter = Segmenter.from_run(run, resolved, overlap=overlap, batch_size=batch_size, precision=precision)
    outcomes = _segment_all(segmenter, jobs, output, probabilities)
    failed = sum(outcome.error is not None for outcome in outcomes)
    warned = sum(bool(outcome.warnings) for outcome in outcomes)
    listed = output / OUTCOMES
    say(
        f"{len(outcomes) - failed} of {len(outcomes)} cases written to {output}"
        + (f", {warned} with warnings" if warned else "")
        + (f"; {listed} lists them" if warned and listed.is_file() else "")
    )
    if failed:
        raise typer.Exit(1)


def _segment_all(segmenter: Segmenter, jobs: Sequence[Job], output: Path, probabilities: bool) -> list[Outcome]:
    """Segments every case with progress on the terminal; what became of them is also written to an output folder."""
    from r2seg.inference.batch import infer
    from r2seg.inference.outcomes import write_outcomes
    from r2seg.inference.progress import inference_progress

    done: list[Outcome] = []
    try:
        with inference_progress(open_console(), len(jobs)) as progress:

            def finish(outcome: Outcome) -> None:
                done.append(outcome)
                progress.outcome(outcome)

            infer(segmenter, jobs, probabilities=probabilities, on_progress=progress.share, on_outcome=finish)
    except KeyboardInterrupt:
        say(f"stopped after {len(done)} of {len(jobs)} cases", error=True)
        raise typer.Exit(130) from None
    finally:
        if done and output not in [job.output for job in jobs]:  # not a single file
            write_outcomes(output, done)
    return done
