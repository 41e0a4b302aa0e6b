"""Whether the run in a folder can be resumed with a config, and what the config may change about it.

What is restored from the last checkpoint is in ``journal``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from r2seg.config import Config, dump_config, with_network_defaults
from r2seg.errors import UserError, counted
from r2seg.files import write_text
from r2seg.run import CONFIG, Run
from r2seg.training.schedules import learning_rate_factor

# What may differ between a run's config and the one it is resumed with: where data lie, and for how long to train.
_MAY_CHANGE = {
    ("data", "root"),
    ("data", "split", "test", "root"),
    ("data", "split", "file"),  # read when the run began: its splits.json holds
    ("data", "cache"),
    ("training", "max_epochs"),
    ("training", "early_stopping"),
}


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


def computed_on(device: torch.device) -> dict[str, Any]:
    """The part of a manifest that says where a training computes: with other threads or devices its last bits differ."""
    return {"device": str(device), "threads": torch.get_num_threads()}


def differences(run: Run, config: Config, device: torch.device, step: int, steps_per_epoch: int) -> list[str]:
    """What makes a resumed run differ from an uninterrupted one, one line each.

    Args:
        run: As it was before.
        config: What it is resumed with.
        device: Where it computes from now on.
        step: Steps that were trained so far.
        steps_per_epoch: Batches of an epoch.
    """
    lines = []
    manifest, now = run.manifest, computed_on(device)
    changed = [
        counted(manifest[name], "thread") if name == "threads" else str(manifest[name])
        for name in ("device", "threads")
        if name in manifest and manifest[name] != now[name] and (name == "device" or device.type == "cpu")
    ]
    if changed:
        lines.append(
            f"this run was trained with {' and '.join(changed)}, and now with {now['device']} and {counted(now['threads'], 'thread')}: "
            "its weights will differ from those of an uninterrupted run in their last bits"
        )
    old, new = (
        each.training.learning_rate
        * learning_rate_factor(each.training.warmup_epochs, each.training.max_epochs, steps_per_epoch)(step)
        for each in (run.config, config)
    )
    if step and abs(new - old) > 0.01 * old:
        lines.append(
            f"training.max_epochs is {config.training.max_epochs} and was {run.config.training.max_epochs}: the learning rate "
            f"jumps from {old:.3g} to {new:.3g}, so the run differs from one that had these epochs from the start"
        )
    return lines


def _leaves(config: Config) -> dict[tuple[str, ...], Any]:
    """The config's values by the path of their keys, the network's defaults among them."""

    def flat(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
        if isinstance(value, Mapping):
            return {key: leaf for name, inner in value.items() for key, leaf in flat(inner, (*path, name)).items()}
        return {path: value}

    return flat(with_network_defaults(config).model_dump(mode="json"))
