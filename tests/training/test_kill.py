"""kill -9 at any moment: every file in the run folder can be read, and the resumed run reaches the very same weights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import write_config, write_volumes

from r2seg.run import BEST, LAST, Run

NUM_KILLS = 10


def newest_change(folder: Path) -> int:
    """When anything in a run folder was last written, in ns; 0 if there is none."""
    found = 0
    for path in [folder, *folder.glob("*")]:
        try:
            found = max(found, path.stat().st_mtime_ns)
        except FileNotFoundError:  # renamed in the meantime
            continue
    return found


@pytest.mark.slow
def test_killed_at_any_moment_a_run_can_be_resumed_and_no_checkpoint_is_broken(tmp_path: Path) -> None:
    write_volumes(tmp_path / "data")
    write_config(tmp_path / "config.yaml", tmp_path / "data", training={"max_epochs": 150})
    command = [
        sys.executable,
        "-m",
        "r2seg",
        "train",
        "config.yaml",
        "--device",
        "cpu",
        "--threads",
        "1",
        "--resume",
    ]
    subprocess.run([*command, "-o", "whole"], cwd=tmp_path, check=True, capture_output=True)
    rng = np.random.default_rng(0)
    parts = tmp_path / "parts"
    epochs = []
    for kill in range(NUM_KILLS):
        process = subprocess.Popen([*command, "-o", "parts"], cwd=tmp_path, stdout=subprocess.DEVNULL)
        begun, before = time.monotonic(), newest_change(parts)
        # The first kills come while the run is being made; the others between two writes, or in the middle of one.
        while newest_change(parts) == before and process.poll() is None and time.monotonic() - begun < 60:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05 if kill < 3 else 1.0))
        assert process.poll() is None, "the run was over before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        for name in (BEST, LAST):
            if (parts / name).exists():
                torch.load(parts / name, weights_only=True)
        epochs.append(Run.open(parts).load_checkpoint(LAST)["epoch"] if (parts / LAST).exists() else 0)
    assert 0 < epochs[-1] < 150
    assert epochs == sorted(epochs)
    finished = subprocess.run([*command, "-o", "parts"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    one, other = (Run.open(tmp_path / name).load_checkpoint(LAST)["network"] for name in ("whole", "parts"))
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name
