"""Splits of cases into training, validation and test, by group, so that no patient and no copy of an image is in two parts.

Files of splits are read in split_files.py, label maps for stratification in label_presence.py, and which config or run is meant is
in ``case_sets``.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from r2seg.data.cases import Case
from r2seg.data.duplicates import identical_images
from r2seg.data.split_files import NamedParts, read_split_file
from r2seg.data.stratification import stratify
from r2seg.errors import UserError, counted, some

if TYPE_CHECKING:
    from r2seg.config import Split

PARTS = ("train", "validation", "test")

Presence = Mapping[str, Collection[str]]
"""Case id -> the labels that occur in its label map."""


@dataclass(frozen=True)
class DrawnSplit:
    """A split, and what was found out about its cases.

    Attributes:
        parts: "train", "validation", "test" -> cases.
        num_groups: Part -> number of groups (patients) in it; copies of an image count as one group.
        identical: Ids of cases whose images are identical, one tuple for each set of copies.
        left_out: Ids of the cases that are in no part.
        fold: Which fold it is, counted from 0; None where there are no folds.
        num_folds: How many folds there are.
        notes: What else a person should know, one line each.
    """

    parts: dict[str, list[Case]]
    num_groups: dict[str, int]
    identical: Sequence[tuple[str, ...]]
    left_out: Sequence[str] = ()
    fold: int | None = None
    num_folds: int | None = None
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        texts = []
        for part, members in self.parts.items():
            groups = f" in {counted(self.num_groups[part], 'group')}" if members else ""
            texts.append(f"{counted(len(members), f'{part} case')}{groups}")
        which = f"fold {self.fold} of {self.num_folds} (counted from 0): " if self.fold is not None else ""
        return which + ", ".join(texts)

    @property
    def warnings(self) -> list[str]:
        """What a person should know about the cases, one line each."""
        lines = [
            f"the images of the cases {' and '.join(ids)} are identical; they are kept in one part of the split"
            for ids in self.identical
        ]
        if self.left_out:
            are = "case is" if len(self.left_out) == 1 else "cases are"
            lines.append(f"{len(self.left_out)} {are} in no part of the split: {some(self.left_out, 20)}")
        return [*lines, *self.notes]


def draw_split(cases: Sequence[Case], split: Split, seed: int, presence: Presence | None = None) -> DrawnSplit:
    """``split_cases`` of these cases, with copies of one image kept together.

    Raises:
        UserError: As ``split_cases``.
    """
    return _draw(cases, split, seed, identical_images(cases), presence)


def draw_folds(
    cases: Sequence[Case], split: Split, seed: int, presence: Presence | None = None
) -> Iterator[DrawnSplit]:
    """``draw_split`` for every fold, whatever ``split.fold`` is; the one split where there are no folds.

    Raises:
        UserError: As ``split_cases``.
    """
    identical = identical_images(cases)
    first = _draw(cases, split.model_copy(update={"fold": None}), seed, identical, presence)
    yield first
    for fold in range(1, first.num_folds or 1):
        yield _draw(cases, split.model_copy(update={"fold": fold}), seed, identical, presence)


def split_cases(
    cases: Sequence[Case],
    split: Split,
    seed: int,
    identical: Sequence[Sequence[str]] = (),
    presence: Presence | None = None,
) -> dict[str, list[Case]]:
    """Cases of each part: "train", "validation", "test".

    Shares are shares of the groups, drawn with the seed from the sorted groups, at least one group if a share is above 0: the
    same data and seed give the same split on any machine. Lists and files name cases or whole groups. What the data set itself
    holds out (``Case.split``) stays held out: validation and test cases that it does not have are drawn from its training cases.

    With folds, the test cases are taken away first, and each remaining group validates in exactly one fold.

    Args:
        cases: All cases.
        split: The config's section.
        seed: Of the draw.
        identical: Sets of ids whose images are copies of each other: the groups of a set become one.
        presence: Needed where ``split.stratify`` is set.

    Raises:
        UserError: A name is neither a case nor a group, a case, a group or copies of an image are in two parts, there are more
            folds than groups, or no case is left to train or validate on.
    """
    return _assign(cases, split, seed, identical, presence)[0]


def _draw(
    cases: Sequence[Case], split: Split, seed: int, identical: Sequence[tuple[str, ...]], presence: Presence | None
) -> DrawnSplit:
    parts, num_folds = _assign(cases, split, seed, identical, presence)
    groups = _groups(cases, split, identical)
    num_groups = {part: len({groups[case.id] for case in members}) for part, members in parts.items()}
    used = {case.id for members in parts.values() for case in members}
    notes = []
    if isinstance(split.test, float) and split.test > 0 and any(case.split == "test" for case in cases):
        notes.append(
            f"data.split.test is {split.test:g}, and the data set has test cases of its own: those are used, and none are drawn"
        )
    return DrawnSplit(
        parts,
        num_groups,
        [ids for ids in identical if len(used.intersection(ids)) > 1],
        left_out=[case.id for case in cases if case.id not in used],
        fold=None if num_folds is None else split.fold or 0,
        num_folds=num_folds,
        notes=notes,
    )


def _assign(
    cases: Sequence[Case],
    split: Split,
    seed: int,
    identical: Sequence[Sequence[str]],
    presence: Presence | None,
) -> tuple[dict[str, list[Case]], int | None]:
    """The cases of each part, and the number of folds."""
    group = _groups(cases, split, identical)
    named = _named(split)
    fixed, reserved = _fixed_parts(cases, split, named, group)

    groups = sorted(set(group.values()))
    taken, second = ({group[case_id] for case_id in ids} for ids in (fixed, reserved))
    free = [name for name in groups if name not in taken | second]
    reserve = [name for name in groups if name in second - taken]
    rng = random.Random(seed)
    rng.shuffle(free)
    rng.shuffle(reserve)
    labels = _labels_of_groups(group, presence) if split.stratify else None
    num_drawable = len(groups) - len({group[case.id] for case in cases if case.split == "test"})
    part_of_group, num_folds = _drawn([*free, *reserve], num_drawable, split, set(fixed.values()), labels)
    num_folds = named.num_folds if split.folds is None else num_folds

    default = None if "train" in named.parts else "train"
    parts: dict[str, list[Case]] = {part: [] for part in PARTS}
    for case in cases:
        chosen = fixed.get(case.id) or part_of_group.get(group[case.id]) or reserved.get(case.id) or default
        if chosen:
            parts[chosen].append(case)
    _refuse_divided_groups(parts, group, identical, named.origin)
    _refuse_empty_parts(parts, split, named.origin, len(cases), len(groups))
    return parts, num_folds


def _named(split: Split) -> NamedParts:
    """The cases and groups that the config, or the file it names, puts into a part."""
    if split.file is not None:
        return read_split_file(split.file, split.fold)
    given = {"train": split.train, "validation": split.validation, "test": split.test}
    return NamedParts("data.split", {part: names for part, names in given.items() if isinstance(names, tuple)})


def _fixed_parts(
    cases: Sequence[Case], split: Split, named: NamedParts, group: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Case id -> part, of the cases whose part is certain, and of the data set's own training cases.

    The latter train unless they are drawn for a part that the data set does not have.
    """
    own = {case.id: case.split for case in cases if case.split}
    ids_of: dict[str, list[str]] = {}
    for case in cases:
        for name in dict.fromkeys((case.id, case.group)):
            ids_of.setdefault(name, []).append(case.id)
    fixed: dict[str, str] = {}
    for part, names in named.parts.items():
        where = f"{named.origin}.{part}" if split.file is None else f"{named.origin} ({part})"
        if unknown := [name for name in names if name not in ids_of]:
            what = f"{unknown[0]!r}, which is neither a case nor a group"
            if len(unknown) > 1:
                what = f"{some([repr(name) for name in unknown])}, which are neither cases nor groups"
            raise UserError(f"{where} names {what}; there are {some(sorted(group))}")
        for name in names:
            for case_id in ids_of[name]:
                if part != "test" and own.get(case_id) == "test":
                    raise UserError(
                        f"{where} names the case {case_id!r}, which the data set itself holds out for test: name others"
                    )
                other = fixed.setdefault(case_id, part)
                if other != part:
                    raise UserError(f"{named.origin} puts the case {case_id!r} into both {other} and {part}")
    reserved: dict[str, str] = {}
    for case_id, part in own.items():
        if case_id in fixed or (part != "test" and split.folds is not None):
            continue
        if part != "train":
            fixed[case_id] = part
        elif "train" not in named.parts:
            reserved[case_id] = part
    return fixed, reserved


