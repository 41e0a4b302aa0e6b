"""``init_config``: from a folder of images and label maps to a commented config that trains as it is."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from r2seg.config import Config, Data, load_config
from r2seg.data.layouts import LAYOUTS, find_cases
from r2seg.data.splits import DrawnSplit, draw_split
from r2seg.errors import UserError, counted, some
from r2seg.files import write_text
from r2seg.planning.dataset import Dataset, find_dataset
from r2seg.planning.facts import Choice, Machine, Summary, Wishes
from r2seg.planning.length import DEFAULT_BUDGET_SECONDS, Length, duration, fit_length, length_choices
from r2seg.planning.looks import MOST_CASES, look_at_all, tell_kind
from r2seg.planning.recipe import (
    augmentation_choices,
    learning_rate_choice,
    preprocessing_choices,
    split_choices,
    window_choices,
)
from r2seg.planning.sizes import Sizes, plan_sizes
from r2seg.planning.timing import Measured, OutOfMemory, measure
from r2seg.planning.write import config_text

Progress = Callable[[str, int, int], None]
_SEED = 0
# A plan that does not fit the memory is tried again with half the batch, at most so often.
_TRIALS = 4
_MOST_PROBLEMS = 10


@dataclass(frozen=True)
class Options:
    """What the user asked for.

    Attributes:
        dims: 2 or 3, or None to let the data decide.
        budget_seconds: How long the training may take; None for an hour on a CPU, eight hours on a GPU.
        name: Name of the experiment; None for the folder's.
        force: Whether existing files are replaced.
    """

    dims: int | None = None
    budget_seconds: float | None = None
    name: str | None = None
    force: bool = False


@dataclass(frozen=True)
class Plan:
    """A written config and what is behind it.

    Attributes:
        path: The config.
        table: The table of cases beside it, where patterns do not describe the files; else None.
        found: What the folder holds, one line each.
        choices: Every setting with its reason.
        doubts: What to check, one line each.
        length: How long the training is.
        measured: What was measured on this machine.
    """

    path: Path
    table: Path | None
    found: tuple[str, ...]
    choices: tuple[Choice, ...]
    doubts: tuple[str, ...]
    length: Length
    measured: Measured


def init_config(
    folder: Path, output: Path, options: Options, device: torch.device, progress: Progress | None = None
) -> Plan:
    """Looks at a folder, plans a training for it and writes the config.

    Args:
        folder: Images and label maps, in any layout.
        output: YAML file to write; a table of cases is written beside it if names alone do not describe the files.
        options: What the user asked for.
        device: Where the training is to run; a few of its steps are tried there.
        progress: Called with what is done, how many are done and of how many.

    Raises:
        UserError: A file exists already, or the folder gives no training; the message says why.
    """
    report = progress or (lambda what, done, of: None)
    _refuse_existing(output, options)
    dataset = find_dataset(folder, lambda done, of: report("reading label maps", done, of))
    table = output.with_name(f"{output.stem}_cases.csv") if dataset.table is not None else None
    if table is not None:
        _refuse_existing(table, options)
    data, problems = _summary(dataset, folder, lambda done, of: report("reading images", done, of))
    machine = Machine.of(device)
    default = DEFAULT_BUDGET_SECONDS["gpu" if machine.is_fast else "cpu"]
    wishes = Wishes(options.dims, options.budget_seconds or default, options.budget_seconds is not None)
    report("trying the plan on this machine", 0, 1)
    with tempfile.TemporaryDirectory(prefix="r2seg-init-") as scratch:
        trial = _Trial(dataset, data, machine, options.name or _name_of(dataset.root), Path(scratch))
        sizes, split, measured = trial.fit(plan_sizes(data, machine, wishes), device)
    report("trying the plan on this machine", 1, 1)
    length = fit_length(measured.costs, wishes.budget_seconds)
    table_place = None if table is None else _place_of_table(table, dataset.root, output)
    choices = trial.choices(sizes, _place_of(dataset.root, output), table_place)
    choices += [
        *length_choices(length, sizes.batch_size, measured.costs, _budget_in_words(wishes)),
        learning_rate_choice(data, length.num_steps),
    ]
    found = _found(dataset, data, split)
    doubts = (*dataset.doubts, *problems, *_doubts(data, machine), *length.notes)
    text = config_text(_heading(found, doubts, length, measured, machine, output), choices)
    if table is not None:
        write_text(table, dataset.table_text())
    write_text(output, text)
    return Plan(output, table, found, tuple(choices), doubts, length, measured)


def _refuse_existing(path: Path, options: Options) -> None:
    if path.exists() and not options.force:
        raise UserError(f"{path} exists already: give another name with -o, or --force to replace it")


def _summary(dataset: Dataset, folder: Path, on_case: Callable[[int, int], None]) -> tuple[Summary, list[str]]:
    """The data in a few numbers, and what is wrong with single files."""
    section = Data.model_validate(
        {"root": str(dataset.root), "labels": dataset.labels, "ignore_label": dataset.ignore_label}
    )
    looks = look_at_all(dataset.cases, section.labels, section.ignore_label, on_case)
    usable = [look for look in looks if not look.facts.problems]
    problems = [f"cannot be used: {problem}" for look in looks for problem in look.facts.problems]
    if not usable:
        raise UserError("\n".join(problems[:_MOST_PROBLEMS]))
    if len(problems) > _MOST_PROBLEMS:
        problems = [*problems[:_MOST_PROBLEMS], f"and {len(problems) - _MOST_PROBLEMS} more; r2seg check lists all"]
    names = [
        folder.resolve().name,
        *(str(path.relative_to(dataset.root)) for case in dataset.cases[:50] for path in case.images),
    ]
    data = Summary.of(
        usable,
        tell_kind(usable, dataset.kind, " ".join(names).lower()),
        num_cases=len(dataset.cases),
        num_groups=dataset.num_groups,
        parts=dataset.parts,
        has_masks=all(case.mask is not None for case in dataset.cases),
    )
    return data, problems


@dataclass(frozen=True)
class _Trial:
    """Trying a plan on this machine, with files in a folder that is removed afterwards."""

    dataset: Dataset
    data: Summary
    machine: Machine
    name: str
    scratch: Path

    def fit(self, sizes: Sizes, device: torch.device) -> tuple[Sizes, DrawnSplit, Measured]:
        """The sizes with a batch that fits the memory, and what a training with them takes."""
        for _ in range(_TRIALS):
            config = self._config(sizes)
            split = draw_split(find_cases(config.data), config.data.split, config.seed)
            try:
                return sizes, split, measure(config, split.parts, device)
            except OutOfMemory:
                if sizes.batch_size == 1:
                    raise
                smaller = sizes.batch_size // 2
                reason = f"halved from {sizes.batch_size}, which did not fit the memory when it was tried"
                sizes = replace(sizes, batch_size=smaller, batch_reason=reason)
        raise UserError(
            f"{device}: even batches of {sizes.batch_size} windows {list(sizes.window)} do not fit the memory"
        )

    def choices(self, sizes: Sizes, root: str, table: str | None) -> list[Choice]:
        """All settings but the length, with the data at a place."""
        return [
            Choice("name", self.name, "the run goes to runs/<name>"),
            Choice("seed", _SEED, ""),
            *_data_choices(self.dataset, root, table),
            *split_choices(self.data),
            *preprocessing_choices(self.data, sizes),
            *window_choices(self.data, sizes),
            *augmentation_choices(self.data, sizes),
        ]

    def _config(self, sizes: Sizes) -> Config:
        table = None
        if self.dataset.table is not None:
            table = self.scratch / "cases.csv"
            write_text(table, self.dataset.table_text())
        length = [
            Choice("sampling.windows_per_epoch", 64 * sizes.batch_size, ""),
            Choice("training.max_epochs", 100, ""),
        ]
        path = self.scratch / "trial.yaml"
        write_text(
            path,
            config_text(
                (), [*self.choices(sizes, str(self.dataset.root), None if table is None else str(table)), *length]
            ),
        )
        return load_config(path)


def _data_choices(dataset: Dataset, root: str, table: str | None) -> list[Choice]:
    """Section ``data`` but its split."""
    evidence = {key: "; ".join(lines) for key, lines in dataset.evidence.items()}
    choices = [
        Choice("data.layout", dataset.layout, evidence["layout"]),
        Choice(
            "data.root",
            root,
            "absolute" if os.path.isabs(root) else "relative to this file, so both can be moved together",
        ),
    ]
    if table is not None:
        reason = "one row per case, because one pattern does not describe all files; relative to root"
        choices.append(Choice("data.files.table", table, reason))
    for key, pattern in (dataset.patterns or {}).items():
        choices.append(Choice(f"data.files.{key}", pattern, ""))
    choices.append(Choice("data.labels", dataset.labels, evidence["labels"]))
    if dataset.ignore_label is not None:
        choices.append(
            Choice("data.ignore_label", dataset.ignore_label, "pixels that are neither trained on nor scored")
        )
    choices.append(Choice("data.group", dataset.group or LAYOUTS[dataset.layout].group, evidence["group"]))
    return choices


def _place_of(root: Path, output: Path) -> str:
    """``data.root`` as the config holds it: relative where the two can be moved together, else absolute."""
    folder = output.parent.resolve()
    near = root == folder or folder in root.parents or root in folder.parents or folder.parent in root.parents
    return Path(os.path.relpath(root, folder)).as_posix() if near else str(root)


def _place_of_table(table: Path, root: Path, output: Path) -> str:
    """``data.files.table``, which is relative to the root, if the root is relative to the config."""
    if os.path.isabs(_place_of(root, output)):
        return str(table.resolve())
    return Path(os.path.relpath(table.resolve(), root)).as_posix()


def _name_of(root: Path) -> str:
    """A name for runs from the folder's."""
    return re.sub(r"[^\w.-]+", "_", root.name).strip("_.-") or "experiment"


