"""Scores prediction files against reference files: reads a pair, gathers its evidence, lets it go, and hands on a Report.

Which files belong together is pairing.py, what is measured is measures.py, what becomes of the numbers is report.py.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from r2seg.data.cases import Case
from r2seg.data.images import (
    IGNORE,
    Grid,
    Image,
    ImageError,
    check_same_grid,
    read_grid,
    read_label_map,
    read_probabilities,
)
from r2seg.errors import UserError
from r2seg.evaluation import measures as catalogue
from r2seg.evaluation.measures import FAMILIES, MEASURES, Pair, choose_measures
from r2seg.evaluation.pairing import ID, Pairing, Target, find_targets, pair_predictions, some
from r2seg.evaluation.report import Method, Report, Row

Labels = Mapping[str, int | Sequence[int]]

_MAX_DERIVED_LABELS = 32
_ANY_VALUE = {str(value): value for value in range(1, IGNORE)}  # class index = file value
_UNDECLARED = "undeclared values"


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
    thresholds: Mapping[str, float] | None = None,
    against: Sequence[Path] = (),
    observer: Path | None = None,
    observer_name: str = ID,
    images: Path | None = None,
    image_name: str = ID,
    workers: int | None = None,
    device: str = "auto",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
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
        thresholds: Label -> probability from which a pixel is predicted, in place of the label maps.
        against: Other methods' predictions, compared with the first on the same cases.
        observer: A second reference, scored against the first as a row of its own.
        observer_name: File name of the second reference, without suffix.
        images: Folder of the images, to be shown in the report. Replaces the images of cases.
        image_name: File name of an image, without suffix.
        workers: Cases read at once; one a core, at most 4, where it is left out.
        device: "auto", "cpu" or a torch device on which pixels are counted.
        seed: Of the bootstrap.
        progress: Called with cases done and cases in all.

    Raises:
        UserError: Names, labels, grids or options do not go together; one line that names the files.
    """
    for option, value, choices in (
        ("missing", missing, ("miss", "skip")),
        ("undeclared", undeclared, ("error", "background")),
    ):
        if value not in choices:
            raise UserError(f"{option} is {value!r}: give one of {', '.join(choices)}")
    chosen = choose_measures(measures)
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
        _Method(method, role, pair_predictions(folder, targets, prediction_name=pattern))
        for method, role, folder, pattern in _named_methods(
            predictions, against, observer, prediction_name, observer_name
        )
    ]
    if missing == "skip":
        covered = set().union(*(method.pairing.files for method in methods))
        targets = [target for target in targets if target.case in covered]
    if any(MEASURES[key].family == "probabilities" for key in chosen) or thresholds is not None:
        for method in methods[: 1 + len(against)]:
            own = probabilities if probabilities is not None and method.role == "predictions" else None
            method.probabilities = _probability_maps(own or method.pairing.folder / "probabilities", method, targets)

    derived = labels is None
    labels = _labels_of(targets, ignore_label, workers) if derived else _checked_labels(labels, ignore_label)
    if thresholds is not None and set(thresholds) != set(labels):
        raise UserError(f"thresholds are for {some(sorted(thresholds))} and the labels are {some(sorted(labels))}")
    job = _Job(
        labels=labels,
        ignore_label=ignore_label,
        measures=chosen,
        missing=missing,
        undeclared=undeclared,
        resample=resample,
        tolerance_mm=tolerance_mm,
        thresholds=thresholds,
        device=_device(device),
        methods=methods,
    )
    grids = job.check_grids(targets)
    if not any(grid.affine is not None and grid.spatial_dims == 3 for grid in grids):
        job = replace(job, measures=tuple(key for key in chosen if MEASURES[key].family != "volumes"))
    distances_in = {"pixels" if grid.affine is None else "mm" for grid in grids}
    if len(distances_in) > 1 and "surfaces" in job.families:
        raise UserError("some references have a voxel size and some have none: score their distances apart")

    report = Report(
        labels=tuple(labels),
        measures=job.measures,
        methods=tuple(Method(m.name, m.role, m.pairing.folder, m.pairing.missing, m.pairing.extra) for m in methods),
        targets={target.case: target for target in targets},
        settings={
            "predictions": str(predictions),
            "references": str(references) if isinstance(references, Path) else f"{len(references)} cases of a config",
            "labels": {key: value if isinstance(value, int) else list(value) for key, value in labels.items()},
            "labels_from": "the values of the references" if derived else "the caller",
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
            "thresholds": dict(thresholds) if thresholds else None,
            "against": [str(path) for path in against],
            "observer": str(observer) if observer else None,
            "seed": seed,
        },
        seed=seed,
        masks_of=lambda case, label: job.masks(report.targets[case], label),
    )
    for done, rows in enumerate(_in_order(job.score, targets, workers), start=1):
        for row in rows:
            report.add(row)
        if progress is not None:
            progress(done, len(targets))
    return report


