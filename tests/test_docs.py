"""The pages in docs/ keep what they promise: their Python runs, and the tutorial reaches the Dice of ``r2seg-train``."""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_python_on_the_page_about_monai_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/monai.md").read_text("utf-8"), flags=re.S)
    assert len(blocks) == 4
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks:
        exec(block, names)
    printed = capsys.readouterr().out
    assert printed.count("torch.Size([8, 1, 64, 64]) torch.Size([8, 1, 64, 64])") == 4


def test_the_tutorial_is_short() -> None:
    text = (ROOT / "docs/tutorial_monai.py").read_text("utf-8")
    ast.parse(text)
    assert len(text.splitlines()) < 60


@pytest.mark.slow
def test_the_tutorial_reaches_the_dice_of_a_training_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from r2seg.config import load_config
    from r2seg.training.train import train

    monkeypatch.chdir(ROOT)
    tutorial = runpy.run_path("docs/tutorial_monai.py")
    own = tutorial["evaluate"]("sample_data/lung", tutorial["train"]("sample_data/lung"))
    config = load_config("configs/lung_r2unet.yaml", ["data.cache=" + str(tmp_path / "cache")])
    run = train(config, tmp_path / "run", device="cpu")
    command = run.manifest["results"]["test"]["lung"]["dice"]
    assert abs(own - command) <= 0.01, (own, command)
