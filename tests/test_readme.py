"""The README's commands, paths and Python are those that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def test_the_two_commands_stand_on_lines_of_their_own() -> None:
    lines = README.splitlines()
    assert lines.count("pip install -e . && r2seg-train configs/lung_r2unet.yaml") == 1
    assert lines.count("pip install -e '.[test]' && pytest") == 1


def test_ci_takes_both_commands_from_the_readme() -> None:
    script = (ROOT / ".ci/run").read_text()
    assert len(re.findall(r"grep -m1 -x .* README\.md", script)) == 2


def test_every_link_leads_somewhere() -> None:
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", README) if not target.startswith("http")]
    assert targets
    missing = [target for target in targets if not (ROOT / target).exists()]
    assert not missing


def test_every_config_is_listed() -> None:
    configs = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))
    assert configs
    assert [name for name in configs if f"(configs/{name}.yaml)" not in README] == []


def test_options_in_the_readme_are_those_of_the_commands() -> None:
    import typer.main

    from r2seg import cli

    for line in re.findall(r"^r2seg-(\w+) (.*?)(?:\s{2,}#.*)?$", README, flags=re.M):
        command = typer.main.get_command(cli.app_of(line[0]))
        known = {option for parameter in command.params for option in parameter.opts}
        used = re.findall(r"(?<=\s)--?[a-z-]+", " " + line[1])
        assert set(used) <= known, line
    assert yaml.safe_load((ROOT / "configs/lung_r2unet.yaml").read_text())["name"] == "lung_r2unet"


def test_python_in_the_readme_runs(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    assert len(blocks) == 2
    monkeypatch.chdir(ROOT)
    for block in blocks:
        exec(block.replace("runs/lung_r2unet", str(tiny_run)), {})
