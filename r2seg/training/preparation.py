"""Before the first step: the cases, preprocessed and checked, and the run, new or opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r2seg.case_sets import parts_of
from r2seg.config import Config, dump_config
from r2seg.data.cache import CachedCase, cache_cases
from r2seg.data.cases import Case
from r2seg.data.layouts import find_cases
from r2seg.data.splits import split_cases
from r2seg.errors import UserError
from r2seg.files import write_text
from r2seg.run import CACHE, CONFIG, Run, environment, refuse_used
from r2seg.training.progress import TrainingProgress


def finished_run(config: Config, output: Path) -> Run | None:
    """The run in a folder where it has trained for all of the config's epochs: its data are not asked for."""
    if not (output / CONFIG).is_file():
        return None
    run = Run.open(output)
    if run.manifest.get("state") != "finished" or run.manifest["epochs"] < config.training.max_epochs:
        return None
    _refuse_other_config(run, config)
    return run


def prepare_run(
    config: Config, output: Path, resume: bool, progress: TrainingProgress
) -> tuple[Run, dict[str, list[CachedCase]]]:
    """The run, new or opened, and its cases, preprocessed."""
    going_on = resume and (output / CONFIG).is_file()
    if going_on:
        run = Run.open(output)
        _refuse_other_config(run, config)
        parts = parts_of(run, config)
    else:
        refuse_used(output)
        parts = split_cases(find_cases(config.data), config.data.split, config.seed)
    folder = config.data.cache or output / CACHE
    total, done = sum(map(len, parts.values())), 0
    counts = {part: len(members) for part, members in parts.items()}
    progress.message(", ".join(f"{count} {part} case{'' if count == 1 else 's'}" for part, count in counts.items()))

    def count(_: Case) -> None:
        nonlocal done
        done += 1
        progress.preparing(done, total)

    everything = cache_cases([case for members in parts.values() for case in members], config, folder, count)
    by_id = {case.id: case for case in everything}
    cached = {part: [by_id[case.id] for case in members] for part, members in parts.items()}
    facts = check_cached(cached, config)
    if not going_on:
        run = Run.create(
            output,
            config,
            {part: [case.id for case in members] for part, members in parts.items()},
            {**facts, "labels": list(config.data.labels), "state": "training", "epochs": 0, **environment()},
        )
    else:
        run.update_manifest(state="training")
    return run, cached


def check_cached(cached: Mapping[str, Sequence[CachedCase]], config: Config) -> dict[str, int]:
    """Facts that all cases share, ``in_channels`` and ``image_dims``; refuses what cannot be trained or validated on."""
    everything = [case for members in cached.values() for case in members]
    first = everything[0]
    for case in everything:
        if case.label.ndim != first.label.ndim:
            raise UserError(
                f"case {case.id} has {case.label.ndim} axes and case {first.id} has {first.label.ndim}: keep pictures and volumes apart"
            )
        if len(case.voxels) != len(first.voxels):
            raise UserError(
                f"case {case.id} has {len(case.voxels)} channels and case {first.id} has {len(first.voxels)}: all need the same"
            )
    if config.window.plane and first.label.ndim == 2:
        raise UserError(
            f"window.plane is {config.window.plane} and the cases are pictures, not volumes: leave window.plane out"
        )
    for part in ("train", "validation"):
        found = {index for case in cached[part] for index in case.foreground}
        lost = [name for index, name in enumerate(config.data.labels, start=1) if index not in found]
        if lost and (part == "train" or not found):
            labels = (
                f"label{'s' * (len(lost) > 1)} {', '.join(lost[:8])}{f' and {len(lost) - 8} more' * (len(lost) > 8)}"
            )
            raise UserError(
                f"no {part} case holds the {labels} (of {len(cached[part])}): check data.labels and data.split"
            )
    return {"in_channels": len(first.voxels), "image_dims": first.label.ndim}


# What may differ between a run's config and the one it is resumed with: where data lie, and for how long to train.
_MAY_CHANGE = {("data", "root"), ("data", "cache"), ("training", "max_epochs"), ("training", "early_stopping")}


def _refuse_other_config(run: Run, config: Config) -> None:
    """A resumed run keeps its config; what may change is written into it."""

    def flat(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
        if isinstance(value, Mapping):
            return {key: leaf for name, inner in value.items() for key, leaf in flat(inner, (*path, name)).items()}
        return {path: value}

    old, new = flat(run.config.model_dump(mode="json")), flat(config.model_dump(mode="json"))
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    refused = [f"{'.'.join(key)} ({old.get(key)!r}, now {new.get(key)!r})" for key in changed if key not in _MAY_CHANGE]
    if refused:
        raise UserError(
            f"{run.path} was trained with another config: {', '.join(refused)}; start another run with -o RUN"
        )
    if changed:
        write_text(run.path / CONFIG, dump_config(config))
