"""docs/architecture.md is a map of the code: every package and module is on it once, and nothing that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

import r2seg

ROOT = Path(r2seg.__file__).parent
PAGE = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text("utf-8")


def entries_of_the_map() -> list[str]:
    """Paths below r2seg as the map names them: "files.py", "data/", "data/formats/nifti.py".

    A line holds indentation, a name, spaces and what is there. Names below a folder are indented further.
    """
    block = re.search(r"```text\n(.*?)```", PAGE, flags=re.S)
    assert block is not None
    entries, folders = [], []
    for line in block[1].splitlines():
        if not line.strip():
            continue
        parts = re.fullmatch(r"( *)(\S+) +(\S.*)", line)
        assert parts is not None, f"the map says of each file what is there: {line}"
        indent, name, _ = parts.groups()
        while folders and len(indent) <= folders[-1][0]:
            folders.pop()
        path = (folders[-1][1] if folders else "") + name
        entries.append(path)
        if name.endswith("/"):
            folders.append((len(indent), path))
    return entries


def test_the_map_holds_every_module_and_package_and_nothing_else() -> None:
    named = entries_of_the_map()
    modules = {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*.py")
        if path.name not in ("__init__.py", "__main__.py")
    }
    packages = {
        f"{path.parent.relative_to(ROOT).as_posix()}/" for path in ROOT.rglob("__init__.py") if path.parent != ROOT
    }
    assert len(modules) > 50
    assert sorted(named) == sorted({*modules, *packages, "evaluation/templates/"})


def test_the_page_stays_short() -> None:
    assert len(PAGE.splitlines()) <= 250
