"""Validation during training and the evaluation of written files cannot disagree."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.engines import SupervisedEvaluator
from PIL import Image as Picture
from tiny import write_config

from r2seg.case_sets import cases_of
from r2seg.config import load_config
from r2seg.data.cache import cache_cases
from r2seg.evaluation.evaluate import evaluate
from r2seg.evaluation.options import EvaluationOptions
from r2seg.evaluation.run_predictions import RunPredictions
from r2seg.evaluation.summary import summarize
from r2seg.evaluation.write import write_report
from r2seg.inference.prediction import segment_prepared
from r2seg.inference.segmenter import Segmenter
from r2seg.metrics.catalogue import FAMILIES, MEASURES, Pair
from r2seg.metrics.ignite import CaseScores, MeanScore, PooledEvidence
from r2seg.training.steps import make_validation_step
from r2seg.training.train import train


def test_ignite_metrics_score_maps_as_the_evaluation_scores_files(tmp_path):
    """Any evaluator whose output can be made a Pair: every measure of maps, on several labels, one of them absent in a case."""
    generator = np.random.default_rng(1)
    maps = generator.integers(0, 4, (2, 5, 12, 12), dtype=np.uint8)
    maps[:, 2] = np.minimum(maps[:, 2], 2)  # a case without label 3 on either side
    for side, name in enumerate(("out", "ref")):
        (tmp_path / name).mkdir()
        for case in range(5):
            Picture.fromarray(maps[side, case]).save(tmp_path / name / f"{case}.png")
    names = [key for key, measure in MEASURES.items() if measure.family not in ("probabilities", "volumes")]
    report = evaluate(
        tmp_path / "out", tmp_path / "ref", EvaluationOptions(labels={"a": 1, "b": 2, "c": 3}, measures=names)
    )
    engine = Engine(lambda _, case: maps[:, case])
    for name in names:
        for metric, key in ((CaseScores, name), (MeanScore, f"mean {name}")):
            metric(name, lambda both: Pair(*map(torch.from_numpy, both.copy()), num_labels=3)).attach(engine, key)
    state = engine.run(range(5))
    means = summarize(report)["methods"]["out"]["mean_of_labels"]
    for name in names:
        ours = np.array([[row.scores[name] for row in report.of("out", label)] for label in "abc"]).T
        np.testing.assert_array_equal(state.metrics[name].numpy(), ours)
        assert state.metrics[f"mean {name}"] == pytest.approx(means[name], abs=1e-12)
    assert np.isnan(state.metrics["dice"][2, 2])


@pytest.mark.parametrize("spacing_mm", [None, [3.0, 3.0, 5.0]])
def test_a_validation_of_a_run_equals_the_evaluation_of_its_files_in_every_measure(
    spacing_mm, tiny_volumes: Path, tiny_run: Path, tmp_path: Path
):
    """Through MONAI's evaluator, on volumes in two orientations, also where the network works on another grid."""
    run = tiny_run
    if spacing_mm:
        preprocessing = {"spacing_mm": spacing_mm, "intensity": {"kind": "hu_window", "low": -1000, "high": 200}}
        config = load_config(write_config(tmp_path / "c.yaml", tiny_volumes, preprocessing=preprocessing))
        run = train(config, tmp_path / "run", device="cpu").path
    chosen = cases_of(run, "all")
    segmenter = Segmenter.from_run(run, "cpu")

    def segment(case, on_probabilities=None):
        return segment_prepared(
            segmenter.network, case.prepared, case.grid, segmenter.inferer, segmenter.config,
            device=segmenter.device, on_probabilities=on_probabilities,
        )[0]  # fmt: skip

    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=cache_cases(chosen.cases, segmenter.config, tmp_path / "cache"),
        epoch_length=len(chosen.cases),
        network=segmenter.network,
        iteration_update=make_validation_step(segment, 1, families=list(FAMILIES), tolerance_mm=2.5),
        key_val_metric={"mean dice": MeanScore("dice")},
        additional_metrics={
            "pooled": PooledEvidence("probabilities"),
            **{name: CaseScores(name) for name in MEASURES},
        },
        decollate=False,
    )
    evaluator.run()

    planned = RunPredictions.plan(run, chosen, tmp_path / "predictions")
    planned.segment("cpu", probabilities=True)
    options = planned.scored_with(EvaluationOptions(measures=["all"], tolerance_mm=2.5))
    report = evaluate(planned.folder, chosen.cases, options)
    rows = {row.case: row for row in report.rows}
    for name in MEASURES:
        ours = [rows[case.id].scores[name] for case in chosen.cases]
        np.testing.assert_allclose(evaluator.state.metrics[name][:, 0].numpy(), ours, rtol=1e-6, err_msg=name)
    assert torch.equal(evaluator.state.metrics["pooled"][0], report.histograms[report.main.name, "ball"])


def test_the_thresholds_of_a_run_are_those_of_its_validation_files(tiny_run: Path, tmp_path: Path):
    chosen = cases_of(tiny_run, "validation")
    planned = RunPredictions.plan(tiny_run, chosen, tmp_path / "predictions")
    planned.segment("cpu", probabilities=True)
    options = planned.scored_with(EvaluationOptions(measures=["probabilities"]))
    write_report(evaluate(planned.folder, chosen.cases, options), tmp_path, ["json"])
    stored, found = (json.loads((folder / "thresholds.json").read_text()) for folder in (tiny_run, tmp_path))
    assert stored == found
    assert len(stored["references"]) == 1


def test_what_does_not_add_up_or_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="surfaces does not add up over cases"):
        PooledEvidence("surfaces")
    with pytest.raises(ValueError, match="'surface' is not a family of measures; valid are counts, volumes"):
        PooledEvidence("surface")
    with pytest.raises(ValueError, match="'dise' is not a measure; valid are dice, iou"):
        MeanScore("dise")
