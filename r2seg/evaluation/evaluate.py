"""Scores prediction files against reference files, from folders to a Report: read on one case at a time, from top to bottom.

Which files belong together is decided in pairing.py, one case is scored in scoring.py, what is measured is in
metrics/catalogue.py, and what becomes of the report in summary.py and write.py.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from r2seg import __version__
from r2seg.data.cases import Case
from r2seg.devices import resolve_device
from r2seg.errors import UserError, some
from r2seg.evaluation.labels import ANY_VALUE, find_labels, score_by_value
from r2seg.evaluation.options import EvaluationOptions
from r2seg.evaluation.pairing import PROBABILITIES, find_targets, pair_predictions
from r2seg.evaluation.results import Method, Report, Row, Target
from r2seg.evaluation.scoring import Job
from r2seg.metrics import Histogram, LevelCounts, add_histograms
from r2seg.metrics.catalogue import MEASURES
from r2seg.metrics.probabilities import joined, with_levels
from r2seg.workers import Progress, in_order

Pooled = dict[tuple[str, str], Histogram]
PooledByGroup = dict[tuple[str, str], dict[str, LevelCounts]]
_LEVELS_PER_GROUP = 4096  # 100 KB per method, label and group


def evaluate(
    predictions: Path | str,
    references: Path | str | Sequence[Case],
    options: EvaluationOptions | None = None,
    *,
    progress: Progress | None = None,
) -> Report:
    """Scores predictions against references, by method, label and case.

    Files are read in their own grid, and one case at a time by each worker, so a thousand volumes need the memory of a few.
    All names, labels and grids are checked before the first pixel is scored.

    Args:
        predictions: Folder of label maps, searched with its subfolders (except for the probability maps that inference
            writes); or one label map against one.
        references: Folder of label maps, one label map, or the cases of a config, whose observers are scored too, unless
            ``options`` names another one.
        options: What is counted and how; see `EvaluationOptions` for all of them and their defaults.
        progress: Called with the number of cases done and of all cases.

    Raises:
        UserError: Names, labels, grids or options do not fit together; one line that names the files.
    """
    options = options or EvaluationOptions()
    predictions = Path(predictions)
    references = Path(references) if isinstance(references, str | Path) else references

    targets = find_targets(references, options, without=[predictions, *options.against])
    methods = _methods(predictions, targets, options)
    if options.observer is None and not isinstance(references, Path):
        methods += _observers_of(references)
    if options.missing == "skip":
        covered = set().union(*(method.files for method in methods))
        targets = [target for target in targets if target.case in covered]
    thresholds = options.read_thresholds()
    num_oracle_cases = 0 if thresholds is None else len(thresholds.chosen_on(target.reference for target in targets))
    if num_oracle_cases:
        methods = [replace(method, name=f"{method.name} (oracle threshold)") for method in methods]
    if options.uses_probabilities:
        methods = [_with_probabilities(method, targets, options) for method in methods]

    job = Job(
        options=options,
        labels=options.labels or ANY_VALUE,
        measures=tuple(options.measures),
        methods=tuple(methods),
        thresholds=thresholds,
        device=resolve_device(options.device),
    )
    job, distances_in = _for_grids(job, targets)
    rows: Iterable[Row] | None = None
    if options.labels is None:
        labels, rows = score_by_value(job, targets, progress) or (find_labels(targets, options), None)
        job = replace(job, labels=labels)
    if thresholds is not None:
        job = replace(job, thresholds=replace(thresholds, values=thresholds.for_labels(job.labels)))
    if rows is None:
        rows = (row for of_case in in_order(job.score, targets, options.workers, progress) for row in of_case)
    kept, histograms, group_histograms = _gathered(rows)

    return Report(
        options=options,
        references=str(references) if isinstance(references, Path) else f"{len(references)} cases of a config",
        labels=job.labels,
        measures=job.measures,
        methods=job.methods,
        targets={target.case: target for target in targets},
        thresholds=job.thresholds,
        num_oracle_cases=num_oracle_cases,
        distances_in=distances_in,
        rows=kept,
        histograms=histograms,
        group_histograms=group_histograms,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=_versions(),
    )


def _methods(predictions: Path, targets: Sequence[Target], options: EvaluationOptions) -> list[Method]:
    """All methods with their files; their names are the shortest ends of paths that differ."""
    folders = [predictions, *options.against]
    twice = [folder for index, folder in enumerate(folders) if folder.resolve() in map(Path.resolve, folders[:index])]
    if twice:
        raise UserError(f"{twice[0]} is given twice: a method always agrees with itself")
    names: list[str] = []
    length = 0
    while len(set(names)) < len(folders):
        length += 1
        names = ["/".join(folder.resolve().parts[-length:]) for folder in folders]
        names[0] = options.name or names[0]

    def method(name: str, role: str, folder: Path, pattern: str) -> Method:
        found = pair_predictions(folder, targets, prediction_name=pattern)
        return Method(name, role, folder, found.files, found.missing, found.extra)

    methods = [
        method(name, "against" if index else "predictions", folder, options.prediction_name)
        for index, (name, folder) in enumerate(zip(names, folders, strict=True))
    ]
    if options.observer is not None:
        methods.append(method("observer", "observer", options.observer, options.observer_name))
    return methods


def _observers_of(cases: Sequence[Case]) -> list[Method]:
    """A method for each observer that the cases of a config know, numbered where there are several."""
    number = max((len(case.observers) for case in cases), default=0)
    methods = []
    for index in range(number):
        files = {case.id: case.observers[index] for case in cases if len(case.observers) > index}
        missing = tuple(sorted(case.id for case in cases if case.id not in files))
        folder = next(iter(files.values())).parent
        name = "observer" if number == 1 else f"observer {index + 1}"
        methods.append(Method(name, "observer", folder, files, missing, extra=()))
    return methods


def _with_probabilities(method: Method, targets: Sequence[Target], options: EvaluationOptions) -> Method:
    """The method with its probability maps; an observer has none."""
    if method.role == "observer":
        return method
    folder = method.folder / PROBABILITIES
    if method.role == "predictions":
        folder = options.probabilities or folder
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder of probability maps; predict with --probabilities")
    files = pair_predictions(folder, targets, prediction_name=options.prediction_name).files
    lacking = sorted(set(method.files) - set(files))
    if lacking:
        raise UserError(f"{folder} has no probability map for {some(lacking)}, which {method.folder} predicts")
    return replace(method, probabilities=files)


def _for_grids(job: Job, targets: Sequence[Target]) -> tuple[Job, str]:
    """The job with the measures that the references' grids allow, and the unit of distances; checks all grids."""
    grids = job.check_grids(targets)
    units = {"pixels" if grid.affine is None else "mm" for grid in grids}
    if not any(grid.affine is not None and grid.spatial_dims == 3 for grid in grids):
        job = replace(job, measures=tuple(key for key in job.measures if MEASURES[key].family != "volumes"))
    if len(units) > 1 and "surfaces" in job.families:
        raise UserError("some references have a voxel size and some do not: score their distances separately")
    return job, "mm" if "mm" in units else "pixels"


def _gathered(rows: Iterable[Row]) -> tuple[tuple[Row, ...], Pooled, PooledByGroup]:
    """Rows without their histograms of probabilities, which are summed at once: one per row would be megabytes each."""
    kept: list[Row] = []
    pooled: Pooled = {}
    by_group: PooledByGroup = {}
    for row in rows:
        if row.histogram is not None:
            key = (row.method, row.label)
            pooled[key] = add_histograms(pooled[key], row.histogram) if key in pooled else row.histogram
            groups = by_group.setdefault(key, {})
            own = add_histograms(groups[row.group], row.histogram) if row.group in groups else row.histogram
            groups[row.group] = joined(with_levels(own), _LEVELS_PER_GROUP)
        kept.append(replace(row, histogram=None))
    return tuple(kept), pooled, by_group


def _versions() -> dict[str, str]:
    found = {"r2seg": __version__, "python": platform.python_version()}
    for name in ("torch", "numpy", "scipy", "scikit-image", "nibabel", "SimpleITK", "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
