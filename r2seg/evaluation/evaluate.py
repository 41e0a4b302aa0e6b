"""Scores prediction files against reference files: reads a pair, gathers its evidence, lets it go, and hands on a Report.

Which files belong together is pairing.py, what is measured is metrics/catalogue.py, what becomes of the numbers is report.py.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from r2seg.data.cases import Case
from r2seg.data.images import IGNORE, read_label_map
from r2seg.errors import UserError, some
from r2seg.evaluation.pairing import ID, Target, find_targets, pair_predictions
from r2seg.evaluation.report import Method, Report, Row
from r2seg.evaluation.scoring import Job, Labels, PairedMethod, as_values
from r2seg.metrics import catalogue
from r2seg.metrics.catalogue import MEASURES, choose_measures
from r2seg.thresholds import Thresholds

_MAX_DERIVED_LABELS = 32
_ANY_VALUE = {str(value): value for value in range(1, IGNORE)}  # class index = file value
_ABSENT = "absent"

Progress = Callable[[int, int], None]


def evaluate(
    predictions: Path,
    references: Path | Sequence[Case],
    *,
    labels: Labels | None = None,
    ignore_label: int | None = None,
    masks: Path | None = None,
    prediction_name: str = ID,
    reference_name: str = ID,
    mask_name: str = ID,
    group: str | None = None,
    measures: Sequence[str] = catalogue.DEFAULT,
    missing: str = "miss",
    undeclared: str = "error",
    resample: bool = False,
    tolerance_mm: float = 1.0,
    probabilities: Path | None = None,
    threshold: float | Mapping[str, float] | Path | None = None,
    against: Sequence[Path] = (),
    observer: Path | None = None,
    observer_name: str = ID,
    images: Path | None = None,
    image_name: str = ID,
    workers: int | None = None,
    device: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
    name: str | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Report:
    """Scores predictions against references, by name, label and case.

    Files are read in their own grid and one case at a time a worker, so a thousand volumes need the memory of a few. All
    names, labels and grids are checked before the first pixel is scored.

    Args:
        predictions: Folder of label maps, searched below itself (not in the subfolders that inference writes beside them);
            or one label map against one.
        references: Folder of label maps, one label map, or the cases of a config.
        labels: Name -> value or values in the files. Where it is left out, from all values of the references: one of 1 or
            255 is "foreground", others are "label_2" and so on.
        ignore_label: Value in the references of pixels that are not counted.
        masks: Folder of fields of view; pixels outside are not counted. Replaces the masks of cases.
        prediction_name: File name of a prediction without suffix, around the case's id.
        reference_name: As above of a reference, such as "{id}_1stHO".
        mask_name: As above of a field of view.
        group: Regular expression whose first group, found in a case's id, is the patient; intervals draw patients.
        measures: Names of measures or families of them, or "all".
        missing: "miss" scores a case without prediction as if nothing was predicted; "skip" leaves it out. Listed either way.
        undeclared: "error" refuses values that are not declared; "background" takes them as background and counts them.
        resample: Bring predictions on another grid to the reference's, nearest neighbour; otherwise they are refused.
        tolerance_mm: Of the surface Dice; in pixels for pictures.
        probabilities: Folder of probability maps; ``predictions/probabilities`` where it is left out and they are needed.
        threshold: Probability from which a pixel is predicted, in place of the label maps: one for all labels, by label, or
            a report or run that holds ``thresholds.json``. Of several labels a pixel may then have more than one. Chosen on
            cases that are scored, it is an oracle's, and the method's name says so.
        against: Other methods' predictions, compared with the first on the same cases.
        observer: A second reference, scored against the first as a row of its own, on the cases it has.
        observer_name: File name of the second reference, without suffix.
        images: Folder of the images, to be shown in the report. Replaces the images of cases.
        image_name: File name of an image, without suffix.
        workers: Cases read at once; one a core, at most 4, where it is left out.
        device: "auto", "cpu" or a torch device on which pixels are counted.
        seed: Of the bootstrap.
        progress: Called with cases done and cases in all.
        name: Of the first method in all tables; the end of its path where it is left out.
        provenance: What else the report's settings tell: where predictions and references come from.

    Raises:
        UserError: Names, labels, grids or options do not go together; one line that names the files.
    """
    uses_probabilities = check_options(measures=measures, missing=missing, undeclared=undeclared, threshold=threshold)
    predictions, masks, probabilities, observer, images = map(
        _as_path, (predictions, masks, probabilities, observer, images)
    )
    references = _as_path(references)
    against = [Path(folder) for folder in against]
    threshold = _as_path(threshold)
    chosen = choose_measures(measures)
    declared = labels is not None
    targets = find_targets(
        references,
        reference_name=reference_name,
        masks=masks,
        mask_name=mask_name,
        images=images,
        image_name=image_name,
        group=group,
        without=[predictions, *against],
    )
    methods = [
        PairedMethod(method, role, pair_predictions(folder, targets, prediction_name=pattern))
        for method, role, folder, pattern in _named_methods(
            predictions, against, observer, prediction_name, observer_name, name
        )
    ]
    if missing == "skip":
        covered = set().union(*(method.pairing.files for method in methods))
        targets = [target for target in targets if target.case in covered]
    thresholds = None if threshold is None else Thresholds.of(threshold)
    oracle = thresholds is not None and thresholds.chosen_on(target.reference for target in targets)
    if oracle:
        methods = [replace(method, name=f"{method.name} (oracle threshold)") for method in methods]
    if uses_probabilities:
        for method in methods[: 1 + len(against)]:
            own = probabilities if method.role == "predictions" else None
            place = own or method.pairing.folder / "probabilities"
            method.probabilities = _probability_maps(place, method, targets, prediction_name)

    job = Job(
        labels=_ANY_VALUE if labels is None else _checked_labels(labels, ignore_label),
        ignore_label=ignore_label,
        measures=chosen,
        missing=missing,
        undeclared=undeclared,
        resample=resample,
        tolerance_mm=tolerance_mm,
        thresholds=None,
        device=_device(device),
        methods=methods,
    )
    grids = job.check_grids(targets)
    if not any(grid.affine is not None and grid.spatial_dims == 3 for grid in grids):
        job = replace(job, measures=tuple(key for key in chosen if MEASURES[key].family != "volumes"))
    distances_in = {"pixels" if grid.affine is None else "mm" for grid in grids}
    if len(distances_in) > 1 and "surfaces" in job.families:
        raise UserError("some references have a voxel size and some have none: score their distances apart")

    rows = None
    if labels is None:
        if thresholds is None:
            labels, rows = _scored_by_value(job, targets, workers, progress) or (None, None)
        job = replace(job, labels=labels or _labels_of(targets, ignore_label, workers))
    if thresholds is not None:
        job = replace(job, thresholds=thresholds.for_labels(job.labels))

    report = Report(
        labels=tuple(job.labels),
        measures=job.measures,
        methods=tuple(Method(m.name, m.role, m.pairing.folder, m.pairing.missing, m.pairing.extra) for m in methods),
        targets={target.case: target for target in targets},
        settings={
            "predictions": str(predictions),
            "references": str(references) if isinstance(references, Path) else f"{len(references)} cases of a config",
            "labels": {key: value if isinstance(value, int) else list(value) for key, value in job.labels.items()},
            "labels_from": "the caller" if declared else "the values of the references",
            "ignore_label": ignore_label,
            "masks": str(masks) if masks else "the cases' own" if any(t.mask for t in targets) else None,
            "prediction_name": prediction_name,
            "reference_name": reference_name,
            "mask_name": mask_name if masks else None,
            "group": group,
            "missing": missing,
            "undeclared": undeclared,
            "resample": resample,
            "tolerance_mm": tolerance_mm,
            "distances_in": "mm" if "mm" in distances_in else "pixels",
            "thresholds": job.thresholds,
            "thresholds_from": None
            if thresholds is None
            else str(threshold)
            if isinstance(threshold, Path)
            else "the caller",
            "thresholds_chosen_by": None if thresholds is None else thresholds.criterion,
            "thresholds_chosen_on_cases_scored_here": len(oracle) if oracle else 0,
            "against": [str(path) for path in against],
            "observer": str(observer) if observer else None,
            "seed": seed,
            **(provenance or {}),
        },
        seed=seed,
        masks_of=lambda case, label: job.masks(report.targets[case], label),
    )
    for row in rows if rows is not None else _scored(job, targets, workers, progress):
        report.add(row)
    return report


def check_options(
    *,
    measures: Sequence[str] = catalogue.DEFAULT,
    missing: str = "miss",
    undeclared: str = "error",
    threshold: float | Mapping[str, float] | Path | str | None = None,
    **_: Any,
) -> bool:
    """Refuses what is wrong whichever files there are; whether probability maps are needed. Options of `evaluate`.

    Raises:
        UserError: A rule or measure is unknown, or there are no such thresholds.
    """
    for option, value, choices in (
        ("missing", missing, ("miss", "skip")),
        ("undeclared", undeclared, ("error", "background")),
    ):
        if value not in choices:
            raise UserError(f"{option} is {value!r}: give one of {', '.join(choices)}")
    if threshold is not None:
        Thresholds.of(_as_path(threshold))
    try:
        chosen = choose_measures(measures)
    except ValueError as error:
        raise UserError(str(error)) from None
    return threshold is not None or any(MEASURES[key].family == "probabilities" for key in chosen)


def _scored(job: Job, targets: Sequence[Target], workers: int | None, progress: Progress | None) -> Iterator[Row]:
    for done, rows in enumerate(_in_order(job.score, targets, workers), start=1):
        yield from rows
        if progress is not None:
            progress(done, len(targets))


def _scored_by_value(
    job: Job, targets: Sequence[Target], workers: int | None, progress: Progress | None
) -> tuple[Labels, list[Row]] | None:
    """Labels of the references and all rows in one reading, where counts alone are asked; None where that cannot be.

    Every file value is scored as a label of its own, and the references' values get names afterwards: reading large volumes
    twice, first to learn their labels, costs more than counting them.
    """
    masked = job.ignore_label is not None or any(target.mask is not None for target in targets)
    more = set(job.families) - {"counts", "volumes"}
    if masked or more or job.undeclared != "error":
        return None

    def score(target: Target) -> list[dict[str, Row]]:
        """Rows of each method by value; all values that are in neither file have equal rows, and one is kept."""
        kept: dict[str, dict[str, Row]] = {}
        for row in job.score(target):
            tp, fp, fn, _ = row.counts
            kept.setdefault(row.method, {}).setdefault(row.label if tp + fp + fn else _ABSENT, row)
        return list(kept.values())

    cases = []
    try:
        for case in _in_order(score, targets, workers):
            cases.append(case)
            if progress is not None:
                progress(len(cases), len(targets))
    except UserError:  # 0/255 masks, colours or wrong values: reading by the labels takes them or says what is wrong
        return None
    found = [
        {int(value) for rows in case for value, row in rows.items() if row.counts[0] + row.counts[2]} for case in cases
    ]
    labels = _named(found, targets)
    values = {str(value): name for name, value in labels.items()}
    if any(set(rows) - set(values) - {_ABSENT} for case in cases for rows in case):
        return None
    return labels, [
        replace(rows.get(value) or rows[_ABSENT], label=name)
        for case in cases
        for rows in case
        for value, name in values.items()
    ]


def _probability_maps(
    folder: Path, method: PairedMethod, targets: Sequence[Target], prediction_name: str
) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder of probability maps; predict with --probabilities")
    files = pair_predictions(folder, targets, prediction_name=prediction_name).files
    lacking = sorted(set(method.pairing.files) - set(files))
    if lacking:
        raise UserError(f"{folder} has no probability map for {some(lacking)}, which {method.pairing.folder} predicts")
    return dict(files)


def _as_path(given: Any) -> Any:
    """Text is a path, as users of the library write it; everything else stays."""
    return Path(given) if isinstance(given, str) else given


def _named_methods(
    predictions: Path,
    against: Sequence[Path],
    observer: Path | None,
    prediction_name: str,
    observer_name: str,
    first: str | None,
) -> list[tuple[str, str, Path, str]]:
    """Name, role, folder and file name pattern of each method; names are the shortest ends of paths that differ."""
    folders = [predictions, *against]
    twice = [folder for index, folder in enumerate(folders) if folder.resolve() in map(Path.resolve, folders[:index])]
    if twice:
        raise UserError(f"{twice[0]} is given twice: a method always agrees with itself")
    names, length = [], 0
    while len(set(names)) < len(folders):
        length += 1
        names = ["/".join(folder.resolve().parts[-length:]) for folder in folders]
        names[0] = first or names[0]
    methods = [
        (name, "against" if index else "predictions", folder, prediction_name)
        for index, (name, folder) in enumerate(zip(names, folders, strict=True))
    ]
    return methods if observer is None else [*methods, ("observer", "observer", observer, observer_name)]


def _checked_labels(labels: Labels, ignore_label: int | None) -> Labels:
    seen = {0: "the background"} | ({} if ignore_label is None else {ignore_label: "ignore_label"})
    for name, values in labels.items():
        for value in as_values(values):
            if value in seen:
                raise UserError(f"label {name} takes the value {value}, which is that of {seen[value]}")
            seen[value] = f"label {name}"
    if not labels:
        raise UserError("labels is empty: name at least one, such as lung=1")
    return labels


def _labels_of(targets: Sequence[Target], ignore_label: int | None, workers: int | None) -> Labels:
    """Labels from the values of all references."""
    found: list[set[int]] = list(_in_order(_values, [target.reference for target in targets], workers))
    return _named([values - {0, ignore_label} for values in found], targets)


def _named(found: Sequence[set[int]], targets: Sequence[Target]) -> Labels:
    """Names for the values that each reference holds."""
    every = sorted(set().union(*found))
    if not every:
        raise UserError(f"all {len(targets)} references are empty, so their labels are unknown: name them with --label")
    if all(values <= {1} or values <= {255} for values in found):
        return {"foreground": 1}
    if len(every) > _MAX_DERIVED_LABELS:
        raise UserError(
            f"the references hold {len(every)} values ({some(every)}), too many to be labels: name them with --label, "
            "such as --label vessel=255"
        )
    return {f"label_{value}": value for value in every}


def _values(path: Path) -> set[int]:
    indices = read_label_map(path, _ANY_VALUE, ignore_label=IGNORE).array
    tally = torch.bincount(torch.from_numpy(indices).permute(*reversed(range(indices.ndim))).reshape(-1))
    return set(tally.nonzero().flatten().tolist())


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    return device


def _in_order(function: Callable, items: Sequence, workers: int | None) -> Iterator:
    """function(item) in the order of the items, a few at once: reading and counting both leave Python's lock."""
    workers = workers or min(4, os.cpu_count() or 1)
    if workers == 1 or len(items) == 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > workers:  # results that nobody has taken yet are memory too
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