def _drawn(
    pool: Sequence[str],
    num_drawable: int,
    split: Split,
    held: Collection[str],
    labels: Mapping[str, Collection[str]] | None,
) -> tuple[dict[str, str], int | None]:
    """Group -> part, of the groups that are drawn for test and validation, and the number of folds.

    Args:
        pool: Groups to draw from, the preferred ones first.
        num_drawable: Number of groups that the shares are shares of.
        split: The config's section.
        held: Parts that have cases already.
        labels: Group -> labels, to stratify; else the first groups of the pool are taken.
    """
    # Rounding must not use up the groups that other parts need at least.
    kept = {"validation": int(split.train is None and "train" not in held)}
    draws_validation = isinstance(split.validation, float) and split.validation > 0
    kept["test"] = split.folds if isinstance(split.folds, int) else kept["validation"] + int(draws_validation)
    sizes: dict[str, int] = {}
    for part, share in (("test", split.test), ("validation", split.validation)):
        if isinstance(share, float) and share > 0 and part not in held:
            left = len(pool) - sum(sizes.values())
            sizes[part] = min(left, max(1, min(round(share * num_drawable), left - kept[part])))
    drawn = _dealt(pool, [*sizes.values(), len(pool) - sum(sizes.values())], labels)
    part_of_group = {name: part for part, names in zip(sizes, drawn, strict=False) for name in names}
    if split.folds is None:
        return part_of_group, None

    rest, fold = drawn[-1], split.fold or 0
    num_folds = len(rest) if split.folds == "leave_one_out" else split.folds
    if num_folds > len(rest) or num_folds < 2:
        raise UserError(
            f"data.split.folds is {split.folds}, and {counted(len(rest), 'group')} can validate: "
            + (f"give at most {len(rest)}" if len(rest) > 1 else "two are needed at least")
        )
    if fold >= num_folds:
        raise UserError(
            f"data.split.fold is {fold}, and there are {num_folds} groups, a fold of each, counted from 0: "
            f"give 0 to {num_folds - 1}"
        )
    members: Sequence[str]
    if split.folds == "leave_one_out":
        members = [sorted(rest)[fold]]
    elif labels is None:
        members = rest[fold::num_folds]
    else:
        sizes_of_folds = [len(rest[index::num_folds]) for index in range(num_folds)]
        members = stratify(rest, labels, sizes_of_folds)[fold]
    return part_of_group | dict.fromkeys(members, "validation"), num_folds


