"""The run folder: everything one training leaves behind, and all that inference needs.

``config.yaml`` (resolved), ``splits.json``, ``manifest.json`` (what the network was built with, versions, state),
``metrics.csv`` (a row an epoch), ``last.pt`` (to resume), ``best.pt`` (to predict), ``thresholds.json``, ``plots/`` (its course,
and predictions on held-out cases), ``tensorboard/``. Every file is written beside and renamed, so a killed run leaves whole
files only. No path inside matters after training: a run can be moved.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import pickle
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r2seg import __version__
from r2seg.config import Config, build_configured_network, dump_config, load_config
from r2seg.data.cases import Case, find_cases
from r2seg.data.splits import PARTS, split_cases
from r2seg.errors import UserError

if TYPE_CHECKING:
    from r2seg.networks.base import SegmentationNetwork

CONFIG, SPLITS, MANIFEST, METRICS, BEST, LAST = (
    "config.yaml",
    "splits.json",
    "manifest.json",
    "metrics.csv",
    "best.pt",
    "last.pt",
)
TENSORBOARD = "tensorboard"
PLOTS = "plots"
CACHE = "cache"


def write_atomically(path: Path, write: Callable[[io.BufferedWriter], None]) -> None:
    """Writes beside the path, syncs, and renames: the path holds the old content or the new, never a part.

    Raises:
        UserError: The folder cannot be written or is full; nothing is left beside.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        temporary = None
    except Exception as error:
        # torch.save turns a full disk into an error of its own, with the true one behind it.
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__
        if cause is None:
            raise
        raise UserError(f"{path}: cannot be written: {cause.strerror or cause}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Text in UTF-8, written beside and renamed."""
    write_atomically(path, lambda file: file.write(text.encode("utf-8")))


def write_json(path: Path, value: Any) -> None:
    """JSON, written beside and renamed."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}): the run is damaged") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no keys and values: the run is damaged")
    return content


@dataclass(frozen=True)
class Run:
    """A run folder.

    Attributes:
        path: The folder.
    """

    path: Path

    @classmethod
    def create(
        cls, path: Path, config: Config, splits: Mapping[str, Sequence[str]], manifest: Mapping[str, Any]
    ) -> Run:
        """A new run with its config, splits and manifest; the folder may exist but hold no run."""
        refuse_used(path)
        write_json(path / SPLITS, splits)
        write_json(path / MANIFEST, manifest)
        # The config comes last: a folder with one is a run.
        write_text(path / CONFIG, dump_config(config))
        return cls(path)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Run:
        """An existing run.

        Raises:
            UserError: The folder is no run; the text names runs that are near.
        """
        path = Path(path)
        if path.is_file() and path.name in (BEST, LAST, CONFIG):
            path = path.parent
        if not (path / CONFIG).is_file():
            near = sorted(str(entry.parent) for entry in (path if path.is_dir() else path.parent).glob(f"*/{CONFIG}"))
            hint = f"; runs near it: {', '.join(near[:5])}" if near else "; r2seg-train makes one"
            raise UserError(f"{path} is no run: it has no {CONFIG}{hint}")
        return cls(path)

    @cached_property
    def config(self) -> Config:
        """The resolved config, as it was trained with."""
        return load_config(self.path / CONFIG)

    @property
    def manifest(self) -> dict[str, Any]:
        """What the network was built with (``in_channels``), versions, state and results."""
        return _read_json(self.path / MANIFEST)

    def update_manifest(self, **values: Any) -> None:
        """Sets keys of the manifest."""
        write_json(self.path / MANIFEST, {**self.manifest, **values})

    @property
    def splits(self) -> dict[str, list[str]]:
        """Ids of the cases of "train", "validation" and "test"."""
        path = self.path / SPLITS
        splits = _read_json(path)
        if not all(isinstance(splits.get(part), list) for part in PARTS):
            raise UserError(f"{path}: does not list the cases of {', '.join(PARTS)}: the run is damaged")
        return splits

    def save_checkpoint(self, name: str, content: Mapping[str, Any]) -> None:
        """Writes ``best.pt`` or ``last.pt``; the old one stays until the new one is whole."""
        import torch

        write_atomically(self.path / name, lambda file: torch.save(dict(content), file))

    def load_checkpoint(self, name: str) -> dict[str, Any]:
        """A checkpoint's content on the CPU; only tensors and plain data are ever unpickled."""
        import torch

        path = self.path / name
        if not path.is_file():
            remedy = "the training ended before its first validation; r2seg-train --resume goes on"
            if self.manifest.get("state") == "finished":
                remedy = "it was removed after the training had finished; put it back, or train again with -o RUN"
            raise UserError(f"{self.path} has no {name}: {remedy}")
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for a damaged file, some advising what is unsafe
            reason = "it is empty" if path.stat().st_size == 0 else type(error).__name__
            if isinstance(error, pickle.UnpicklingError):
                reason = "more than tensors and plain data"
            raise UserError(
                f"{path}: cannot be read as a checkpoint ({reason}): it is damaged, or not r2seg's"
            ) from error
        if not isinstance(content, dict) or "network" not in content:
            raise UserError(f"{path}: holds no network: it is not a checkpoint of r2seg")
        return content

    def build_network(self) -> SegmentationNetwork:
        """The run's network as it was built for training, with fresh weights; nothing is fetched."""
        in_channels = self.manifest.get("in_channels")
        if not isinstance(in_channels, int):
            raise UserError(f"{self.path / MANIFEST}: does not say in_channels: the run is damaged")
        return build_configured_network(self.config, in_channels)

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """All rows of ``metrics.csv``."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path / METRICS, text.getvalue())


def environment() -> dict[str, Any]:
    """What a manifest says of where and when a run was made."""
    from importlib.metadata import version

    return {
        "schema": 1,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "r2seg": __version__,
            "torch": version("torch"),
            "monai": version("monai"),
            "python": platform.python_version(),
        },
    }


def refuse_used(path: Path) -> None:
    """Raises where a folder already holds a run, or cannot hold one."""
    if (path / CONFIG).is_file():
        raise UserError(f"{path} holds a run already: --resume goes on with it, -o RUN starts another")
    nearest = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise UserError(f"{nearest} is a file: name a folder with -o RUN")
    # A run that was killed before its config was written leaves these: they are made anew.
    unfinished = (SPLITS, MANIFEST, CACHE)
    if path.is_dir() and any(
        entry.name not in unfinished and not entry.name.startswith(".") for entry in path.iterdir()
    ):
        raise UserError(f"{path} is not empty and holds no run: name another folder with -o RUN")


@dataclass(frozen=True)
class CasesOfPart:
    """Cases of one part of a run's or a config's split; its text says which, for people.

    Attributes:
        config: The config that declares their labels.
        part: "train", "validation", "test" or "all".
        cases: The cases, sorted by part and id.
        origin: The run or config they come from.
    """

    config: Config
    part: str
    cases: list[Case]
    origin: Path

    def __str__(self) -> str:
        which = "all" if self.part == "all" else f"the {self.part}"
        return f"{which} cases of {self.origin} ({len(self.cases)})"


def parts_of(run: Run, config: Config) -> dict[str, list[Case]]:
    """The run's split as cases, found where the config's data lie."""
    by_id = {case.id: case for case in find_cases(config.data)}
    lost = [case_id for ids in run.splits.values() for case_id in ids if case_id not in by_id]
    if lost:
        raise UserError(f"{run.path}: its cases {', '.join(lost[:5])} are not in {config.data.root} any more")
    return {part: [by_id[case_id] for case_id in ids] for part, ids in run.splits.items()}


def names_cases(path: Path) -> bool:
    """Whether a path is a run or a config, and not a folder or file of images."""
    return (path / CONFIG).is_file() or path.suffix in (".yaml", ".yml")


def cases_of(path: Path, part: str | None = None) -> CasesOfPart:
    """The labelled cases of a run or a config, of one part of its split.

    Args:
        path: A run folder, whose own split holds, or a config, whose split is drawn as training would.
        part: "train", "validation", "test" or "all". Left out: the test cases, or validation where there are none; never
            those the network was trained on, which flatter it.

    Raises:
        UserError: The part is unknown or empty, or its data are not there.
    """
    if part not in (None, "all", *PARTS):
        raise UserError(f"--split {part}: valid are test, validation, train and all")
    if (path / CONFIG).is_file():
        run = Run.open(path)
        config, parts = run.config, parts_of(run, run.config)
    else:
        config = load_config(path, require_data=True)
        parts = split_cases(find_cases(config.data), config.data.split, config.seed)
    part = part or ("test" if parts["test"] else "validation")
    cases = [case for name in PARTS if part in (name, "all") for case in parts[name]]
    if not cases:
        raise UserError(f"{path} has no {part} cases; it has {', '.join(name for name in PARTS if parts[name])}")
    return CasesOfPart(config, part, cases, path)
