"""Data sets and a trained run that many tests share; everything is made here, nothing is fetched."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # tests/tiny.py, for every test

REAL_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    # Tiny tensors: a second thread costs more than it brings, and sums keep one order.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images; skips where it is not there."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"the real images are not here ({REAL_DATA})")
    return REAL_DATA


@pytest.fixture(scope="session")
def tiny_volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny import write_volumes

    return write_volumes(tmp_path_factory.mktemp("tiny") / "volumes")


@pytest.fixture(scope="session")
def tiny_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny import write_pictures

    return write_pictures(tmp_path_factory.mktemp("tiny") / "pictures")


@pytest.fixture(scope="session")
def tiny_run(tiny_volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run trained to find the ball; read it, do not change it."""
    from tiny import write_config

    from r2seg.config import load_config
    from r2seg.training.train import train

    folder = tmp_path_factory.mktemp("run")
    config = load_config(write_config(folder / "tiny.yaml", tiny_volumes, training={"max_epochs": 20}))
    return train(config, folder / "tiny", device="cpu").path