def _dealt(
    pool: Sequence[str], sizes: Sequence[int], labels: Mapping[str, Collection[str]] | None
) -> list[Sequence[str]]:
    """The pool in pieces of these sizes."""
    if labels is not None:
        return list(stratify(pool, labels, sizes))
    ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
    return [pool[end - size : end] for end, size in zip(ends, sizes, strict=True)]


def _labels_of_groups(group: Mapping[str, str], presence: Presence | None) -> dict[str, set[str]]:
    if presence is None:
        raise ValueError("stratify needs the labels of the cases: see label_presence.py")
    labels: dict[str, set[str]] = {name: set() for name in group.values()}
    for case_id, name in group.items():
        labels[name].update(presence.get(case_id, ()))
    return labels


def _groups(cases: Sequence[Case], split: Split, identical: Sequence[Sequence[str]]) -> dict[str, str]:
    """Case id -> its group: the patient, or the case itself; groups that hold copies of one image are one."""
    group = {case.id: (case.group or case.id) if split.by == "group" else case.id for case in cases}
    for ids in identical:
        joined = {group[case_id] for case_id in ids}
        name = min(joined)
        group = {case_id: name if own in joined else own for case_id, own in group.items()}
    return group


def _refuse_empty_parts(
    parts: Mapping[str, Sequence[Case]], split: Split, origin: str, num_cases: int, num_groups: int
) -> None:
    trains_on_all = split.validation == 0
    if trains_on_all and split.file is not None and parts["validation"]:
        raise UserError(f"{origin} names validation cases, and data.split.validation is 0: remove one of the two")
    for part in ("train", "validation"):
        if parts[part] or (part == "validation" and trains_on_all):
            continue
        remedy = "name cases, or change the shares"
        if part == "validation":
            remedy += ", or set data.split.validation: 0 to train without validation"
        raise UserError(
            f"{origin} leaves no case for {part}: {num_cases} cases in {counted(num_groups, 'group')}; {remedy}"
        )


def _refuse_divided_groups(
    parts: Mapping[str, Sequence[Case]],
    group: Mapping[str, str],
    identical: Sequence[Sequence[str]],
    origin: str,
) -> None:
    part_of = {case.id: part for part, members in parts.items() for case in members}
    for ids in identical:
        used = {part_of[case_id]: case_id for case_id in reversed(ids) if case_id in part_of}
        if len(used) > 1:
            (first, one), (second, other) = sorted(used.items(), key=lambda item: PARTS.index(item[0]))[:2]
            raise UserError(
                f"{origin} puts the case {one!r} into {first} and the case {other!r} into {second}, but their images are "
                "identical: put both into one part, or remove one"
            )
    side: dict[str, str] = {}
    for part, members in parts.items():
        for case in members:
            other = side.setdefault(group[case.id], part)
            if other != part:
                raise UserError(
                    f"{origin} puts the group {group[case.id]!r} into both {other} and {part}: "
                    "a patient in two parts makes the score too good; name whole groups, or set data.split.by: case"
                )
