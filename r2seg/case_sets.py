"""The labelled cases that a run or a config names: of one part of its split, or of all.

How files become cases is in ``data.cases``, how a config's split is drawn in ``data.splits``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from r2seg.config import Config, HeldOut, load_config
from r2seg.data.cases import Case
from r2seg.data.label_presence import labels_present
from r2seg.data.layouts import find_cases
from r2seg.data.splits import PARTS, DrawnSplit, draw_folds, draw_split
from r2seg.errors import UserError, some
from r2seg.run import CONFIG, Run


@dataclass(frozen=True)
class CasesOfPart:
    """Cases of one part of a run's or a config's split; ``str`` describes them to people.

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


LabelsRead = Callable[[int, int], None]
"""Called with the number of label maps read and of all, where a split is stratified."""


def split_of(config: Config, on_labels: LabelsRead | None = None, *, cases: Sequence[Case] | None = None) -> DrawnSplit:
    """The split of a config's cases; with folds, that of ``data.split.fold``.

    Args:
        config: Its data and split.
        on_labels: Called after each label map that is read to stratify.
        cases: The config's cases, where they are known already.

    Raises:
        UserError: Cases are not found, label maps cannot be read, or the split cannot be drawn.
    """
    cases, presence = _to_split(config, on_labels, cases)
    return draw_split(cases, config.data.split, config.seed, presence)


def folds_of(config: Config, on_labels: LabelsRead | None = None) -> Iterator[DrawnSplit]:
    """The splits of all folds of a config, whatever its ``data.split.fold`` is; one split if it has no folds.

    Raises:
        UserError: As ``split_of``.
    """
    cases, presence = _to_split(config, on_labels, None)
    yield from draw_folds(cases, config.data.split, config.seed, presence)


def _to_split(
    config: Config, on_labels: LabelsRead | None, cases: Sequence[Case] | None
) -> tuple[Sequence[Case], dict[str, frozenset[str]] | None]:
    """The cases of a config and, if they are to be stratified, the labels of those that can be drawn."""
    cases = find_cases(config.data) if cases is None else cases
    if not config.data.split.stratify:
        return cases, None
    return cases, labels_present([case for case in cases if case.split != "test"], config.data, on_labels)


def parts_of(run: Run, config: Config) -> dict[str, list[Case]]:
    """The cases of each part of the run's split, found in the config's data folder.

    Raises:
        UserError: Cases of the run are no longer there.
    """
    by_id = {case.id: case for case in find_cases(config.data)}
    lost = [case_id for ids in run.splits.values() for case_id in ids if case_id not in by_id]
    if lost:
        test = config.data.split.test
        roots = f"{config.data.root}{f' or {test.root}' if isinstance(test, HeldOut) else ''}"
        raise UserError(f"{run.path}: its cases {some(lost)} are no longer in {roots}")
    return {part: [by_id[case_id] for case_id in ids] for part, ids in run.splits.items()}


def names_cases(path: Path) -> bool:
    """Whether a path is a run folder or a config, rather than a folder or file of images."""
    return (path / CONFIG).is_file() or path.suffix in (".yaml", ".yml")


def cases_of(path: Path, part: str | None = None) -> CasesOfPart:
    """The labelled cases of a run or a config, of one part of its split.

    Args:
        path: A run folder, whose own split holds, or a config, whose split is drawn as training would.
        part: "train", "validation", "test" or "all". By default the test cases, or those of validation if there are none:
            never the training cases, on which every network scores too well.

    Raises:
        UserError: The part is unknown or empty, or its files are missing.
    """
    if part not in (None, "all", *PARTS):
        raise UserError(f"--split {part}: valid are test, validation, train and all")
    if (path / CONFIG).is_file():
        run = Run.open(path)
        config, parts = run.config, parts_of(run, run.config)
    else:
        config = load_config(path, require_data=True)
        parts = split_of(config).parts
    if part is None and not (parts["test"] or parts["validation"]):
        raise UserError(
            f"{path} has no test and no validation cases: all its cases are for training; ask for them with --split train, "
            "or name other images"
        )
    part = part or ("test" if parts["test"] else "validation")
    cases = [case for name in PARTS if part in (name, "all") for case in parts[name]]
    if not cases:
        raise UserError(f"{path} has no {part} cases; it has {', '.join(name for name in PARTS if parts[name])}")
    return CasesOfPart(config, part, cases, path)