@dataclass(frozen=True)
class Masks:
    """One label of one case, to be drawn; pixels that are not counted are in neither.

    Attributes:
        prediction, reference: (*S) bool, on the reference's grid.
        like: The reference as it was read.
    """

    prediction: np.ndarray
    reference: np.ndarray
    like: Image


@dataclass
class _Method:
    name: str
    role: str
    pairing: Pairing
    probabilities: Mapping[str, Path] | None = None


def _probability_maps(folder: Path, method: _Method, targets: Sequence[Target]) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder of probability maps; predict with --probabilities")
    files = pair_predictions(folder, targets).files
    lacking = sorted(set(method.pairing.files) - set(files))
    if lacking:
        raise UserError(f"{folder} has no probability map for {some(lacking)}, which {method.pairing.folder} predicts")
    return dict(files)


@dataclass(frozen=True)
class _Job:
    """What scoring one case needs to know."""

    labels: Labels
    ignore_label: int | None
    measures: tuple[str, ...]
    missing: str
    undeclared: str
    resample: bool
    tolerance_mm: float
    thresholds: Mapping[str, float] | None
    device: torch.device
    methods: Sequence[_Method]

    @property
    def families(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(MEASURES[key].family for key in self.measures))

    def check_grids(self, targets: Sequence[Target]) -> list[Grid]:
        """The references' grids, after comparing the headers of all files that will be laid over each other."""
        grids = [read_grid(target.reference) for target in targets]
        for target, grid in zip(targets, grids, strict=True):
            if target.mask is not None:
                check_same_grid(grid, read_grid(target.mask))
            for method in self.methods:
                for path in (method.pairing.files.get(target.case), (method.probabilities or {}).get(target.case)):
                    if path is None:
                        continue
                    other = read_grid(path)
                    if not self.resample or other.affine is None or grid.affine is None:
                        _check_prediction_grid(grid, other)
        return grids

    def score(self, target: Target) -> list[Row]:
        """Rows of one case: every method and label."""
        reference, truth, reference_strays = self._truth(target)
        rows = []
        for method in self.methods:
            path = method.pairing.files.get(target.case)
            if path is None and self.missing == "skip":
                continue
            pairs, strays = self._read(target, method, reference, truth)
            rows += self._rows(target, method, path, pairs, strays + reference_strays)
        return rows

    def masks(self, target: Target, label: str) -> Masks:
        """One label of a case as the first method predicted it."""
        reference, truth, _ = self._truth(target)
        pairs, _ = self._read(target, self.methods[0], reference, truth)
        index = list(self.labels).index(label)
        prediction, truth = pairs[0].masks(index + 1) if len(pairs) == 1 else pairs[index].masks(1)
        return Masks(prediction.cpu().numpy(), truth.cpu().numpy(), reference)

    def _truth(self, target: Target) -> tuple[Image, Tensor, int]:
        """Reference as it was read, its indices with all that is not counted as 255, and how many strays it held."""
        reference, strays = self._label_map(target.reference, self.ignore_label)
        truth = reference.array[0]
        if target.mask is not None:
            inside = read_label_map(target.mask, {"inside": 1}).array[0]
            truth = np.where(inside, truth, IGNORE).astype(np.uint8, copy=False)
        return reference, torch.from_numpy(truth).to(self.device), strays

    def _read(self, target: Target, method: _Method, reference: Image, truth: Tensor) -> tuple[list[Pair], int]:
        prediction, strays = self._prediction(method.pairing.files.get(target.case), reference)
        prediction = prediction.to(self.device)
        if target.mask is not None or self.ignore_label is not None:
            # Counts leave these pixels out anyway; surfaces and structures would see them.
            prediction = prediction.masked_fill(truth == IGNORE, 0)
        return self._pairs(prediction, truth, self._probabilities(method, target, reference), reference), strays

    def _label_map(self, path: Path, ignore_label: int | None) -> tuple[Image, int]:
        """Label map, and how many undeclared pixels became background."""
        if self.undeclared == "error":
            return read_label_map(path, self.labels, ignore_label), 0
        declared = {value for values in self.labels.values() for value in _as_values(values)} | {ignore_label}
        rest = [value for value in range(1, 256) if value not in declared]
        image = read_label_map(path, {**self.labels, _UNDECLARED: rest}, ignore_label)
        strays = image.array == len(self.labels) + 1
        return replace(image, array=np.where(strays, 0, image.array).astype(np.uint8)), int(strays.sum())

    def _prediction(self, path: Path | None, reference: Image) -> tuple[Tensor, int]:
        if path is None:
            return torch.zeros(reference.shape, dtype=torch.uint8), 0
        image, strays = self._label_map(path, None)
        return torch.from_numpy(_onto(image, reference, order=0)[0]), strays

    def _probabilities(self, method: _Method, target: Target, reference: Image) -> Tensor | None:
        """One map a label; zeros where the case has no prediction."""
        if method.probabilities is None:
            return None
        path = method.probabilities.get(target.case)
        if path is None:
            return torch.zeros(len(self.labels), *reference.shape, device=self.device)
        image = read_probabilities(path)
        extra = image.num_channels - len(self.labels)
        if extra not in (0, 1):
            raise UserError(
                f"{path}: holds {image.num_channels} probabilities a pixel; expected one for each of "
                f"{', '.join(self.labels)}, after that of the background or alone"
            )
        return torch.from_numpy(_onto(image, reference, order=1)[extra:]).to(self.device)

    def _pairs(self, prediction: Tensor, truth: Tensor, probabilities: Tensor | None, reference: Image) -> list[Pair]:
        """One pair of all labels; or one a label where thresholds are given, since the labels may then overlap."""
        dims = reference.spatial_dims
        steps = None if reference.affine is None else torch.from_numpy(reference.affine[:3, :dims].copy())
        if steps is not None and dims == 2:
            steps = torch.diag(steps.norm(dim=0))
        common = {"steps_mm": steps, "tolerance_mm": self.tolerance_mm}
        if self.thresholds is None:
            return [Pair(prediction, truth, len(self.labels), probabilities=probabilities, **common)]
        ignored = truth == IGNORE
        return [
            Pair(
                (probability >= self.thresholds[name]).to(torch.uint8).masked_fill_(ignored, 0),
                (truth == index).to(torch.uint8).masked_fill_(ignored, IGNORE),
                1,
                probabilities=probability[None],
                **common,
            )
            for index, (name, probability) in enumerate(zip(self.labels, probabilities, strict=True), start=1)
        ]

    def _rows(
        self, target: Target, method: _Method, path: Path | None, pairs: Sequence[Pair], strays: int
    ) -> list[Row]:
        families = [name for name in self.families if name != "probabilities" or pairs[0].probabilities is not None]
        evidence = {name: torch.cat([FAMILIES[name].evidence(pair) for pair in pairs]) for name in families}
        counts = torch.cat([FAMILIES["counts"].evidence(pair) for pair in pairs]).numpy()
        scores = {
            key: MEASURES[key].score(evidence[MEASURES[key].family]).tolist()
            for key in self.measures
            if MEASURES[key].family in evidence
        }
        return [
            Row(
                method=method.name,
                case=target.case,
                group=target.group,
                label=label,
                status="missing" if path is None else _status(*counts[index]),
                counts=tuple(counts[index].tolist()),
                undeclared=strays,
                scores={key: values[index] for key, values in scores.items()},
                evidence={name: vectors[index].numpy() for name, vectors in evidence.items()},
                prediction=path,
                reference=target.reference,
            )
            for index, label in enumerate(self.labels)
        ]


