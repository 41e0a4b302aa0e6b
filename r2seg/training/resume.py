"""Whether the run in a folder can be resumed with a config, and what the config may change about it.

What is restored from the last checkpoint is in ``journal``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from r2seg.config import Config, dump_config, with_network_defaults
from r2seg.errors import UserError
from r2seg.files import write_text
from r2seg.run import CONFIG, Run

# What may differ between a run's config and the one it is resumed with: where data lie, and for how long to train.
_MAY_CHANGE = {("data", "root"), ("data", "cache"), ("training", "max_epochs"), ("training", "early_stopping")}


def run_to_resume(config: Config, output: Path) -> Run | None:
    """The run in a folder, or None where there is none yet. Nothing is changed.

    Raises:
        UserError: The run was trained with another config; the text lists the keys that differ.
    """
    if not (output / CONFIG).is_file():
        return None
    run = Run.open(output)
    old, new = _leaves(run.config), _leaves(config)
    refused = [
        f"{'.'.join(key)} ({old.get(key)!r}, now {new.get(key)!r})"
        for key in {**old, **new}
        if old.get(key) != new.get(key) and key not in _MAY_CHANGE
    ]
    if refused:
        raise UserError(
            f"{run.path} was trained with another config: {', '.join(refused)}; start another run with -o RUN"
        )
    return run


def is_finished(run: Run, config: Config) -> bool:
    """Whether a run has trained for all of the config's epochs and has its results."""
    manifest = run.manifest
    return manifest.get("state") == "finished" and manifest["epochs"] >= config.training.max_epochs


def adopt_config(run: Run, config: Config) -> Run:
    """Writes the config it is resumed with into a run, and returns the run with it."""
    config = with_network_defaults(config)
    if run.config.model_dump(mode="json") != config.model_dump(
        mode="json"
    ):  # runs of version 0.1.0 lack the network's defaults
        write_text(run.path / CONFIG, dump_config(config))
    return Run(run.path)


def _leaves(config: Config) -> dict[tuple[str, ...], Any]:
    """The config's values by the path of their keys, the network's defaults among them."""

    def flat(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
        if isinstance(value, Mapping):
            return {key: leaf for name, inner in value.items() for key, leaf in flat(inner, (*path, name)).items()}
        return {path: value}

    return flat(with_network_defaults(config).model_dump(mode="json"))
