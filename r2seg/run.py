"""The run folder: everything one training leaves behind, and all that inference needs.

``config.yaml`` (with every default, those of the network too), ``splits.json``, ``manifest.json`` (what the network was built with, versions, state),
``metrics.csv`` (one row per epoch), ``last.pt`` (to resume), ``best.pt`` (to predict), ``thresholds.json``, ``plots/``
(metrics by epoch, and predictions on held-out cases), ``tensorboard/``. Every file is written atomically, so that a killed run
holds no broken file. Inference needs none of the paths in it: a run can be moved to another machine.

How a run is trained is in ``training``; which of its cases are meant, in ``case_sets``.
"""

from __future__ import annotations

import csv
import io
import os
import pickle
import platform
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r2seg import __version__
from r2seg.config import Config, build_configured_network, dump_config, load_config, with_network_defaults
from r2seg.config.schema import shown
from r2seg.data.splits import PARTS
from r2seg.errors import UserError, some
from r2seg.files import read_json, write_atomically, write_json, write_text

if TYPE_CHECKING:
    from r2seg.networks.base import SegmentationNetwork

CONFIG = "config.yaml"
SPLITS = "splits.json"
MANIFEST = "manifest.json"
METRICS = "metrics.csv"
BEST = "best.pt"
LAST = "last.pt"
TENSORBOARD = "tensorboard"
PLOTS = "plots"
CACHE = "cache"


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
        """A new run with its config, splits and manifest.

        Raises:
            UserError: The folder holds a run or other files already, or cannot be written.
        """
        refuse_used(path)
        write_json(path / SPLITS, splits)
        write_json(path / MANIFEST, manifest)
        # The config comes last: a folder that has one is a run folder.
        write_text(path / CONFIG, dump_config(with_network_defaults(config)))
        return cls(path)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Run:
        """An existing run, from its folder, its config or a checkpoint.

        Raises:
            UserError: The folder is not a run folder; the text names runs nearby.
        """
        path = Path(path)
        if path.is_file() and path.name in (BEST, LAST, CONFIG):
            path = path.parent
        if not (path / CONFIG).is_file():
            near = sorted(str(entry.parent) for entry in (path if path.is_dir() else path.parent).glob(f"*/{CONFIG}"))
            hint = f"runs nearby: {some(near)}" if near else "train one with r2seg-train"
            raise UserError(f"{path} is not a run folder: it has no {CONFIG}; {hint}")
        return cls(path)

    @cached_property
    def config(self) -> Config:
        """The config it was trained with, every default written out."""
        return load_config(self.path / CONFIG)

    @property
    def manifest(self) -> dict[str, Any]:
        """What the network was built with (such as ``in_channels``), versions, state and results."""
        return read_json(self.path / MANIFEST)

    def update_manifest(self, **values: Any) -> None:
        """Sets keys of the manifest."""
        write_json(self.path / MANIFEST, {**self.manifest, **values})

    @property
    def in_channels(self) -> int:
        """Channels of an image.

        Raises:
            UserError: The manifest is damaged.
        """
        return self._number("in_channels", range(1, 100_000))

    @property
    def image_dims(self) -> int:
        """2 where it was trained on pictures, 3 for volumes.

        Raises:
            UserError: The manifest is damaged.
        """
        return self._number("image_dims", range(2, 4))

    def _number(self, name: str, allowed: range) -> int:
        value = self.manifest.get(name)
        if value is None:
            raise UserError(f"{self.path / MANIFEST}: does not say {name}: the run is damaged")
        if not isinstance(value, int) or value not in allowed:
            raise UserError(
                f"{self.path / MANIFEST}: {name} is {shown(value)}, expected a number from {allowed[0]} to {allowed[-1]}: "
                "the run is damaged"
            )
        return value

    @property
    def splits(self) -> dict[str, list[str]]:
        """Ids of the cases of "train", "validation" and "test"."""
        path = self.path / SPLITS
        splits = read_json(path)
        if not all(isinstance(splits.get(part), list) for part in PARTS):
            raise UserError(f"{path}: does not list the cases of {', '.join(PARTS)}: the run is damaged")
        return splits

    def save_checkpoint(self, name: str, content: Mapping[str, Any]) -> None:
        """Writes ``best.pt`` or ``last.pt``, with the checksums that a zip file has; the old one stays until the new one is complete."""
        import torch

        write_atomically(self.path / name, lambda file: torch.save(dict(content), file))

    def load_checkpoint(self, name: str) -> dict[str, Any]:
        """A checkpoint's content on the CPU; nothing but tensors and plain data is ever unpickled.

        Raises:
            UserError: The checkpoint is missing, damaged, or not one of r2seg's.
        """
        import torch

        path = self.path / name
        if not path.is_file():
            remedy = "the training ended before its first validation; continue it with r2seg-train --resume"
            if self.manifest.get("state") == "finished":
                remedy = "it was removed after the training had finished; put it back, or train again with -o RUN"
            raise UserError(f"{self.path} has no {name}: {remedy}")
        try:
            _check_sums(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # for a damaged file torch raises many types, some with unsafe advice
            reason = "it is empty" if path.stat().st_size == 0 else type(error).__name__
            if isinstance(error, _WrongSumError):
                reason = str(error)
            if isinstance(error, pickle.UnpicklingError):
                reason = "it holds more than tensors and plain data"
            raise UserError(
                f"{path}: cannot be read as a checkpoint ({reason}): it is damaged, or not r2seg's"
            ) from error
        network = content.get("network") if isinstance(content, dict) else None
        if not isinstance(network, dict) or not all(isinstance(name, str) for name in network):
            raise UserError(f"{path}: holds no network: it is not a checkpoint of r2seg")
        return content

    def build_network(self) -> SegmentationNetwork:
        """The run's network as it was built for training, with fresh weights; nothing is downloaded.

        Raises:
            UserError: The manifest is damaged.
        """
        try:
            return build_configured_network(self.config, self.in_channels)
        except (RuntimeError, MemoryError, OverflowError) as error:
            raise UserError(
                f"{self.path}: its network cannot be built ({' '.join(str(error).split())[:200]}): the run is damaged, "
                "or the machine has too little memory"
            ) from error

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes all rows of ``metrics.csv``, with a column for every key that any row has."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path / METRICS, text.getvalue())


class _WrongSumError(Exception):
    """Bytes of a checkpoint differ from those that were written."""


def _check_sums(path: Path) -> None:
    """Compares every part of a checkpoint with its checksum: torch.save writes zip files, and torch.load verifies no sum."""
    if not zipfile.is_zipfile(path):
        return  # torch.load says what it is
    with zipfile.ZipFile(path) as file:
        try:
            damaged = file.testzip()
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise _WrongSumError(str(error)) from error
    if damaged is not None:
        raise _WrongSumError(f"the checksum of {damaged} is wrong")


def environment() -> dict[str, Any]:
    """The part of a manifest that says when a run was made, and with which versions."""
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
    """Checks that a new run can be made in a folder.

    Raises:
        UserError: It holds a run or other files already, or is a file.
    """
    if (path / CONFIG).is_file():
        raise UserError(f"{path} already holds a run: continue it with --resume, or start another with -o RUN")
    nearest = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise UserError(f"{nearest} is a file: name a folder with -o RUN")
    # A run that was killed before its config was written leaves these: they are written again.
    unfinished = (SPLITS, MANIFEST, CACHE)
    if path.is_dir() and any(
        entry.name not in unfinished and not entry.name.startswith(".") for entry in path.iterdir()
    ):
        raise UserError(f"{path} is not empty and is not a run folder: name another folder with -o RUN")
