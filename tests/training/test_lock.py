"""One process per run folder, and what is said about a resumed run that will not equal an uninterrupted one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import write_config

from r2seg.config import Config, load_config
from r2seg.errors import UserError
from r2seg.run import Run
from r2seg.training import lock as lock_module
from r2seg.training.lock import LOCK, run_lock
from r2seg.training.progress import TrainingProgress
from r2seg.training.train import train


class Messages(TrainingProgress):
    """Keeps the lines of text."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)


def config_of(folder: Path, root: Path, **changes) -> Config:
    return load_config(write_config(folder / "config.yaml", root, **changes))


def hold(folder: Path) -> subprocess.Popen:
    """Another process that holds the lock of a folder."""
    code = f"""
import time
from pathlib import Path
from r2seg.training.lock import run_lock
with run_lock(Path({str(folder)!r})):
    print("held", flush=True)
    time.sleep(100)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("locks", [True, False])
def test_a_second_process_in_a_run_folder_is_refused_until_the_first_is_gone(
    locks: bool, tiny_volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not locks:  # such as some network file systems: the process that the file names decides
        monkeypatch.setattr(lock_module, "_try_lock", lambda file: None)
    config = config_of(tmp_path, tiny_volumes, training={"max_epochs": 1})
    first = hold(tmp_path / "run")
    try:
        for resume in (False, True):
            with pytest.raises(UserError) as caught:
                train(config, tmp_path / "run", resume=resume, device="cpu")
            assert f"run is in use: process {first.pid} on {socket.gethostname()} is training in it" in str(
                caught.value
            )
        assert [entry.name for entry in (tmp_path / "run").iterdir()] == [LOCK]
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    assert (tmp_path / "run" / LOCK).exists()  # a killed process leaves its file
    assert train(config, tmp_path / "run", resume=True, device="cpu").manifest["state"] == "finished"
    assert not (tmp_path / "run" / LOCK).exists()


def test_without_locks_of_the_system_another_machine_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_module, "_try_lock", lambda file: None)
    (tmp_path / LOCK).write_text(json.dumps({"pid": 1, "host": "elsewhere"}))
    with (
        pytest.raises(UserError, match=r"process 1 on elsewhere is training in it.*\(lock: .*\.lock\)"),
        run_lock(tmp_path),
    ):
        pass


def test_a_folder_that_was_made_for_the_lock_alone_is_removed(tmp_path: Path) -> None:
    with run_lock(tmp_path / "a/b"):
        assert (tmp_path / "a/b" / LOCK).is_file()
    assert list(tmp_path.iterdir()) == []


def test_resuming_where_there_is_no_run_is_said_before_a_new_one_is_started(tiny_volumes: Path, tmp_path: Path) -> None:
    progress = Messages()
    config = config_of(tmp_path, tiny_volumes, training={"max_epochs": 1})
    train(config, tmp_path / "run", resume=True, device="cpu", progress=progress)
    assert progress.lines[0] == f"{tmp_path / 'run'} holds no run, so there is nothing to resume: a new run is started"


def test_other_threads_than_before_are_reported_when_a_run_is_resumed(
    tiny_volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(config_of(tmp_path, tiny_volumes, training={"max_epochs": 1}), tmp_path / "run", device="cpu")
    assert (run.manifest["threads"], run.manifest["device"]) == (1, "cpu")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)  # two on a busy machine would wait for one another
    progress = Messages()
    longer = config_of(tmp_path, tiny_volumes, training={"max_epochs": 2})
    train(longer, tmp_path / "run", resume=True, device="cpu", progress=progress)
    (line,) = [line for line in progress.lines if "last bits" in line]
    assert line.startswith("warning: this run was trained with 1 thread, and now with cpu and 2 threads")
    assert Run.open(tmp_path / "run").manifest["threads"] == 2


def test_a_learning_rate_that_jumps_because_of_more_epochs_is_reported(tiny_volumes: Path, tmp_path: Path) -> None:
    recipe = {"learning_rate": 0.01, "warmup_epochs": 0}
    short = config_of(tmp_path, tiny_volumes, training={**recipe, "max_epochs": 1})
    train(short, tmp_path / "run", device="cpu")
    progress = Messages()
    longer = config_of(tmp_path, tiny_volumes, training={**recipe, "max_epochs": 2})
    train(longer, tmp_path / "run", resume=True, device="cpu", progress=progress)
    (line,) = [line for line in progress.lines if "learning rate jumps" in line]
    # Half a cosine from 0.01 down to a hundredth: at its end before, in its middle now.
    assert "training.max_epochs is 2 and was 1: the learning rate jumps from 0.0001 to 0.00505" in line


def test_a_run_that_is_resumed_as_it_was_has_no_warning(tiny_volumes: Path, tmp_path: Path) -> None:
    class StopsAfterOneEpoch(Messages):
        def epoch(self, row, max_epochs, is_best) -> None:
            raise KeyboardInterrupt

    config = config_of(tmp_path, tiny_volumes)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", device="cpu", progress=StopsAfterOneEpoch())
    assert not (tmp_path / "run" / LOCK).exists()
    progress = Messages()
    train(config, tmp_path / "run", resume=True, device="cpu", progress=progress)
    assert not [line for line in progress.lines if line.startswith("warning")]
    assert f"resuming {tmp_path / 'run'} after epoch 1" in progress.lines
