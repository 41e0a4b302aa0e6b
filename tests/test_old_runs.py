"""Runs of earlier versions still infer to the same voxels and get the same scores; the runs were made by old_runs/make_old_runs.py."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from r2seg.data.images import read_image
from r2seg.evaluation.evaluate import evaluate
from r2seg.evaluation.options import EvaluationOptions
from r2seg.inference.segmenter import Segmenter
from r2seg.networks import NETWORKS
from r2seg.run import Run

ARCHIVES = sorted((Path(__file__).parent / "old_runs").glob("*.tar.xz"))
SAMPLES = Path(__file__).parents[1] / "sample_data"


def test_every_network_family_has_a_run_of_the_first_version() -> None:
    assert {path.name for path in ARCHIVES} >= {f"{name}-0.1.0.tar.xz" for name in NETWORKS}


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.name.removesuffix(".tar.xz"))
def test_an_old_run_gives_the_voxels_and_scores_it_gave_then(archive: Path, tmp_path: Path) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "run", filter="data")
    kept = tmp_path / "run" / "predicted"
    about = json.loads((kept / "about.json").read_text())
    then = read_image(kept / about["predicted"])

    segmentation = Segmenter.from_run(tmp_path / "run", "cpu").segment(SAMPLES / about["image"])
    path = tmp_path / "now" / about["predicted"]
    segmentation.write(path)
    now = read_image(path)

    assert then.array.any(), "an empty label map would agree with nearly anything"
    # Another processor sums in another order: one voxel of ten thousand may lie on the other side of a tie there.
    differing = int((now.array != then.array).sum())
    assert differing <= then.array.size // 10_000, f"{differing} of {then.array.size} voxels differ"
    if then.affine is not None:
        np.testing.assert_array_equal(now.affine, then.affine)

    labels = Run.open(tmp_path / "run").config.data.labels
    report = evaluate(
        kept / about["predicted"],
        SAMPLES / about["label"],
        EvaluationOptions(labels=labels, measures=["counts", "surfaces"]),
    )
    scores = {key: report.rows[0].scores[key] for key in about["scores"]}  # later versions may have more measures
    assert scores == pytest.approx(about["scores"], rel=1e-12, nan_ok=True)