def _status(tp: int, fp: int, fn: int, tn: int) -> str:
    if tp + fp + fn == 0:
        return "both empty"
    if tp + fn == 0:
        return "reference empty"
    return "prediction empty" if tp + fp == 0 else "scored"


def _onto(image: Image, reference: Image, *, order: int) -> np.ndarray:
    """The image's channels on the reference's grid; as they are where the grids agree.

    Shape: (C, *S of the image) -> (C, *S of the reference).
    """
    if image.affine is None or reference.affine is None:
        return image.array
    try:
        check_same_grid(reference, image)
    except ImageError:  # only reached with --resample: other differences were refused before
        from scipy.ndimage import affine_transform

        dims = reference.spatial_dims
        mapping = np.linalg.inv(image.affine) @ reference.affine
        return np.stack(
            [
                affine_transform(
                    channel, mapping[:dims, :dims], mapping[:dims, 3], reference.shape, order=order, mode="constant"
                )
                for channel in image.array
            ]
        )
    return image.array


def _check_prediction_grid(reference: Grid, prediction: Grid) -> None:
    try:
        check_same_grid(reference, prediction)
    except ImageError as error:
        both = reference.affine is not None and prediction.affine is not None
        raise UserError(f"{error}{'; --resample brings it to the grid of the reference' if both else ''}") from None


def _named_methods(
    predictions: Path, against: Sequence[Path], observer: Path | None, prediction_name: str, observer_name: str
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
    methods = [
        (name, "against" if index else "predictions", folder, prediction_name)
        for index, (name, folder) in enumerate(zip(names, folders, strict=True))
    ]
    return methods if observer is None else [*methods, ("observer", "observer", observer, observer_name)]


def _as_values(values: int | Sequence[int]) -> Sequence[int]:
    return [int(values)] if isinstance(values, int | np.integer) else [int(value) for value in values]


def _checked_labels(labels: Labels, ignore_label: int | None) -> Labels:
    seen = {0: "the background"} | ({} if ignore_label is None else {ignore_label: "ignore_label"})
    for name, values in labels.items():
        for value in _as_values(values):
            if value in seen:
                raise UserError(f"label {name} takes the value {value}, which is that of {seen[value]}")
            seen[value] = f"label {name}"
    if not labels:
        raise UserError("labels is empty: name at least one, such as lung=1")
    return labels


def _labels_of(targets: Sequence[Target], ignore_label: int | None, workers: int | None) -> Labels:
    """Labels from the values of all references."""
    found: list[set[int]] = list(_in_order(_values, [target.reference for target in targets], workers))
    found = [values - {0, ignore_label} for values in found]
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
