"""The evaluate command: which options there are, and which function they go to."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from r2seg.cli.frame import DeviceOption, command, open_console, say, start
from r2seg.errors import UserError

if TYPE_CHECKING:
    from r2seg.evaluation.run_predictions import RunPredictions

_ID = "{id}"
_FORMATS = ("csv", "json", "html")


def _option(group: str, name: str, text: str, metavar: str | None = None, **more: Any) -> Any:
    if metavar == "PATTERN":
        more["show_default"] = False  # {id} in every one
    return typer.Option(name, metavar=metavar, help=text, rich_help_panel=group, **more)


_NAMES, _COUNTED, _CUTS, _OTHERS, _REPORT = (
    "Which files belong together",
    "What is counted",
    "Thresholds of probabilities",
    "Comparisons",
    "The report",
)


@command
def evaluate(
    predictions: Annotated[
        Path,
        typer.Argument(
            metavar="PREDICTIONS",
            help="Folder of label maps; one label map; or a run, to segment and score the cases of REFERENCES.",
            show_default=False,
        ),
    ],
    references: Annotated[
        Path,
        typer.Argument(
            metavar="REFERENCES",
            help="Folder of label maps; one label map; or a config or run, whose layout knows the pairs.",
            show_default=False,
        ),
    ],
    prediction_name: Annotated[
        str, _option(_NAMES, "--prediction-name", "Prediction file names around the id: '{id}_seg'.", "PATTERN")
    ] = _ID,
    reference_name: Annotated[
        str, _option(_NAMES, "--reference-name", "Reference file names around the id: '{id}_1stHO'.", "PATTERN")
    ] = _ID,
    mask_name: Annotated[str, _option(_NAMES, "--mask-name", "File names in --masks around the id.", "PATTERN")] = _ID,
    group: Annotated[
        str | None,
        _option(_NAMES, "--group", "What in an id is the patient, for the intervals: '^(\\d+)'.", "REGEX"),
    ] = None,
    split: Annotated[
        str | None,
        _option(_NAMES, "--split", "Of a run or config: test, validation, train or all [test, or validation].", "PART"),
    ] = None,
    labels: Annotated[
        list[str] | None,
        _option(
            _COUNTED,
            "--label",
            "Name and values of a label; repeatable. All values of the references where none is given.",
            "NAME=VALUE[+VALUE]",
        ),
    ] = None,
    ignore_label: Annotated[
        int | None, _option(_COUNTED, "--ignore-label", "Value in references of pixels that count nowhere.", "N")
    ] = None,
    masks: Annotated[
        Path | None, _option(_COUNTED, "--masks", "Fields of view; pixels outside count nowhere.", "DIR")
    ] = None,
    measures: Annotated[
        str,
        _option(
            _COUNTED,
            "--measures",
            "Comma-separated: all, counts, volumes, surfaces, components, centerlines, probabilities, or single ones.",
            "LIST",
        ),
    ] = "counts,volumes",
    tolerance_mm: Annotated[
        float, _option(_COUNTED, "--tolerance-mm", "Of the surface Dice; pixels for pictures.", "F", min=0.0)
    ] = 1.0,
    missing: Annotated[
        str, _option(_COUNTED, "--missing", "miss: no prediction is an empty one; skip: leave such cases out.", "RULE")
    ] = "miss",
    undeclared: Annotated[
        str, _option(_COUNTED, "--undeclared", "error, or background: what values that are no label are.", "RULE")
    ] = "error",
    resample: Annotated[
        bool, _option(_COUNTED, "--resample", "Bring predictions on another grid to the reference's.")
    ] = False,
    probabilities: Annotated[
        Path | None,
        _option(_CUTS, "--probabilities", "Probability maps [PREDICTIONS/probabilities].", "DIR"),
    ] = None,
    threshold: Annotated[
        float | None,
        _option(_CUTS, "--threshold", "Cut the probabilities here instead of taking the label maps.", "F"),
    ] = None,
    threshold_from: Annotated[
        Path | None,
        _option(_CUTS, "--threshold-from", "Cut where it was best on validation: a run, or such a report.", "PATH"),
    ] = None,
    against: Annotated[
        list[Path] | None, _option(_OTHERS, "--against", "Another method's label maps; repeatable.", "DIR")
    ] = None,
    observer: Annotated[
        Path | None, _option(_OTHERS, "--observer", "A second reference, scored as a row of its own.", "DIR")
    ] = None,
    observer_name: Annotated[
        str, _option(_OTHERS, "--observer-name", "Its file names around the id: '{id}_2ndHO'.", "PATTERN")
    ] = _ID,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="REPORT", help="Folder for the report.", rich_help_panel=_REPORT),
    ] = None,
    formats: Annotated[
        list[str] | None,
        _option(_REPORT, "--format", "csv, json, html, markdown or latex; repeatable [csv, json, html].", "FORMAT"),
    ] = None,
    images: Annotated[
        Path | None, _option(_REPORT, "--images", "Folder of the images, to be shown in report.html.", "DIR")
    ] = None,
    image_name: Annotated[
        str, _option(_REPORT, "--image-name", "Names of their files around the id.", "PATTERN")
    ] = _ID,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", metavar="N", min=1, help="Cases read at once; one a core where it is left out, at most 4."
        ),
    ] = None,
    device: DeviceOption = "auto",
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of the bootstrap's draws.")] = 0,
) -> None:
    """Score label maps against references: Dice, IoU and more per label and case, their means, and pooled over all pixels.

    It reads written files, so it scores any tool's output. File names must agree up to the suffix; what has no partner is
    listed. With a run in place of predictions, its network first segments the cases of the config, which may be of another
    data set, with the run's own preprocessing.

    Example: r2seg-evaluate predictions/ sample_data/lung/labels -o report
    """
    from r2seg.case_sets import cases_of, names_cases
    from r2seg.run import CONFIG

    run = predictions if (predictions / CONFIG).is_file() else None
    knows = references if names_cases(references) else None
    for option, given, allowed, goes_with in (
        ("--mask-name", mask_name != _ID, masks, "--masks DIR"),
        ("--image-name", image_name != _ID, images, "--images DIR"),
        ("--observer-name", observer_name != _ID, observer, "--observer DIR"),
        ("--format", formats, output, "-o REPORT, where the files are written"),
        ("--threshold", threshold is not None, threshold_from is None, "no --threshold-from: both say where to cut"),
        ("--split", split, knows, f"a run or a config, and {references} is neither"),
        (f"{run}, a run,", run, knows, f"a config or run that knows images and labels, not with {references}"),
        ("--label", labels, not knows, f"a folder of references: {references} knows its labels"),
        ("--ignore-label", ignore_label is not None, not knows, f"a folder of references: {references} knows its own"),
        ("--reference-name", reference_name != _ID, not knows, f"a folder of references: {references} knows its files"),
        ("--prediction-name", prediction_name != _ID, not run, f"a folder of predictions, and {run} is a run"),
        ("--probabilities", probabilities, not run, f"a folder of predictions: the run {run} makes its own"),
    ):
        if given and not allowed:
            raise UserError(f"{option} goes with {goes_with}")
    options: dict[str, Any] = {
        "labels": _parse_labels(labels) if labels else None,
        "ignore_label": ignore_label,
        "masks": masks,
        "prediction_name": prediction_name,
        "reference_name": reference_name,
        "mask_name": mask_name,
        "group": group,
        "measures": [name.strip() for name in measures.split(",")],
        "missing": missing,
        "undeclared": undeclared,
        "resample": resample,
        "tolerance_mm": tolerance_mm,
        "probabilities": probabilities,
        "threshold": threshold if threshold_from is None else threshold_from,
        "against": against or (),
        "observer": observer,
        "observer_name": observer_name,
        "images": images,
        "image_name": image_name,
        "workers": workers,
        "seed": seed,
    }
    chosen = cases_of(references, split) if knows else None
    if chosen is not None:
        data = chosen.config.data
        options |= {"labels": data.labels, "ignore_label": data.ignore_label, "provenance": {"references": str(chosen)}}

    from r2seg.evaluation.evaluate import check_options
    from r2seg.evaluation.evaluate import evaluate as score
    from r2seg.evaluation.report import check_output

    formats = tuple(dict.fromkeys(formats or _FORMATS))
    check_output(output, formats)
    needs_probabilities = check_options(**options)
    resolved = start(device, None)
    options["device"] = str(resolved)
    failed = False
    with ExitStack() as stack:
        if run is not None:
            from r2seg.evaluation.run_predictions import RunPredictions

            folder = output or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="r2seg-")))
            made = RunPredictions.plan(run, chosen, folder / "predictions")
            say(f"segmenting {chosen} with {run}")
            failed = _segment(made, resolved, needs_probabilities)
            predictions = made.folder
            options |= made.options
        elif chosen is not None:
            say(f"scoring {chosen}")
        with _scoring_bar() as progress:
            report = score(predictions, chosen.cases if chosen else references, progress=progress, **options)
        open_console().print(report.terminal())
        if output is not None:
            say(f"written: {', '.join(map(str, report.write(output, formats)))}")
    if failed:
        raise typer.Exit(1)


def _parse_labels(given: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Labels of NAME=VALUE[+VALUE] words."""
    labels: dict[str, tuple[int, ...]] = {}
    for text in given:
        name, _, values = text.partition("=")
        try:
            parsed = tuple(int(value) for value in values.split("+"))
        except ValueError:
            parsed = ()
        if not name or not parsed or name in labels:
            twice = f"{name} is named twice; " if name in labels else ""
            raise UserError(f"--label {text}: {twice}write NAME=VALUE, or NAME=VALUE+VALUE, such as lung=1")
        labels[name] = parsed
    return labels


def _segment(made: RunPredictions, device: Any, probabilities: bool) -> bool:
    """Segments with progress; whether a case failed."""
    from r2seg.inference.progress import inference_progress

    with inference_progress(open_console(), len(made.jobs)) as progress:
        outcomes = made.segment(
            device, probabilities=probabilities, on_progress=progress.share, on_outcome=progress.outcome
        )
    return any(outcome.error for outcome in outcomes)


@contextmanager
def _scoring_bar() -> Iterator[Callable[[int, int], None] | None]:
    """A live bar of the cases that are scored, on a terminal; nothing elsewhere."""
    console = open_console()
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("scoring"), BarColumn(bar_width=None), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("scoring", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
