"""What needs a CUDA device: training, inference and their agreement with the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import write_config

from r2seg.config import load_config
from r2seg.errors import UserError
from r2seg.inference.segmenter import Segmenter
from r2seg.training.train import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]


@pytest.mark.parametrize("precision", ["auto", "float32", "fp16"])
def test_training_on_the_gpu_finds_the_ball(precision: str, tiny_volumes: Path, tmp_path: Path) -> None:
    config = load_config(
        write_config(tmp_path / "c.yaml", tiny_volumes, training={"max_epochs": 20, "precision": precision})
    )
    run = train(config, tmp_path / "run", device="cuda")
    assert run.manifest["results"]["test"]["ball"]["dice"] > 0.9


def test_gpu_and_cpu_give_the_same_labels(tiny_run: Path, tiny_volumes: Path) -> None:
    image = tiny_volumes / "images/case_3.nii.gz"
    labels = [Segmenter.from_run(tiny_run, device).segment(image).indices for device in ("cpu", "cuda")]
    assert (labels[0] != labels[1]).mean() < 1e-3


def test_a_run_on_the_gpu_can_be_resumed(tiny_volumes: Path, tmp_path: Path) -> None:
    path = write_config(tmp_path / "c.yaml", tiny_volumes)
    train(load_config(path, ["training.max_epochs=1"]), tmp_path / "run", device="cuda")
    run = train(load_config(path, ["training.max_epochs=3"]), tmp_path / "run", device="cuda", resume=True)
    assert run.manifest["epochs"] == 3


def test_out_of_memory_is_one_line_with_the_settings_to_lower(tiny_volumes: Path, tmp_path: Path) -> None:
    config = load_config(
        write_config(tmp_path / "c.yaml", tiny_volumes, window={"size": [4096, 4096], "batch_size": 64})
    )
    held = torch.empty(int(torch.cuda.mem_get_info()[0] * 0.95), dtype=torch.uint8, device="cuda")
    with pytest.raises(UserError, match=r"out of memory with window\.batch_size 64 and window\.size \[4096, 4096\]"):
        train(config, tmp_path / "run", device="cuda")
    del held


def test_predictions_stay_on_the_gpu_until_they_are_labels(tiny_run: Path, tiny_volumes: Path) -> None:
    segmenter = Segmenter.from_run(tiny_run, "cuda")
    found = segmenter.segment(tiny_volumes / "images/case_3.nii.gz", probabilities=True)
    np.testing.assert_array_equal(found.probabilities.argmax(0), found.indices)
