"""Reading one case, bringing its files onto one grid, and scoring it: all that happens while its pixels are in memory.

Which files belong together is decided in pairing.py; what becomes of the scores, in summary.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from r2seg.data.formats import File, open_file
from r2seg.data.images import (
    IGNORE,
    Grid,
    Image,
    ImageError,
    LabelMap,
    check_same_grid,
    grid_of_dicom_label,
    is_dicom_label,
    read_grid,
    read_label_map,
    read_labels,
    read_probabilities,
)
from r2seg.devices import resolve_device
from r2seg.errors import UserError
from r2seg.evaluation.options import EvaluationOptions
from r2seg.evaluation.results import Method, Report, Row, Target
from r2seg.labels import IgnoreLabel, Labels
from r2seg.metrics import label_mask
from r2seg.metrics.catalogue import FAMILIES, MEASURES, Pair, exact_histograms
from r2seg.thresholds import Thresholds


@dataclass(frozen=True)
class Masks:
    """One label of one case, to be drawn; pixels that are not counted are in neither mask.

    Attributes:
        prediction, reference: (*S) bool, on the reference's grid.
        counted: (*S) bool, the field of view without ignored pixels; None where there is no field of view.
        like: The reference as it was read.
    """

    prediction: np.ndarray
    reference: np.ndarray
    counted: np.ndarray | None
    like: Image


@dataclass(frozen=True)
class FilesRead:
    """What was done to the values of a case's files; adds up over files.

    Attributes:
        undeclared, cut: As in `Row`.
    """

    undeclared: int = 0
    cut: tuple[str, ...] = ()

    @classmethod
    def of(cls, what: str, image: LabelMap) -> FilesRead:
        return cls(image.num_undeclared, (what,) if image.cut else ())

    def __add__(self, other: FilesRead) -> FilesRead:
        return FilesRead(self.undeclared + other.undeclared, self.cut + other.cut)


@dataclass(frozen=True)
class Job:
    """What scoring one case needs to know.

    Attributes:
        options: What was asked.
        labels: Names and values, which the options may leave to the references.
        measures: To be scored.
        methods: With their files.
        thresholds: One for each label, if label maps are made from the probabilities.
        device: On which pixels are counted.
    """

    options: EvaluationOptions
    labels: Labels
    measures: tuple[str, ...]
    methods: tuple[Method, ...]
    thresholds: Thresholds | None
    device: torch.device

    @classmethod
    def of(cls, report: Report) -> Job:
        """The job that a report came from, to read its cases again."""
        device = resolve_device(report.options.device)
        return cls(report.options, report.labels, report.measures, report.methods, report.thresholds, device)

    @property
    def families(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(MEASURES[key].family for key in self.measures))

    def check_grids(self, targets: Sequence[Target]) -> list[Grid]:
        """The references' grids, after comparing the headers of all files that will be compared."""
        grids = [self._grid(target, target.reference) for target in targets]
        for target, grid in zip(targets, grids, strict=True):
            if target.mask is not None:
                check_same_grid(grid, read_grid(target.mask))
            for method in self.methods:
                for path in (method.files.get(target.case), (method.probabilities or {}).get(target.case)):
                    if path is None:
                        continue
                    other = self._grid(target, path)
                    if not self.options.resample or other.affine is None or grid.affine is None:
                        _check_prediction_grid(grid, other)
        return grids

    def _grid(self, target: Target, path: Path) -> Grid:
        image = self._drawn_on(target, path)
        if is_dicom_label(path):
            return grid_of_dicom_label(path, image)
        return read_grid(path) if image is None else image.grid

    def _drawn_on(self, target: Target, path: Path) -> File | None:
        """The image of a label map that lies on no grid of its own (DICOM), or on a cropped one (3D Slicer); None for others."""
        if not target.images or not (is_dicom_label(path) or path.name.lower().endswith(".seg.nrrd")):
            return None
        return open_file(target.images[0], series=self.options.series)

    def score(self, target: Target) -> list[Row]:
        """Rows of one case: every method and label."""
        reference, truth, files = self._truth(target)
        rows = []
        for method in self.methods:
            path = method.files.get(target.case)
            # An observer need not have every case.
            if path is None and (self.options.missing == "skip" or method.role == "observer"):
                continue
            pairs, prediction = self._read(target, method, reference, truth)
            rows += self._rows(target, method, path, pairs, files + prediction)
        return rows

    def masks(self, target: Target) -> dict[str, Masks]:
        """Every label of a case as the first method predicted it."""
        reference, truth, _ = self._truth(target)
        pairs, _ = self._read(target, self.methods[0], reference, truth)
        counted = (truth != IGNORE).cpu().numpy() if target.mask is not None else None
        found = {}
        for index, label in enumerate(self.labels):
            masks = pairs[0].masks(index + 1) if len(pairs) == 1 else pairs[index].masks(1)
            prediction, marked = (mask.cpu().numpy() for mask in masks)
            found[label] = Masks(prediction, marked, counted, reference)
        return found

    def _truth(self, target: Target) -> tuple[LabelMap, Tensor, FilesRead]:
        """The reference as it was read, its indices (255 where nothing is counted), and the files they are from."""
        reference = self._label_map(target, (target.reference, *target.others), self.options.ignore_label)
        files = FilesRead.of("reference", reference)
        truth = reference.array[0]
        if target.mask is not None:
            field_of_view = read_label_map(target.mask, {"field of view": 255})
            inside = field_of_view.array[0]
            if not inside.any():
                raise UserError(
                    f"{target.mask}: this field of view is empty, so no pixel of case {target.case} would be counted; "
                    "expected 0 outside and 255 (or 1) inside"
                )
            files += FilesRead.of("field of view", field_of_view)
            truth = np.where(inside, truth, IGNORE).astype(np.uint8, copy=False)
        return reference, torch.from_numpy(truth).to(self.device), files

    def _read(self, target: Target, method: Method, reference: Image, truth: Tensor) -> tuple[list[Pair], FilesRead]:
        prediction, files = self._prediction(target, method.files.get(target.case), reference)
        prediction = prediction.to(self.device)
        if target.mask is not None or self.options.ignore_label is not None:
            # Counts leave these pixels out anyway; surfaces and structures would not.
            prediction = prediction.masked_fill(truth == IGNORE, 0)
        return self._pairs(prediction, truth, self._probabilities(method, target, reference), reference), files

    def _label_map(self, target: Target, paths: Sequence[Path], ignore_label: IgnoreLabel | None) -> LabelMap:
        options = self.options
        return read_labels(
            paths,
            self.labels,
            ignore_label,
            overlapping=options.overlapping,
            undeclared=options.undeclared,
            like=self._drawn_on(target, paths[0]),
        )

    def _prediction(self, target: Target, path: Path | None, reference: Image) -> tuple[Tensor, FilesRead]:
        if path is None:
            return torch.zeros(reference.shape, dtype=torch.uint8), FilesRead()
        image = self._label_map(target, (path,), None)
        return torch.from_numpy(_onto(image, reference, order=0)[0]), FilesRead.of("prediction", image)

    def _probabilities(self, method: Method, target: Target, reference: Image) -> Tensor | None:
        """One map per label; zeros if the case has no prediction."""
        if method.probabilities is None:
            return None
        path = method.probabilities.get(target.case)
        if path is None:
            return torch.zeros(len(self.labels), *reference.shape, device=self.device)
        image = read_probabilities(path)
        extra = image.num_channels - len(self.labels)
        if extra not in (0, 1):
            raise UserError(
                f"{path}: holds {image.num_channels} probabilities per pixel; expected one for each of "
                f"{', '.join(self.labels)}, after that of the background or alone"
            )
        return torch.from_numpy(_onto(image, reference, order=1)[extra:]).to(self.device)

    def _pairs(self, prediction: Tensor, truth: Tensor, probabilities: Tensor | None, reference: Image) -> list[Pair]:
        """One pair of all labels; with thresholds one pair per label, since the labels may then overlap."""
        dims = reference.spatial_dims
        steps = None if reference.affine is None else torch.from_numpy(reference.affine[:3, :dims].copy())
        if steps is not None and dims == 2:
            steps = torch.diag(steps.norm(dim=0))
        tolerance_mm, overlapping = self.options.tolerance_mm, self.options.overlapping
        pair = partial(Pair, steps_mm=steps, tolerance_mm=tolerance_mm)
        if self.thresholds is None:
            return [pair(prediction, truth, len(self.labels), probabilities=probabilities, overlapping=overlapping)]
        assert probabilities is not None  # thresholds cut probabilities: both are read, or neither
        ignored = truth == IGNORE
        return [
            pair(
                (probability >= self.thresholds.values[name]).to(torch.uint8).masked_fill_(ignored, 0),
                label_mask(truth, index, overlapping).to(torch.uint8).masked_fill_(ignored, IGNORE),
                1,
                probabilities=probability[None],
            )
            for index, (name, probability) in enumerate(zip(self.labels, probabilities, strict=True), start=1)
        ]

    def _rows(
        self, target: Target, method: Method, path: Path | None, pairs: Sequence[Pair], files: FilesRead
    ) -> list[Row]:
        evidence = {
            name: torch.cat([FAMILIES[name].evidence(pair) for pair in pairs])
            for name in self.families
            if name != "probabilities"
        }
        histograms = []
        if "probabilities" in self.families:
            histograms = [histogram for pair in pairs for histogram in exact_histograms(pair)]
        counts = torch.cat([FAMILIES["counts"].evidence(pair) for pair in pairs]).numpy()
        scores = {
            key: MEASURES[key].score(evidence[MEASURES[key].family]).tolist()
            if MEASURES[key].family in evidence
            else [MEASURES[key].score(histogram).item() for histogram in histograms]
            for key in self.measures
            if MEASURES[key].family in evidence or histograms
        }
        return [
            Row(
                method=method.name,
                case=target.case,
                group=target.group,
                label=label,
                status="missing" if path is None else _status(*counts[index]),
                counts=tuple(counts[index].tolist()),
                undeclared=files.undeclared,
                cut=files.cut,
                scores={key: values[index] for key, values in scores.items()},
                evidence={name: vectors[index].numpy() for name, vectors in evidence.items()},
                histogram=histograms[index] if histograms else None,
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
    """The image's channels on the reference's grid; unchanged if the grids agree.

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
        raise UserError(
            f"{error}{'; use --resample to resample it to the grid of the reference' if both else ''}"
        ) from None
