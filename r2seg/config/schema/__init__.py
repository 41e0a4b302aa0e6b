"""The schema: one page of typed, frozen settings with their defaults, one module per section.

What a config may hold, and which of its values contradict one another. How YAML becomes this is in reading.py; the messages
about mistakes are in problems.py and network.py.
"""

from r2seg.config.schema.base import Problem, Section, shown
from r2seg.config.schema.config import Config, unknown_labels
from r2seg.config.schema.data import Data
from r2seg.config.schema.inference import FillHoles, Infer, LargestComponents, PostprocessingStep
from r2seg.config.schema.network import Network
from r2seg.config.schema.preprocessing import Preprocessing
from r2seg.config.schema.split import HeldOut, Split
from r2seg.config.schema.training import Augmentation, Sampling, Training, Window

__all__ = [
    "Augmentation",
    "Config",
    "Data",
    "FillHoles",
    "HeldOut",
    "Infer",
    "LargestComponents",
    "Network",
    "PostprocessingStep",
    "Preprocessing",
    "Problem",
    "Sampling",
    "Section",
    "Split",
    "Training",
    "Window",
    "shown",
    "unknown_labels",
]
