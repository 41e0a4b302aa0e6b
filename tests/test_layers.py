"""The import order of the house, read from the source: each room sees only rooms above it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import r2seg

ROOT = Path(r2seg.__file__).parent
# Room -> layer; a room is the first part of a module's name below r2seg.
LAYERS = {
    "errors": 0,
    "networks": 0,
    "metrics": 0,
    "config": 1,
    "data": 2,
    "run": 2,
    "thresholds": 2,
    "inference": 3,
    "training": 4,
    "evaluation": 4,
    "bundle": 4,
    "cli": 5,
}
HEAVY = {
    "torch",
    "torchvision",
    "monai",
    "ignite",
    "SimpleITK",
    "nibabel",
    "skimage",
    "scipy",
    "tensorboard",
    "pandas",
    "matplotlib",
}
LIGHT_ROOMS = ("__init__", "__main__", "cli", "config", "errors", "run")


@dataclass(frozen=True)
class Import:
    module: str
    inside_function: bool


def imports_of(path: Path) -> list[Import]:
    """Every import of a file but those for type checkers."""
    package = ("r2seg", *path.relative_to(ROOT).parent.parts)

    def walk(node: ast.AST, inside: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                for other in child.orelse:
                    yield from walk(ast.Module([other], []), inside)
            elif isinstance(child, ast.Import):
                yield from (Import(alias.name, inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = [*package[: len(package) - child.level + 1]] if child.level else []
                module = ".".join([*base, *([child.module] if child.module else [])])
                # "from r2seg import config" imports a room, "from r2seg.config import Config" a name in it.
                yield from (
                    Import(f"{module}.{alias.name}" if module == "r2seg" else module, inside) for alias in child.names
                )
            else:
                yield from walk(child, inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    return list(walk(ast.parse(path.read_text("utf-8")), False))


def room_of(module: str) -> str | None:
    """Room of a module of ours: "data" of "r2seg.data.images"; None of other packages and of names of r2seg itself."""
    parts = module.split(".")
    return parts[1] if parts[0] == "r2seg" and len(parts) > 1 and parts[1] in LAYERS else None


FILES = sorted(path for path in ROOT.rglob("*.py"))


def test_every_module_lies_in_a_known_room() -> None:
    assert len(FILES) > 30
    rooms = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in FILES} - {"__init__", "__main__"}
    assert rooms <= set(LAYERS), "a new room needs a layer here and in the design"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_rooms_above_its_own(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if room not in LAYERS:
        return
    for each in imports_of(path):
        other = room_of(each.module)
        if other is None or other == room:
            continue
        assert LAYERS[other] <= LAYERS[room], (
            f"{room} (layer {LAYERS[room]}) imports {each.module} (layer {LAYERS[other]})"
        )
        if room in ("networks", "metrics"):
            pytest.fail(f"{room} stands alone and imports {each.module}")
        if room == "config" and other != "errors":
            assert (other, each.inside_function) == ("networks", True), f"config imports {each.module}"
        if room == "data":
            assert other != "run", "the run knows the data, not the other way round"


def test_rooms_of_one_layer_do_not_import_each_other_in_a_circle() -> None:
    seen: dict[str, set[str]] = {room: set() for room in LAYERS}
    for path in FILES:
        room = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if room in LAYERS:
            seen[room] |= {other for each in imports_of(path) if (other := room_of(each.module)) and other != room}
    for room, others in seen.items():
        for other in others:
            assert room not in seen[other], f"{room} and {other} import each other"


def test_modules_that_help_needs_load_no_heavy_library() -> None:
    light = [path for path in FILES if path.relative_to(ROOT).parts[0].removesuffix(".py") in LIGHT_ROOMS]
    assert len(light) >= 5
    for path in light:
        outside = [each.module for each in imports_of(path) if not each.inside_function]
        heavy = [module for module in outside if module.split(".")[0] in HEAVY]
        assert not heavy, f"{path.relative_to(ROOT)} imports {', '.join(heavy)} outside a function"


def test_networks_and_metrics_need_nothing_but_torch_and_its_kin() -> None:
    allowed = {
        "networks": {"torch", "torchvision", "timm"},
        "metrics": {"torch", "numpy", "scipy", "skimage", "monai", "cc3d"},
    }
    for path in FILES:
        room = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if room in allowed:
            outside = (
                {each.module.split(".")[0] for each in imports_of(path)} - set(sys.stdlib_module_names) - {"r2seg"}
            )
            assert outside <= allowed[room], f"{path.name} imports {outside - allowed[room]}"


def test_this_test_reads_imports_rightly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "r2seg" / "data"
    folder.mkdir(parents=True)
    (folder / "x.py").write_text(
        "import r2seg.run\nfrom . import images\nfrom ..inference import windows\nfrom r2seg import cli\n"
        "if TYPE_CHECKING:\n    import torch\nelse:\n    import monai\n"
        "def f():\n    from r2seg.training.train import train\n"
        "try:\n    import scipy\nexcept ImportError:\n    pass\n"
    )
    monkeypatch.setitem(globals(), "ROOT", tmp_path / "r2seg")
    assert [(each.module, each.inside_function) for each in imports_of(folder / "x.py")] == [
        ("r2seg.run", False),
        ("r2seg.data", False),
        ("r2seg.inference", False),
        ("r2seg.cli", False),
        ("monai", False),
        ("r2seg.training.train", True),
        ("scipy", False),
    ]
