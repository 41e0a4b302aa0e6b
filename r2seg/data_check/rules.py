"""Which cases can be trained on together: the rules by which training, its dry run and the data check refuse them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from r2seg.config import Config
from r2seg.errors import counted, some


@dataclass(frozen=True)
class Traits:
    """What the rules look at.

    Attributes:
        id: The case's id.
        image_dims: 2 of a picture, 3 of a volume; 0 if the image cannot be read.
        num_channels: Of its image.
        labels: Class indices, from 1, of the labels that it holds; None if that is not known.
    """

    id: str
    image_dims: int
    num_channels: int
    labels: frozenset[int] | None


def refusals(parts: Mapping[str, Sequence[Traits]], config: Config) -> list[str]:
    """Why cases cannot be trained on together, one line each; [] if they can.

    Args:
        parts: "train", "validation", "test" -> cases.
        config: Its window and labels.
    """
    everything = [case for members in parts.values() for case in members if case.image_dims]
    problems = [
        *_differing(
            {case.id: _KINDS[case.image_dims] for case in everything}, "train on pictures or on volumes, not on both"
        ),
        *_differing(
            {case.id: counted(case.num_channels, "channel") for case in everything}, "all cases need the same number"
        ),
    ]
    pictures = [case.id for case in everything if case.image_dims == 2]
    if pictures and config.spatial_dims == 3:
        problems.append(
            f"{_are(pictures, len(everything))} pictures, but window.size {list(config.window.size)} is 3-D: give two numbers"
        )
    if config.window.plane and pictures:
        problems.append(
            f"window.plane is {config.window.plane} and {_are(pictures, len(everything))} pictures, not volumes: leave window.plane out"
        )
    if config.window.neighbours and pictures:
        problems.append(
            f"window.neighbours is {config.window.neighbours} and {_are(pictures, len(everything))} pictures, which have no "
            "neighbouring slices: leave window.neighbours out"
        )
    for part in ("train", "validation"):
        members = parts.get(part, ())
        if not members or any(case.labels is None for case in members):
            continue
        found = {index for case in members for index in case.labels or ()}
        lost = [name for index, name in enumerate(config.data.labels, start=1) if index not in found]
        if lost and (part == "train" or not found):
            problems.append(
                f"no {part} case holds the label{'s' * (len(lost) > 1)} {some(lost, 8)} "
                f"(of {len(members)}): check data.labels and data.split"
            )
    return problems


_KINDS = {2: "a picture", 3: "a volume"}


def _are(ids: Sequence[str], total: int) -> str:
    return "the cases are" if len(ids) == total else f"{_cases(ids)} {'is one of the' if len(ids) == 1 else 'are'}"


def _cases(ids: Sequence[str]) -> str:
    return f"case {ids[0]}" if len(ids) == 1 else f"cases {some(ids)}"


def _differing(values: Mapping[str, str], remedy: str) -> Iterable[str]:
    """One line for each value that is not the usual one."""
    if not values:
        return
    usual = Counter(values.values()).most_common(1)[0][0]
    verb = "is" if usual in _KINDS.values() else "has"
    for value in dict.fromkeys(values.values()):
        if value != usual:
            ids = [case_id for case_id, own in values.items() if own == value]
            example = next(case_id for case_id, own in values.items() if own == usual)
            each = f"{verb} {value}" if len(ids) == 1 else f"{'are each' if verb == 'is' else 'have each'} {value}"
            yield f"{_cases(ids)} {each} and case {example} {verb} {usual}: {remedy}"
