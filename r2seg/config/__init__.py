"""The config: one page of typed, frozen schema, and errors that name key, file line and remedy.

Importing it loads no torch. Checking a folder's images is in data/, building a network in networks/.
"""

from r2seg.config.network import build_configured_network, with_network_defaults
from r2seg.config.reading import ConfigError, dump_config, load_config
from r2seg.config.schema import (
    Augmentation,
    Config,
    Data,
    FillHoles,
    HeldOut,
    LargestComponents,
    PostprocessingStep,
    Preprocessing,
    Sampling,
    Split,
    Window,
)

__all__ = [
    "Augmentation",
    "Config",
    "ConfigError",
    "Data",
    "FillHoles",
    "HeldOut",
    "LargestComponents",
    "PostprocessingStep",
    "Preprocessing",
    "Sampling",
    "Split",
    "Window",
    "build_configured_network",
    "dump_config",
    "load_config",
    "with_network_defaults",
]
