"""Weights of an original repository become a run that segments as the original does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from originals import Original
from PIL import Image as Picture
from tiny import write_config

from r2seg.config import load_config
from r2seg.errors import UserError
from r2seg.inference.convert import convert_weights
from r2seg.inference.segmenter import Segmenter


def config_for(tmp_path: Path, labels: dict[str, int]):
    changes = {"data": {"labels": labels}, "window": {"size": [32, 32], "plane": None}}
    path = write_config(
        tmp_path / "skin.yaml", tmp_path / "no data", preprocessing={"intensity": {"kind": "unit"}}, **changes
    )
    return load_config(path)


def test_a_converted_run_gives_the_originals_labels(tmp_path: Path) -> None:
    original = Original(recurrent=True, gated=False, steps=2)
    torch.save(original.entries, tmp_path / "R2U_Net.pth")
    run = convert_weights(
        tmp_path / "R2U_Net.pth",
        config_for(tmp_path, {"lesion": 255}),
        tmp_path / "run",
        origin="leejunhyun",
        image_dims=2,
    )
    assert (run.config.network.name, run.config.network.output) == ("R2UNet", "softmax")
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Picture.fromarray(pixels).save(tmp_path / "photo.png")
    found = Segmenter.from_run(run.path, "cpu").segment(tmp_path / "photo.png", probabilities=True)
    expected = original(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255).softmax(1)[0]
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-4)
    sure = (expected[1] - 0.5).abs() > 1e-3
    np.testing.assert_array_equal(found.indices[sure], expected.argmax(0)[sure])


def test_labels_that_do_not_fit_the_outputs_are_reported(tmp_path: Path) -> None:
    torch.save(Original(recurrent=False, gated=True, steps=0).entries, tmp_path / "AttU_Net.pth")
    config = config_for(tmp_path, {"a": 1, "b": 2, "c": 3})
    with pytest.raises(UserError, match="has 2 output channels, but the config declares 3 labels"):
        convert_weights(tmp_path / "AttU_Net.pth", config, tmp_path / "run", origin="leejunhyun", image_dims=2)
    assert not (tmp_path / "run").exists()


def test_a_file_without_weights_is_reported(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_text("hello")
    with pytest.raises(UserError, match=r"x\.pth is not readable as weights"):
        convert_weights(
            tmp_path / "x.pth", config_for(tmp_path, {"a": 1}), tmp_path / "run", origin="leejunhyun", image_dims=2
        )
