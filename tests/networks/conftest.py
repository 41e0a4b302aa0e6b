"""The measures that docs/networks.md is made with, for the tests of this room."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def network_table() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "network_table.py"
    spec = importlib.util.spec_from_file_location("network_table", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
