"""``r2seg-evaluate``: label maps, or a run, against references.

The options of the evaluation itself are declared in evaluation/options.py; here are only those that the command adds.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from r2seg.cli.frame import DeviceOption, command, counting_bar, open_console, parse_series, say, start
from r2seg.errors import UserError
from r2seg.evaluation.options import DECLARED, FILES, HEADINGS, ID, REPORT, THRESHOLDS, EvaluationOptions
from r2seg.evaluation.write import DEFAULT_FORMATS, FORMATS, check_output, write_report

if TYPE_CHECKING:
    from r2seg.evaluation.run_predictions import RunPredictions


@dataclass(frozen=True)
class Typed:
    """How an option is typed on the command line if its Python type cannot be typed there.

    Attributes:
        kind: What typer reads; lists are options that may be repeated.
        default: Before it is parsed.
        parse: What was typed -> the option's value.
    """

    kind: Any
    default: Any
    parse: Callable[[Any], Any]


def _parse_labels(given: Sequence[str] | None) -> dict[str, tuple[int, ...]] | None:
    """Labels of NAME=VALUE[+VALUE] words."""
    labels: dict[str, tuple[int, ...]] = {}
    for text in given or ():
        name, _, values = text.partition("=")
        try:
            parsed = tuple(int(value) for value in values.split("+"))
        except ValueError:
            parsed = ()
        if not name or not parsed or name in labels:
            twice = f"{name} is named twice; " if name in labels else ""
            raise UserError(f"--label {text}: {twice}write NAME=VALUE, or NAME=VALUE+VALUE, such as lung=1")
        labels[name] = parsed
    return labels or None


TYPED = {
    "labels": Typed(list[str] | None, None, _parse_labels),
    "ignore_label": Typed(int | None, None, lambda number: number),
    "measures": Typed(
        str, ",".join(EvaluationOptions.measures), lambda text: [name.strip() for name in text.split(",")]
    ),
    "threshold": Typed(float | None, None, lambda number: number),
    "series": Typed(list[str] | None, None, parse_series),
    "against": Typed(list[Path] | None, None, lambda folders: folders or ()),
}


def with_evaluation_options(function: Callable[..., None]) -> Callable[..., None]:
    """The function, its ``**typed`` replaced by one parameter for each declared option that has a heading."""
    kinds = get_type_hints(EvaluationOptions)
    parameters = []
    for each in fields(EvaluationOptions):
        about = DECLARED[each.name]
        if about.heading is None:
            continue
        typed = TYPED.get(each.name) or Typed(kinds[each.name], each.default, lambda value: value)
        repeatable = typed.kind in (list[str] | None, list[Path] | None)
        option = typer.Option(
            about.flag or f"--{each.name.replace('_', '-')}",
            metavar=about.metavar,
            help=f"{about.help} Repeatable." if repeatable else about.help,
            min=about.minimum,
            show_default=about.metavar != "PATTERN",  # {id} in every one
            rich_help_panel=about.heading,
        )
        parameters.append(
            inspect.Parameter(
                each.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=typed.default,
                annotation=Annotated[typed.kind, option],
            )
        )
    signature = inspect.signature(function, eval_str=True)
    own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    every = sorted([*own, *parameters], key=_place_in_help)
    function.__signature__ = signature.replace(parameters=every)  # type: ignore[attr-defined]
    return function


def _place_in_help(parameter: inspect.Parameter) -> int:
    """Arguments first, then the options below their headings; sorted by this, the order within a heading stays."""
    if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
        return -1
    (option,) = parameter.annotation.__metadata__
    return HEADINGS.index(option.rich_help_panel or HEADINGS[-1])


@command
@with_evaluation_options
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
            help="Folder of label maps; one label map; or a config or run, which knows where its cases are.",
            show_default=False,
        ),
    ],
    *,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="PART",
            help="Cases of a run or config: test, validation, train or all [default: test, or validation without test].",
            rich_help_panel=FILES,
        ),
    ] = None,
    threshold_from: Annotated[
        Path | None,
        typer.Option(
            "--threshold-from",
            metavar="PATH",
            help="Run, or report with probabilities scored, whose thresholds were best on validation cases.",
            rich_help_panel=THRESHOLDS,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="REPORT", help="Folder for the report.", rich_help_panel=REPORT),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help=f"{', '.join(FORMATS)}. Repeatable [default: {', '.join(DEFAULT_FORMATS)}].",
            rich_help_panel=REPORT,
        ),
    ] = None,
    device: DeviceOption = "auto",
    **typed: Any,
) -> None:
    """Score label maps against references: Dice, IoU and more per label and case, their means, and pooled over all pixels.

    It reads written files, so it scores any tool's output. File names must agree up to the suffix; files without a partner
    are listed. With a run in place of predictions, its network first segments the cases of the config, which may belong to
    another data set, with the run's own preprocessing.

    Example: r2seg-evaluate predictions/ sample_data/lung/labels -o report
    """
    from r2seg.case_sets import cases_of, names_cases
    from r2seg.run import CONFIG

    run = predictions if (predictions / CONFIG).is_file() else None
    knows = references if names_cases(references) else None
    _check_combinations(
        typed | {"split": split, "threshold_from": threshold_from, "output": output, "formats": formats},
        run=run,
        knows=knows,
        references=references,
    )
    typed |= {name: TYPED[name].parse(typed[name]) for name in TYPED}
    if threshold_from is not None:
        typed["threshold"] = threshold_from
    chosen = cases_of(references, split) if knows else None
    if chosen is not None:
        data = chosen.config.data
        typed |= {
            "labels": data.labels,
            "ignore_label": data.ignore_label,
            "series": data.series,
            "overlapping": data.overlapping,
            "provenance": {
                "references": str(chosen),
                "preprocessing": chosen.config.preprocessing.model_dump(mode="json"),
            },
        }
    written_as = tuple(dict.fromkeys(formats or DEFAULT_FORMATS))
    check_output(output, written_as)
    options = EvaluationOptions(**typed)

    from r2seg.evaluation.evaluate import evaluate as score
    from r2seg.evaluation.summary import summarize
    from r2seg.evaluation.tables import terminal

    resolved = start(device, None)
    options = replace(options, device=str(resolved))
    failed = False
    with ExitStack() as stack:
        if run is not None and chosen is not None:
            from r2seg.evaluation.run_predictions import RunPredictions

            folder = output or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="r2seg-")))
            made = RunPredictions.plan(run, chosen, folder / "predictions")
            say(f"segmenting {chosen} with {run}")
            failed = _segment(made, resolved, options.uses_probabilities)
            predictions, options = made.folder, made.scored_with(options)
        elif chosen is not None:
            say(f"scoring {chosen}")
        with counting_bar("scoring") as progress:
            report = score(predictions, chosen.cases if chosen else references, options, progress=progress)
        summary = summarize(report)
        open_console().print(terminal(summary))
        if output is not None:
            say(f"written: {', '.join(map(str, write_report(report, output, written_as, summary=summary)))}")
    if failed:
        raise typer.Exit(1)


def _check_combinations(typed: dict[str, Any], *, run: Path | None, knows: Path | None, references: Path) -> None:
    """Refuses options that would be without effect.

    Args:
        typed: All options as they were typed.
        run: The predictions, if they are a run.
        knows: The references, if they are a config or run.
        references: The references.
    """
    if typed["threshold"] is not None and typed["threshold_from"] is not None:
        raise UserError("--threshold cannot be combined with --threshold-from: both say where to cut")
    renamed = {name for name in typed if name.endswith("_name") and typed[name] != ID}
    for option, given, allowed, goes_with in (
        ("--mask-name", "mask_name" in renamed, typed["masks"], "--masks DIR"),
        ("--image-name", "image_name" in renamed, typed["images"], "--images DIR"),
        ("--observer-name", "observer_name" in renamed, typed["observer"], "--observer DIR"),
        ("--format", typed["formats"], typed["output"], "-o REPORT, where the files are written"),
        ("--split", typed["split"], knows, f"a run or a config, and {references} is neither"),
        (f"{run}, a run,", run, knows, f"a config or run that knows images and labels, not with {references}"),
        ("--label", typed["labels"], not knows, f"a folder of references: {references} knows its labels"),
        ("--ignore-label", typed["ignore_label"] is not None, not knows, f"a folder of references: {references} knows its own"),
        ("--series", typed["series"], typed["images"] and not knows, "--images DIR: a config or run has data.series"),
        ("--overlapping", typed["overlapping"], not knows, f"a folder of references: {references} knows its own"),
        ("--reference-name", "reference_name" in renamed, not knows, f"a folder of references: {references} knows its files"),
        ("--prediction-name", "prediction_name" in renamed, not run, f"a folder of predictions, and {run} is a run"),
        ("--probabilities", typed["probabilities"], not run, f"a folder of predictions: the run {run} makes its own"),
    ):  # fmt: skip
        if given and not allowed:
            raise UserError(f"{option} goes with {goes_with}")


def _segment(made: RunPredictions, device: Any, probabilities: bool) -> bool:
    """Segments and shows the progress; returns whether a case failed."""
    from r2seg.inference.progress import inference_progress

    with inference_progress(open_console(), len(made.jobs)) as progress:
        outcomes = made.segment(
            device, probabilities=probabilities, on_progress=progress.share, on_outcome=progress.outcome
        )
    return any(outcome.error for outcome in outcomes)
