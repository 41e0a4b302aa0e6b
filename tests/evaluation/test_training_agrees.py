"""Validation during training and the evaluation of written files cannot disagree."""

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from PIL import Image as Picture

from r2seg import metrics
from r2seg.evaluation.evaluate import evaluate
from r2seg.evaluation.measures import MEASURES
from r2seg.training.engines import CaseScores, MeanScore


def test_training_scores_cases_as_the_evaluation_does(tmp_path):
    """The validation's ignite metric and the evaluation of written files, on the same maps, for every score of counts."""

    generator = np.random.default_rng(1)
    maps = generator.integers(0, 4, (2, 5, 12, 12), dtype=np.uint8)
    maps[:, 2] = np.minimum(maps[:, 2], 2)  # a case without label 3 on either side
    for side, name in enumerate(("out", "ref")):
        (tmp_path / name).mkdir()
        for case in range(5):
            Picture.fromarray(maps[side, case]).save(tmp_path / name / f"{case}.png")
    report = evaluate(tmp_path / "out", tmp_path / "ref", labels={"a": 1, "b": 2, "c": 3})
    scores = {
        "dice": metrics.dice, "iou": metrics.iou, "sensitivity": metrics.sensitivity, "precision": metrics.precision,
        "specificity": metrics.specificity, "accuracy": metrics.accuracy, "mcc": metrics.matthews,
        "balanced_accuracy": metrics.balanced_accuracy, "threshold_jaccard": metrics.threshold_jaccard,
    }  # fmt: skip
    assert set(scores) == {key for key, measure in MEASURES.items() if measure.family == "counts"}
    engine = Engine(
        lambda _, case: {"counts": metrics.count_confusion(*map(torch.from_numpy, maps[:, case].copy()), num_labels=3)}
    )
    for name, score_of in scores.items():
        CaseScores(score_of).attach(engine, name)
        MeanScore(score_of).attach(engine, f"mean {name}")
    state = engine.run(range(5))
    means = report.summary["methods"]["out"]["mean_of_labels"]
    for name in scores:
        ours = np.array([[row.scores[name] for row in report.of("out", label)] for label in "abc"]).T
        np.testing.assert_array_equal(state.metrics[name].numpy(), ours)
        assert state.metrics[f"mean {name}"] == pytest.approx(means[name], abs=1e-12)
    assert np.isnan(state.metrics["dice"][2, 2])
