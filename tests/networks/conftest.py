"""What several test files of the networks share: the measures of docs/networks.md, and models of torchvision."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torchvision.models
from torch import nn


@pytest.fixture(scope="session")
def network_table() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "network_table.py"
    spec = importlib.util.spec_from_file_location("network_table", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def torchvision_model() -> Callable[[str], nn.Module]:
    """A maker of torchvision's models, with statistics and scales as training leaves them: in evaluation mode they matter."""

    def make(name: str) -> nn.Module:
        torch.manual_seed(0)
        model = torchvision.models.get_model(name, weights=None).eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
                nn.init.uniform_(module.weight, 0.5, 1.5)
        return model

    return make


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[nn.Module], str]:
    """Saves a model's state dict to a file and returns its path."""

    def save(model: nn.Module) -> str:
        torch.save(model.state_dict(), tmp_path / "weights.pth")
        return str(tmp_path / "weights.pth")

    return save
