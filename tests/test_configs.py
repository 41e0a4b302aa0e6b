"""Every config that ships: it loads, says what it is, and names its run after itself."""

from __future__ import annotations

import itertools
import math
import shlex
from pathlib import Path

import pytest
import torch

from r2seg.config import dump_config, load_config
from r2seg.training.plan import plan_training

CONFIGS = sorted((Path(__file__).parents[1] / "configs").rglob("*.y*ml"))


def test_there_are_configs() -> None:
    assert len(CONFIGS) >= 2
    assert all(path.suffix == ".yaml" for path in CONFIGS)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_loads_and_is_named_after_its_file(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    assert config.name == path.stem
    saved = tmp_path / "config.yaml"
    saved.write_text(dump_config(config), "utf-8")
    assert load_config(saved) == config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_opens_with_what_it_is_and_its_command(path: Path) -> None:
    lines = path.read_text("utf-8").splitlines()
    header = []
    for line in lines:
        if not line.startswith("#"):
            break
        header.append(line)
    assert header, f"{path.name} starts with a comment that says what it is"
    assert f"r2seg-train configs/{path.name}" in "\n".join(header)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_data_of_a_config_are_samples_or_the_shared_ones(path: Path) -> None:
    root = load_config(path).data.root
    if "sample_data" in root.parts:
        assert root.is_dir()
    else:
        assert not root.is_relative_to(path.parents[1]), f"{root} is neither in sample_data/ nor outside the repository"


def sample_command(path: Path) -> list[str]:
    """Options of the last command in a config's header: the one for the sample data."""
    header = [line.lstrip("#").strip() for line in path.read_text("utf-8").splitlines() if line.startswith("#")]
    starts = [index for index, line in enumerate(header) if "r2seg-train" in line]
    text = " ".join(header[starts[-1] :])
    return shlex.split(text[text.index("r2seg-train") :])[1:]


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in CONFIGS if "lctsc" not in path.stem], ids=lambda path: path.stem)
def test_the_headers_command_runs_on_the_sample_data(path: Path) -> None:
    config, *options = sample_command(path)
    assert config == f"configs/{path.name}"
    overrides = [value for option, value in itertools.pairwise(options) if option == "--set"]
    settings = load_config(path, overrides, require_data=True)
    assert settings.data.root.is_relative_to(path.parents[1].resolve() / "sample_data")
    plan = plan_training(settings, torch.device("cpu"))
    assert math.isfinite(plan.first_loss)
    assert all(share > 0 for share in plan.label_shares.values())
