"""docs/data.md: its layouts, its patterns and its Python are those that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from r2seg.config import Data
from r2seg.data.layouts import LAYOUTS
from r2seg.data.layouts.table import COLUMNS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "data.md").read_text("utf-8")


def first_cells(heading: str) -> list[str]:
    rows = PAGE.split(f"| {heading} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [re.findall("`([^`]+)`", row.split("|")[1])[0] for row in rows]


def test_the_page_names_every_layout_and_every_column() -> None:
    assert first_cells("`layout`") == list(LAYOUTS)
    assert sorted(first_cells("column")) == sorted(COLUMNS)


def test_the_sections_of_the_page_are_valid(tmp_path: Path) -> None:
    sections = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.S)
    assert len(sections) == 4
    for section in sections:
        assert Data.model_validate(yaml.safe_load(section)["data"]).labels


def test_the_python_of_the_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    monkeypatch.chdir(ROOT)
    names: dict = {}
    exec(code, names)
    assert len(names["cases"]) >= 4 and names["cases"][0]["mask"].endswith(".png")
