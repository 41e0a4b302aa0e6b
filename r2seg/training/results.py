"""What follows the last epoch: the best checkpoint's scores on held-out cases, its thresholds and its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events

from r2seg.case_sets import parts_of
from r2seg.config import Config
from r2seg.data.cache import CachedCase
from r2seg.errors import UserError
from r2seg.files import write_text
from r2seg.metrics import best_threshold
from r2seg.metrics.catalogue import MEASURES
from r2seg.run import BEST, PLOTS, Run
from r2seg.thresholds import FILE as THRESHOLDS
from r2seg.thresholds import Thresholds, fingerprint
from r2seg.training.assembly import Assembly
from r2seg.training.plots import Panel, panel_of, plot_panels
from r2seg.training.progress import TrainingProgress

NOT_CHOSEN = "none were chosen: there were no validation cases"


def score_best(run: Run, assembly: Assembly, progress: TrainingProgress) -> dict[str, Any]:
    """Dice and IoU of the best checkpoint per part, label and case; also writes thresholds and pictures into the run.

    Raises:
        UserError: There is no best checkpoint.
    """
    if not (run.path / BEST).is_file():
        raise UserError(f"{run.path}: no validation gave a Dice, so there is no best checkpoint; train longer")
    config = assembly.config
    assembly.network.load_state_dict(run.load_checkpoint(BEST)["network"])
    results: dict[str, Any] = {}
    if not assembly.cases.parts["validation"]:
        write_text(run.path / THRESHOLDS, Thresholds({}, NOT_CHOSEN).json())
    for part in ("validation", "test"):
        cases = assembly.cases.parts[part]
        if not cases:
            continue
        evaluator = assembly.make_evaluator(part, progress, probabilities=part == "validation")
        panels: list[Panel] = []

        @evaluator.on(Events.ITERATION_COMPLETED)
        def add_panel(engine: Engine, panels: list[Panel] = panels) -> None:
            output = engine.state.output
            dice = float(MEASURES["dice"].score(output["evidence"]["counts"]).nanmean())
            panels.append(panel_of(output["case"], output["prediction"], dice, config.window.plane_in_volumes))

        evaluator.run()
        plot_panels(panels, config.data.labels, run.path / PLOTS / f"{part}.png", overlapping=config.data.overlapping)
        metrics = evaluator.state.metrics
        if part == "validation":
            _store_thresholds(run, config, cases, metrics["histograms"], progress)
        scores = {name: metrics[f"{name}_cases"] for name in ("dice", "iou")}
        results[part] = {
            label: {
                **{name: _rounded(table[:, index].nanmean()) for name, table in scores.items()},
                "num_scored": int((~scores["dice"][:, index].isnan()).sum()),
                "num_empty": int(scores["dice"][:, index].isnan().sum()),
                "cases": {
                    case.id: {name: _rounded(table[row, index]) for name, table in scores.items()}
                    for row, case in enumerate(cases)
                },
            }
            for index, label in enumerate(config.data.labels)
        }
    return results


def _store_thresholds(
    run: Run, config: Config, cases: Sequence[CachedCase], histograms: torch.Tensor, progress: TrainingProgress
) -> None:
    """Writes each label's threshold with the best pooled Dice on the validation cases, and which cases those were."""
    labels = list(config.data.labels)
    empty = [label for label, histogram in zip(labels, histograms, strict=True) if not histogram[1].any()]
    if empty:
        progress.message(f"no thresholds are stored: no validation case holds {', '.join(empty)}")
        return
    files = {case.id: case.labels for case in parts_of(run, config)["validation"]}
    thresholds = Thresholds(
        {label: best_threshold(histogram)[0] for label, histogram in zip(labels, histograms, strict=True)},
        "pooled Dice",
        frozenset(fingerprint(path) for case in cases if case.foreground for path in files[case.id]),
    )
    write_text(run.path / THRESHOLDS, thresholds.json())


def _rounded(value: torch.Tensor) -> float | None:
    return None if value.isnan() else round(float(value), 6)
