"""The import order of the packages, read from the source: which may import which, and no circle of files anywhere."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import r2seg

ROOT = Path(r2seg.__file__).parent
# Package, or module at the top of r2seg -> layer. Imports go to smaller numbers; within a number, to earlier entries.
LAYERS = {
    "errors": 0,
    "files": 0,
    "workers": 0,
    "labels": 0,
    "palette": 0,
    "devices": 0,
    "networks": 0,
    "metrics": 0,
    "config": 1,
    "data": 2,
    "run": 2,
    "case_sets": 2,
    "thresholds": 2,
    "pictures": 2,
    "data_check": 2,
    "inference": 3,
    "evaluation": 4,
    "training": 4,
    "planning": 4,
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
# Packages of others that these two may import, so that they serve without the rest of r2seg.
STANDS_ALONE = {
    "networks": {"torch", "torchvision", "timm"},
    "metrics": {"torch", "numpy", "scipy", "skimage", "monai", "cc3d", "ignite"},
}
LIGHT = ("__init__", "__main__", "cli", "config", "errors", "files", "run", "case_sets")


@dataclass(frozen=True)
class Import:
    """One imported name: the module or package file it leads to, and where the statement stands."""

    module: str
    inside_function: bool = False
    for_type_checkers: bool = False


def modules_below(root: Path) -> dict[str, Path]:
    """Dotted name -> file, packages by their ``__init__``: "r2seg.config" and "r2seg.config.schema"."""
    paths = sorted(root.rglob("*.py"))
    return {
        ".".join((root.name, *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in paths
    }


def imports_of(path: Path, root: Path = ROOT) -> list[Import]:
    """Every import of a file: at its top, inside functions, and for type checkers."""
    known = modules_below(root)
    package = (root.name, *path.relative_to(root).parent.parts)

    def walk(node: ast.AST, inside: bool, typing: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                yield from walk(ast.Module(child.body, []), inside, True)
                yield from walk(ast.Module(child.orelse, []), inside, typing)
            elif isinstance(child, ast.Import):
                yield from (Import(alias.name, inside, typing) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) - child.level + 1] if child.level else ()
                module = ".".join([*base, *([child.module] if child.module else [])])
                for alias in child.names:  # a module of a package, or a name in a module
                    submodule = f"{module}.{alias.name}"
                    yield Import(submodule if submodule in known else module, inside, typing)
            else:
                function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from walk(child, inside or function, typing)

    return list(dict.fromkeys(walk(ast.parse(path.read_text("utf-8")), False, False)))


def place_of(module: str) -> str | None:
    """The entry of ``LAYERS`` that a module of ours belongs to: "data" of "r2seg.data.images"; None of other packages."""
    parts = module.split(".")
    return parts[1] if parts[0] == ROOT.name and len(parts) > 1 and parts[1] in LAYERS else None


MODULES = modules_below(ROOT)


def test_every_module_has_a_layer() -> None:
    assert len(MODULES) > 50
    places = {module.split(".")[1] for module in MODULES if "." in module} - {"__main__"}
    assert places == set(LAYERS), "LAYERS and docs/architecture.md list the packages and top modules"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_lies_below_it(module: str) -> None:
    place = place_of(module)
    if place is None:  # the package itself and __main__ only hand on
        return
    order = list(LAYERS)
    for each in imports_of(MODULES[module]):
        other = place_of(each.module)
        if other is None or other == place:
            continue
        below = LAYERS[other] < LAYERS[place] or (
            LAYERS[other] == LAYERS[place] and order.index(other) < order.index(place)
        )
        assert below, f"{module} imports {each.module}, which does not lie below {place}"
        if place in STANDS_ALONE:
            assert other == "errors", f"{place} serves without the rest of r2seg, and {module} imports {each.module}"
        if place == "config" and other == "networks":
            assert each.inside_function or each.for_type_checkers, f"{module} loads torch with {each.module}"


def circles(imports: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or by way of others."""

    def reach(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            for other in imports[todo.pop()] - seen:
                seen.add(other)
                todo.append(other)
        return seen

    reached = {module: reach(module) for module in imports}
    rings = {frozenset(other for other in reached[module] if module in reached[other]) for module in imports}
    return sorted(sorted(ring) for ring in rings if ring)


def imports_within(root: Path) -> dict[str, set[str]]:
    """Module -> modules of the same tree that it imports. A package's own ``__init__`` is not counted for its modules."""
    modules = modules_below(root)
    return {
        module: {
            each.module
            for each in imports_of(path, root)
            if each.module in modules
            and not (modules[each.module].name == "__init__.py" and module.startswith(f"{each.module}."))
        }
        for module, path in modules.items()
    }


def test_no_files_import_each_other_in_a_circle() -> None:
    assert not circles(imports_within(ROOT))


def test_modules_that_help_needs_load_no_heavy_library() -> None:
    light = [path for path in MODULES.values() if path.relative_to(ROOT).parts[0].removesuffix(".py") in LIGHT]
    assert len(light) >= 10
    for path in light:
        loaded = [each.module for each in imports_of(path) if not (each.inside_function or each.for_type_checkers)]
        heavy = [module for module in loaded if module.split(".")[0] in HEAVY]
        assert not heavy, f"{path.relative_to(ROOT)} imports {', '.join(heavy)} outside a function"


def test_networks_and_metrics_need_nothing_but_torch_and_its_kin() -> None:
    for module, path in MODULES.items():
        if (place := place_of(module)) in STANDS_ALONE:
            imported = (
                {each.module.split(".")[0] for each in imports_of(path)} - set(sys.stdlib_module_names) - {"r2seg"}
            )
            assert imported <= STANDS_ALONE[place], f"{module} imports {imported - STANDS_ALONE[place]}"


# This test itself


def tree(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / "r2seg" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root / "r2seg"


def test_imports_are_seen_wherever_they_stand(tmp_path: Path) -> None:
    text = (
        "import r2seg.run\nfrom . import images\nfrom ..inference import windows\nfrom r2seg import cli\n"
        "if TYPE_CHECKING:\n    import torch\nelse:\n    import monai\n"
        "def f():\n    from r2seg.training.train import train\n"
        "class A:\n    def g(self):\n        import scipy\n"
    )
    root = tree(tmp_path, {"data/x.py": text, "data/images.py": "", "cli/__init__.py": "", "inference/__init__.py": ""})
    assert imports_of(root / "data" / "x.py", root) == [
        Import("r2seg.run"),
        Import("r2seg.data.images"),
        Import("r2seg.inference"),
        Import("r2seg.cli"),
        Import("torch", for_type_checkers=True),
        Import("monai"),
        Import("r2seg.training.train", inside_function=True),
        Import("scipy", inside_function=True),
    ]


@pytest.mark.parametrize(
    "back",
    ["from r2seg.a import f", "def g():\n    from r2seg.a import f", "if TYPE_CHECKING:\n    from r2seg.a import f"],
)
def test_a_circle_is_found_however_it_closes(tmp_path: Path, back: str) -> None:
    files = {
        "__init__.py": "",
        "a.py": "from r2seg.p import b",
        "p/__init__.py": "",
        "p/b.py": "from r2seg.p.c import x",
    }
    assert circles(imports_within(tree(tmp_path, {**files, "p/c.py": ""}))) == []
    assert circles(imports_within(tree(tmp_path, {**files, "p/c.py": back}))) == [["r2seg.a", "r2seg.p.b", "r2seg.p.c"]]
