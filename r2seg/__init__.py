"""r2seg: medical image segmentation with R2U-Net and related networks, on MONAI.

Importing the package is cheap: the public verbs load their rooms (and torch) when first used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_VERBS = {
    "load_config": "r2seg.config",
    "build_network": "r2seg.networks",
    "train": "r2seg.training.train",
    "Segmenter": "r2seg.inference.segmenter",
    "WindowInferer": "r2seg.inference.windows",
    "evaluate": "r2seg.evaluation.evaluate",
    "EvaluationOptions": "r2seg.evaluation.options",
}
__all__ = ["__version__", *_VERBS]


def __getattr__(name: str) -> Any:
    if name in _VERBS:
        return getattr(import_module(_VERBS[name]), name)
    raise AttributeError(f"module 'r2seg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
