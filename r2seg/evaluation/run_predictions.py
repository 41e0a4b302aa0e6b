"""A run's own predictions of a data set's cases, which may be data that it was not made for.

The run brings its preprocessing, window and postprocessing, so no number is fitted to the cases it is judged on; the data
set brings the files, the labels' values and the rules of what is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from r2seg.case_sets import CasesOfPart, parts_of
from r2seg.errors import UserError
from r2seg.evaluation.options import EvaluationOptions
from r2seg.inference.batch import Job, Outcome, infer, plan_case_jobs
from r2seg.inference.segmenter import Segmenter
from r2seg.labels import Label
from r2seg.run import Run

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class RunPredictions:
    """What a run is to segment.

    Attributes:
        run: The run.
        cases: Cases of a config, which may differ from the run's own.
        folder: Where the label maps go.
        jobs: One per case.
        labels: Names in the run's order, with the values of the cases' config.
    """

    run: Run
    cases: CasesOfPart
    folder: Path
    jobs: list[Job]
    labels: dict[str, Label]

    @classmethod
    def plan(cls, run: Path, cases: CasesOfPart, folder: Path) -> RunPredictions:
        """Plans what to segment; no pixel is read.

        Raises:
            UserError: The labels' names differ, or an output would overwrite an input.
        """
        opened = Run.open(run)
        ours, theirs = opened.config.data.labels, cases.config.data.labels
        if set(ours) != set(theirs):
            raise UserError(
                f"{run} predicts {', '.join(ours)} and the labels of {cases.origin} are {', '.join(theirs)}: "
                "give them the same names (their values may differ)"
            )
        overlapping = opened.config.data.overlapping
        if overlapping != cases.config.data.overlapping:
            run_or_cases = run if overlapping else cases.origin
            raise UserError(
                f"the labels of {run_or_cases} overlap (data.overlapping) and the others' do not: they cannot be compared"
            )
        if overlapping and list(ours) != list(theirs):
            raise UserError(
                f"{run} predicts {', '.join(ours)} and the labels of {cases.origin} are {', '.join(theirs)}: labels that overlap are "
                "channels of the files: give them in the same order"
            )
        labels = {name: theirs[name] for name in ours}
        return cls(opened, cases, folder, plan_case_jobs(cases.cases, folder, series=cases.config.data.series), labels)

    def scored_with(self, options: EvaluationOptions) -> EvaluationOptions:
        """Options to score these predictions: with the run's name and labels, and where they come from."""
        config = self.run.config
        segmented_by = {
            "run": str(self.run.path),
            "statistics_fitted_to_these_cases": "none",
            "preprocessing": config.preprocessing.model_dump(mode="json"),
            "window": config.window.model_dump(mode="json"),
            "postprocessing": [step.model_dump(mode="json") for step in config.postprocessing],
            **self._known_cases(),
        }
        if chosen_by := (self.run.manifest.get("best") or {}).get("chosen_by"):
            segmented_by["checkpoint"] = chosen_by
        return replace(
            options,
            name=self.run.path.resolve().name,
            labels=self.labels,
            provenance={"references": str(self.cases), "segmented_by": segmented_by},
        )

    def segment(
        self,
        device: str | torch.device,
        *,
        probabilities: bool = False,
        on_progress: Callable[[Job, float], None] | None = None,
        on_outcome: Callable[[Outcome], None] | None = None,
    ) -> list[Outcome]:
        """Segments every case; those that fail have no prediction.

        Raises:
            UserError: The run cannot be used, or no case could be segmented.
        """
        segmenter = Segmenter.from_run(self.run.path, device)
        data = segmenter.config.data.model_copy(update={"labels": self.labels})
        segmenter.config = segmenter.config.model_copy(
            update={"data": data}
        )  # the same classes, with other values in files
        for job in self.jobs:  # of an earlier evaluation: a case that fails now must not be scored by it
            for path in (job.output, job.probabilities, job.probabilities.with_suffix(".npy")):
                path.unlink(missing_ok=True)
        outcomes = infer(
            segmenter, self.jobs, probabilities=probabilities, on_progress=on_progress, on_outcome=on_outcome
        )
        if all(outcome.error for outcome in outcomes):
            raise UserError(f"{self.run.path} could segment none of {self.cases}: {outcomes[0].error}")
        return outcomes

    def _known_cases(self) -> dict[str, list[str]]:
        """Ids of cases that the run was trained or validated on, if its data are still in place."""
        try:
            parts = parts_of(self.run, self.run.config)
        except UserError:
            parts = {}
        found = {}
        for part in ("train", "validation"):
            files = {path.resolve() for case in parts.get(part, ()) for path in case.labels}
            found[f"cases_of_its_{part}"] = [
                case.id for case in self.cases.cases if any(path.resolve() in files for path in case.labels)
            ]
        return found
