"""What a person should know about the cases before training: values, geometry and labels that are probably mistakes.

Training would take all of these cases. What it refuses is in rules.py, and what is wrong with single files in data/fingerprint.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from r2seg.config import Config
from r2seg.data.cases import Case
from r2seg.data.fingerprint import CaseFacts
from r2seg.errors import counted, some

# Outliers are looked for among at least so many cases.
_ENOUGH = 4
# How often larger or smaller than the median a voxel size is that a person should look at.
_FAR_SPACING = 2.5
# Ratio of the largest to the smallest voxel size from which a network sees structures in quite different sizes.
_VARIED_SPACING = 1.5
# Share of the intensity map's range by which an end of a case's values may differ from the median case.
_FAR_INTENSITY = 0.5
# Share of the pixels above which a label is probably the background.
_FULL = 0.98


@dataclass(frozen=True)
class Finding:
    """Something wrong or remarkable.

    Attributes:
        kind: A key of ``KINDS``.
        text: One line that names the file, or the cases, and the remedy.
        case: Id of the case, or "" if it is about several.
    """

    kind: str
    text: str
    case: str = ""


# Kind -> its title, in the order in which findings are listed
KINDS = {
    "names": "Files and their names",
    "split": "Split",
    "file": "Files that cannot be used",
    "together": "Cases that do not go together",
    "reading": "While reading",
    "labels": "Labels",
    "intensity": "Intensities",
    "geometry": "Geometry",
}


@dataclass(frozen=True)
class Member:
    """A case of a part, and its facts."""

    case: Case
    part: str
    facts: CaseFacts


def remarks(members: Sequence[Member], config: Config) -> list[Finding]:
    """Every remark on cases whose files can be read, sorted by kind and file."""
    readable = [member for member in members if member.facts.shape]
    found = [finding for rule in _RULES for finding in rule(readable, config)]
    return in_reading_order(found)


def in_reading_order(findings: Sequence[Finding]) -> list[Finding]:
    """Sorted by kind, then by text, without repetitions."""
    order = list(KINDS)
    return sorted(dict.fromkeys(findings), key=lambda finding: (order.index(finding.kind), finding.text))


def _of_files(members: Sequence[Member], config: Config) -> Iterator[Finding]:
    for member in members:
        yield from (Finding("labels", text, member.case.id) for text in member.facts.warnings)


def _empty_labels(members: Sequence[Member], config: Config) -> Iterator[Finding]:
    for member in members:
        facts, case = member.facts, member.case
        if not facts.foreground:
            continue
        label = " and ".join(map(str, case.labels))
        if not facts.num_counted:
            yield Finding(
                "labels",
                f"{case.mask or label}: all pixels are ignored or outside the field of view, so nothing is learned from the case; "
                "correct the file, or remove the case",
                case.id,
            )
        elif not any(facts.foreground.values()):
            yield Finding(
                "labels", f"{label}: holds no foreground; if the structures are there, export the label again", case.id
            )
        for name, count in facts.foreground.items():
            if count > _FULL * facts.num_counted:
                yield Finding(
                    "labels",
                    f"{label}: {name} fills {count / facts.num_counted:.1%} of the pixels; is the mask inverted? correct it, or remove "
                    "the case",
                    case.id,
                )


def _labels_of_parts(members: Sequence[Member], config: Config) -> Iterator[Finding]:
    for part in ("validation", "test"):
        known = [member.facts.foreground for member in members if member.part == part and member.facts.foreground]
        lost = [name for name in config.data.labels if not any(each[name] for each in known)]
        if known and lost and (part == "test" or len(lost) < len(config.data.labels)):
            yield Finding(
                "labels",
                f"no {part} case holds {some(lost, 8)} (of {len(known)}), so {'it has' if len(lost) == 1 else 'they have'} no score "
                "there; change data.split",
            )


def _constant(members: Sequence[Member], config: Config) -> Iterator[Finding]:
    for member in members:
        for number, (low, *_, high) in enumerate(member.facts.intensity):
            if low == high:
                which = f"channel {number}: " if member.facts.num_channels > 1 else ""
                yield Finding(
                    "intensity",
                    f"{_file_of(member, number)}: {which}every pixel is {low:g}; replace the image, or remove the case",
                    member.case.id,
                )


def _not_hu(members: Sequence[Member], config: Config) -> Iterator[Finding]:
    """Values that are not Hounsfield units although the config says so: air is -1000 HU, water 0."""
    window = config.preprocessing.intensity
    if window.kind != "hu_window":
        return
    other = "or choose another preprocessing.intensity.kind"
    for member in members:
        for number, (low, p_low, _, p_high, high) in enumerate(member.facts.intensity):
            if low == high:
                continue
            reach = f"values from {low:g} to {high:g}"
            if low >= 0 and high <= 255:
                text = (
                    f"{reach} are those of a picture with 8 bits, not HU; convert the CT again without scaling, {other}"
                )
            elif high - low < 20:
                text = f"{reach} have been scaled and are not HU; convert the CT again without scaling, {other}"
            elif low >= 0:
                text = (
                    f"{reach} are not HU, in which air is -1000: was the rescale intercept, often -1024, left out? Convert the series "
                    f"again, {other}"
                )
            elif p_high <= window.low or p_low >= window.high:
                text = (
                    f"values from {p_low:g} to {p_high:g} (0.5 and 99.5 percentile) lie outside the window of {window.low:g} to "
                    f"{window.high:g} HU, so the network sees one grey; correct the file or the window"
                )
            else:
                continue
            yield Finding("intensity", f"{_file_of(member, number)}: {text}", member.case.id)


def _unlike_intensities(members: Sequence[Member], config: Config) -> Iterator[Finding]:
    """Cases that a fixed intensity map shows much darker or brighter than the others; maps measured per case make up for it."""
    options = config.preprocessing.intensity
    if options.kind == "unit":
        types = sorted({member.facts.dtype for member in members})
        if len(types) > 1:
            yield Finding(
                "intensity",
                f"the images are of the types {', '.join(types)}, and preprocessing.intensity.kind unit divides each by its own largest "
                "value; convert them to one type, or choose percentile",
            )
            return
        kind = np.dtype(types[0]) if types else np.dtype(np.uint8)
        low, high = 0.0, float(np.iinfo(kind).max) if kind.kind in "ui" else 1.0
    elif options.kind == "hu_window":
        low, high = options.low, options.high
    else:
        return
    doubtful = {finding.case for rule in (_constant, _not_hu) for finding in rule(members, config)}
    members = [member for member in members if member.case.id not in doubtful]
    channels = {member.facts.num_channels for member in members}
    if len(members) < _ENOUGH or len(channels) != 1:
        return
    ends = np.array([[(five[1], five[3]) for five in member.facts.intensity] for member in members]).clip(low, high)
    usual = np.median(ends, axis=0)
    for member, own in zip(members, ends, strict=True):
        for number in np.flatnonzero((abs(own - usual) > _FAR_INTENSITY * (high - low)).any(axis=1)):
            yield Finding(
                "intensity",
                f"{_file_of(member, int(number))}: its 0.5 and 99.5 percentiles, {own[number][0]:g} and {own[number][1]:g}, are far from "
                f"those of the median case, {usual[number][0]:g} and {usual[number][1]:g}; look at the image, and correct or remove it",
                member.case.id,
            )


def _spacing(members: Sequence[Member], config: Config) -> Iterator[Finding]:
    volumes = [member for member in members if member.facts.spacing_mm and len(member.facts.shape) == 3]
    if len(volumes) < 2:
        return
    sizes = np.array([member.facts.spacing_mm for member in volumes])
    usual = np.median(sizes, axis=0)
    far = (np.maximum(sizes / usual, usual / sizes) > _FAR_SPACING).any(axis=1)
    if len(volumes) < _ENOUGH:
        far[:] = False
    for member, own in zip(volumes, sizes, strict=True):
        if far[volumes.index(member)]:
            yield Finding(
                "geometry",
                f"{_file_of(member)}: its voxels of {_millimetres(own)} mm are far from the median of {_millimetres(usual)} mm; check the "
                "header, and correct or remove the case",
                member.case.id,
            )
    near = sizes[~far]
    if config.preprocessing.spacing_mm is None and len(near) and (near.max(0) / near.min(0) > _VARIED_SPACING).any():
        yield Finding(
            "geometry",
            f"voxel sizes reach from {_millimetres(near.min(0))} to {_millimetres(near.max(0))} mm (R-L, A-P, S-I), so the network sees "
            f"structures in different sizes; set preprocessing.spacing_mm, for example to the median [{', '.join(f'{mm:g}' for mm in usual)}]",
        )


def _millimetres(sizes: np.ndarray) -> str:
    return " x ".join(f"{size:.3g}" for size in sizes)


def _file_of(member: Member, channel: int = 0) -> str:
    """The image file that holds a channel."""
    images = member.case.images
    return str(images[channel] if len(images) == member.facts.num_channels else images[0])


_RULES: tuple[Callable[[Sequence[Member], Config], Iterator[Finding]], ...] = (
    _of_files,
    _empty_labels,
    _labels_of_parts,
    _constant,
    _not_hu,
    _unlike_intensities,
    _spacing,
)


def verdict(errors: Sequence[Finding], warnings: Sequence[Finding]) -> str:
    """What came out, in one sentence."""
    also = f" and {counted(len(warnings), 'warning')}" if warnings else ""
    if errors:
        return f"{counted(len(errors), 'error')}{also}: training would refuse these data"
    return f"no error{also}: training would accept these data"


def by_kind(findings: Sequence[Finding]) -> Mapping[str, list[Finding]]:
    """Title of the kind -> its findings, in reading order."""
    return {
        title: members
        for kind, title in KINDS.items()
        if (members := [finding for finding in findings if finding.kind == kind])
    }
