"""A hospital's folders of series and structures, trained on, segmented and scored without a file converted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from dicom_files import stored_values, write_rtstruct, write_series
from tiny import settings

from r2seg.case_sets import parts_of
from r2seg.config import Config
from r2seg.data.images import read_image
from r2seg.evaluation.evaluate import evaluate
from r2seg.evaluation.options import EvaluationOptions
from r2seg.inference.batch import infer, plan_case_jobs
from r2seg.inference.segmenter import Segmenter
from r2seg.thresholds import fingerprint
from r2seg.training.train import train


def square(series: Path, low: float, high: float, k: int) -> np.ndarray:
    """A contour in slice k in LPS+ millimetres, from voxel indices."""
    corners = np.array([(low, low, k, 1), (high, low, k, 1), (high, high, k, 1), (low, high, k, 1)], float)
    return (corners @ (np.diag([-1.0, -1, 1, 1]) @ read_image(series).affine).T)[:, :3]


def test_series_and_structures_of_patients_train_and_are_scored(tmp_path: Path) -> None:
    series = write_series(tmp_path / "series", stored_values((4, 18, 22)))
    for patient in "abc":
        folder = tmp_path / "data" / f"Patient {patient}"
        shutil.copytree(series, folder / "CT")
        for file in (folder / "CT").iterdir():
            file.write_bytes(file.read_bytes() + b"\0" * ord(patient))  # no copies of one image
        contours = {
            "Left": [square(series, 3, 8, k) for k in (1, 2)],
            "Right": [square(series, 11, 16, k) for k in (1, 2)],
        }
        write_rtstruct(folder / "RS" / "rs.dcm", contours)
    config = settings(tmp_path / "data", training={"max_epochs": 1})
    config["data"] |= {
        "layout": "files",
        "files": {"image": "{id}/CT", "label": "{id}/RS"},
        "labels": {"organ": {"structures": ["Left", "Right"]}},
        "split": {"train": ["Patient a"], "validation": ["Patient b"], "test": ["Patient c"]},
    }
    run = train(Config.model_validate(config), tmp_path / "run", device="cpu")
    assert run.manifest["state"] == "finished"
    parts = parts_of(run, run.config)
    label = parts["validation"][0].reference
    stored = json.loads((run.path / "thresholds.json").read_text())
    assert label.is_dir() and stored["references"] == [fingerprint(label / "rs.dcm")]

    jobs = plan_case_jobs(parts["test"], tmp_path / "out")
    infer(Segmenter.from_run(run.path, device="cpu"), jobs)
    report = evaluate(tmp_path / "out", parts["test"], EvaluationOptions(labels=run.config.data.labels, workers=1))
    assert [row.case for row in report.rows] == ["Patient c"]
