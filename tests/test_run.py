"""The run folder: damage is reported in one line, and no code of a checkpoint is executed."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from r2seg.config import Config, with_network_defaults
from r2seg.errors import UserError
from r2seg.files import write_json, write_text
from r2seg.networks import NETWORKS, R2UNet, build_network, network_options
from r2seg.networks.act_norm import Act
from r2seg.networks.options import takes_options_of
from r2seg.run import BEST, CONFIG, LAST, MANIFEST, SPLITS, Run, refuse_used

SPLIT = {"train": ["a"], "validation": ["b"], "test": ["c"]}


def config_of(root: Path) -> Config:
    return Config.model_validate(
        {
            "name": "x",
            "data": {
                "root": root,
                "labels": {"lung": 1},
                "split": {"train": ("a",), "validation": ("b",), "test": ("c",)},
            },
            "window": {"size": [16, 16]},
            "network": {"name": "R2UNet", "channels": [2, 4]},
        }
    )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", config_of(tmp_path / "data"), SPLIT, {"in_channels": 1, "image_dims": 3})


def litter(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.startswith(".")}


def message_of(function, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_full_disk_is_reported_and_the_old_checkpoint_stays(run: Run) -> None:
    """torch.save answers a full disk with a RuntimeError of its own; a limit of file size stands for the disk."""
    run.save_checkpoint(LAST, {"network": {}, "epoch": 1})
    code = f"""
import resource, signal, torch
from pathlib import Path
from r2seg.errors import UserError
from r2seg.run import Run
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
for size in (100_000, 600):
    try:
        Run(Path({str(run.path)!r})).save_checkpoint("last.pt", {{"network": {{"a": torch.zeros(size)}}}})
    except UserError as error:
        print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == [f"{run.path}/last.pt: cannot be written: File too large"] * 2
    assert run.load_checkpoint(LAST)["epoch"] == 1
    assert not litter(run.path)


# checkpoints


def saved(content: object, **options) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_comes_back_as_it_was_on_the_cpu(run: Run) -> None:
    content = {
        "network": {"a": torch.arange(3.0)},
        "epoch": 3,
        "rows": [{"epoch": 1, "loss": 0.5}],
        "best": {"dice": None},
    }
    run.save_checkpoint(BEST, content)
    found = run.load_checkpoint(BEST)
    assert torch.equal(found.pop("network")["a"], content.pop("network")["a"])
    assert found == content


GOOD = saved({"network": {"a": torch.zeros(1000)}})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        GOOD[:100],
        GOOD[: len(GOOD) // 2],
        GOOD[:-5],
        b"\x00" * 500,
        b"hello world\n" * 10,
        b"PK\x03\x04" + b"\x00" * 100,
    ],
    ids=["empty", "start", "half", "nearly all", "zeros", "text", "zip"],
)
def test_a_damaged_checkpoint_is_reported_in_one_line(run: Run, content: bytes) -> None:
    (run.path / BEST).write_bytes(content)
    message = message_of(run.load_checkpoint, BEST)
    assert message.startswith(f"{run.path}/best.pt: cannot be read as a checkpoint (")
    assert message.endswith("): it is damaged, or not r2seg's")
    assert "weights_only" not in message


def test_a_flipped_byte_in_a_checkpoint_is_an_error_or_changes_nothing(run: Run) -> None:
    content = {"network": {"a": torch.arange(200.0), "b": torch.arange(50)}, "dice": 0.875, "epoch": 3}
    run.save_checkpoint(BEST, content)
    whole = (run.path / BEST).read_bytes()
    rng = random.Random(0)
    errors = 0
    for position in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[position] ^= rng.randrange(1, 256)
        (run.path / BEST).write_bytes(changed)
        try:
            found = run.load_checkpoint(BEST)
        except UserError as error:
            assert str(error).startswith(f"{run.path}/best.pt: ") and "\n" not in str(error)
            errors += 1
            continue
        assert torch.equal(found["network"]["a"], content["network"]["a"]), position
        assert torch.equal(found["network"]["b"], content["network"]["b"]), position
        assert (found["dice"], found["epoch"]) == (0.875, 3), position
    assert errors > 100


@pytest.mark.parametrize(
    "wrap", [lambda evil: saved({"network": evil}), lambda evil: pickle.dumps({"network": evil}, protocol=2)]
)
def test_a_malicious_checkpoint_is_not_executed(run: Run, tmp_path: Path, wrap) -> None:
    (run.path / BEST).write_bytes(wrap(Evil(tmp_path / "made")))
    assert "cannot be read as a checkpoint (it holds more than tensors and plain data)" in message_of(
        run.load_checkpoint, BEST
    )
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "content", [[1, 2], {"weights": {}}, torch.zeros(3), {"network": 3}, {"network": {1: torch.zeros(3)}}]
)
def test_a_file_that_is_not_a_checkpoint_of_ours_is_refused(run: Run, content: object) -> None:
    (run.path / BEST).write_bytes(saved(content))
    assert (
        message_of(run.load_checkpoint, BEST)
        == f"{run.path}/best.pt: holds no network: it is not a checkpoint of r2seg"
    )


def test_a_missing_checkpoint_is_reported(run: Run) -> None:
    assert "has no best.pt: the training ended before its first validation" in message_of(run.load_checkpoint, BEST)


# what describes a run