def _budget_in_words(wishes: Wishes) -> str:
    given = "as --budget asks" if wishes.budget_given else "the default budget; --budget changes it"
    return f"within {duration(wishes.budget_seconds)}, {given}"


def _found(dataset: Dataset, data: Summary, split: DrawnSplit) -> tuple[str, ...]:
    """What the folder holds, one line each."""
    sizes = sorted({"x".join(map(str, shape)) for shape in data.shapes.tolist()})
    what = "volumes" if data.image_dims == 3 else "pictures"
    fraction = f"{data.labelled_share:.1%} of the voxels"
    return (
        f"layout   {dataset.layout}: {'; '.join(dataset.evidence['layout'])}",
        f"images   {counted(data.num_cases, 'case')}, {what} of {counted(data.num_channels, 'channel')}, {some(sizes, 3)}",
        f"kind     {data.kind.name}: {data.kind.reason}",
        f"labels   {', '.join(dataset.labels)} ({fraction}); {'; '.join(dataset.evidence['labels'])}",
        f"patients {'; '.join(dataset.evidence['group'])}",
        f"split    {split}",
    )


def _doubts(data: Summary, machine: Machine) -> list[str]:
    """What the kind, the number of cases read and the other programs on the machine leave open."""
    doubts = []
    if not data.kind.sure:
        doubts.append(f"the images are taken for {data.kind.name}: {data.kind.reason}")
    if len(data.shapes) < data.num_cases and data.num_cases > MOST_CASES:
        doubts.append(f"{len(data.shapes)} of {data.num_cases} cases were read for the plan; r2seg check reads all")
    if machine.is_busy:
        doubts.append("other programs are using this machine: time and plan are for a machine as busy as it was")
    return doubts


def _heading(
    found: Sequence[str], doubts: Sequence[str], length: Length, measured: Measured, machine: Machine, output: Path
) -> list[str]:
    """The comment at the top of the config."""
    costs = measured.costs
    validations = (
        f"a validation of {costs.validation:.1f} s every {length.validate_every} epochs, " if costs.validation else ""
    )
    return [
        f"Written by r2seg init. Check the data with: r2seg check {output.name}   Train with: r2seg-train {output.name}",
        "",
        *found,
        "",
        f"Time: about {duration(length.seconds)} on this machine ({machine.about}), estimated from {measured.num_steps} real steps of "
        f"{costs.step:.2f} s and one predicted case: {length.num_steps} steps, {validations}{costs.start + costs.finish:.0f} s for preprocessing and the last scoring.",
        *(["", "Not sure, please check:", *(f"- {text}" for text in doubts)] if doubts else []),
    ]