def test_a_run_describes_itself_after_it_was_moved(run: Run, tmp_path: Path) -> None:
    moved = run.path.rename(tmp_path / "elsewhere")
    found = Run.open(moved)
    expected = with_network_defaults(config_of(tmp_path / "data"))
    assert found.config.model_dump(mode="json") == expected.model_dump(mode="json")
    assert found.splits == SPLIT
    assert (found.build_network().in_channels, found.build_network().out_channels) == (1, 2)
    assert Run.open(moved / CONFIG).path == moved


def test_updating_the_manifest_keeps_its_other_keys(run: Run) -> None:
    run.update_manifest(state="finished")
    run.update_manifest(epochs=3)
    assert run.manifest == {"in_channels": 1, "image_dims": 3, "state": "finished", "epochs": 3}


@pytest.mark.parametrize("content", ["", "[]", "{", "null", "\xff"])
def test_a_damaged_manifest_or_split_is_reported_in_one_line(run: Run, content: str) -> None:
    for name, read in ((MANIFEST, lambda: run.manifest), (SPLITS, lambda: run.splits)):
        (run.path / name).write_text(content, "latin-1")
        assert message_of(read).startswith(f"{run.path / name}: ")
        assert message_of(read).endswith("the run is damaged")


def test_a_manifest_without_channels_and_a_split_without_parts_are_refused(run: Run) -> None:
    write_json(run.path / MANIFEST, {})
    assert "manifest.json: does not say in_channels: the run is damaged" in message_of(run.build_network)
    write_json(run.path / SPLITS, {"train": []})
    assert "does not list the cases of train, validation, test" in message_of(lambda: run.splits)


def test_the_error_for_a_folder_that_is_not_a_run_folder_names_runs_nearby(run: Run, tmp_path: Path) -> None:
    assert (
        message_of(Run.open, tmp_path)
        == f"{tmp_path} is not a run folder: it has no config.yaml; runs nearby: {run.path}"
    )
    assert (
        message_of(Run.open, tmp_path / "rum")
        == f"{tmp_path}/rum is not a run folder: it has no config.yaml; runs nearby: {run.path}"
    )
    (tmp_path / "deep").mkdir()
    assert message_of(Run.open, tmp_path / "deep").endswith("; train one with r2seg-train")


def test_metrics_have_a_column_for_whatever_any_row_holds(run: Run) -> None:
    run.write_metrics([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.4, "dice": float("nan")}])
    with open(run.path / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert rows == [{"epoch": "1", "loss": "0.5", "dice": ""}, {"epoch": "2", "loss": "0.4", "dice": "nan"}]


# a folder for a new run


def test_a_used_folder_is_refused_and_one_that_never_became_a_run_is_not(run: Run, tmp_path: Path) -> None:
    assert (
        message_of(refuse_used, run.path)
        == f"{run.path} already holds a run: continue it with --resume, or start another with -o RUN"
    )
    assert message_of(lambda: Run.create(run.path, config_of(tmp_path), SPLIT, {})).startswith(
        f"{run.path} already holds a run"
    )
    (run.path / CONFIG).unlink()
    (run.path / "cache").mkdir()
    refuse_used(run.path)
    refuse_used(tmp_path / "new")


def test_a_run_is_never_mixed_with_other_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    assert (
        message_of(refuse_used, tmp_path)
        == f"{tmp_path} is not empty and is not a run folder: name another folder with -o RUN"
    )
    for path in (tmp_path / "thesis.tex", tmp_path / "thesis.tex" / "run"):
        assert message_of(refuse_used, path) == f"{tmp_path}/thesis.tex is a file: name a folder with -o RUN"


def test_a_run_killed_before_its_config_was_written_can_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(
        "r2seg.run.write_text", lambda path, text: die() if path.name == CONFIG else write_text(path, text)
    )
    with pytest.raises(KeyboardInterrupt):
        Run.create(tmp_path / "run", config_of(tmp_path), SPLIT, {})
    monkeypatch.undo()
    Run.create(tmp_path / "run", config_of(tmp_path), SPLIT, {})
    assert json.loads((tmp_path / "run" / SPLITS).read_text()) == SPLIT


@pytest.mark.parametrize("name", NETWORKS)
def test_the_config_of_a_run_holds_every_option_of_its_network(name: str, tmp_path: Path) -> None:
    config = config_of(tmp_path / "data")
    config = config.model_copy(update={"network": type(config.network)(name=name)})
    run = Run.create(tmp_path / "run", config, SPLIT, {"in_channels": 3, "image_dims": 2})
    written = yaml.safe_load((run.path / CONFIG).read_text())["network"]
    defaults = {key: option.default for key, option in network_options(name).items()}
    assert {key: written[key] for key in defaults} == json.loads(json.dumps(defaults))


def test_a_later_change_of_a_default_does_not_change_an_old_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Later(R2UNet):
        @takes_options_of(R2UNet)
        def __init__(
            self, spatial_dims: int, in_channels: int, out_channels: int, *, act: Act = "silu", **options: Any
        ):
            super().__init__(spatial_dims, in_channels, out_channels, act=act, **options)

    monkeypatch.setitem(NETWORKS, "R2UNet", Later)
    assert any(
        isinstance(part, nn.SiLU)
        for part in build_network("R2UNet", spatial_dims=2, in_channels=1, out_channels=2).modules()
    )
    network = Run.open(run.path).build_network()
    assert any(isinstance(part, nn.ReLU) for part in network.modules())
    assert not any(isinstance(part, nn.SiLU) for part in network.modules())
