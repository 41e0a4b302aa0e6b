"""What the label maps of a data set hold: their values or colours, and a name for each, from wherever one is written down.

Names come from the data set's own description if there is one, then from 3D Slicer's headers, then from a word in the file names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from r2seg.data.formats import open_file, split_suffix
from r2seg.data.formats.base import errors_of
from r2seg.data.formats.dicom_files import RTSTRUCT, is_dicom_label, label_file_of
from r2seg.data.formats.dicom_headers import pydicom_for
from r2seg.data.images.label_maps import LOSSY
from r2seg.errors import UserError, counted, some
from r2seg.workers import in_order

# More values than this are not labels: an image, or a mask smeared by JPEG.
_MOST_VALUES = 64
# Share of a smeared mask's pixels that are near black or near white.
_NEARLY_ALL, _NEAR = 0.9, 40
_IGNORED = 255
# Of a large data set so many label maps are looked at, evenly chosen.
MOST_MAPS = 200
# What remains of a word such as "lungmask" is the label's name.
_GENERIC = re.compile(
    r"(binary|label(s|map)?|masks?|seg(mentation)?s?|ground_?truth|gt|manual|annot(ation)?s?|contours?|rois?|1st\w*|\d+|ho|training|test|x)"
)


@dataclass(frozen=True)
class Values:
    """What one label map holds.

    Attributes:
        counts: Value -> pixels.
        colors: Colours, if its channels differ.
        smeared: Whether it is black and white with grey borders, as JPEG and smooth resizing leave it.
    """

    counts: Mapping[int, int]
    colors: frozenset[tuple[int, int, int]] = frozenset()
    smeared: bool = False


@dataclass(frozen=True)
class FoundLabels:
    """The labels of a data set as ``data.labels`` holds them.

    Attributes:
        labels: Name -> value, values, or a section with rgb.
        ignore_label: Value of pixels that nobody decided, or None.
        evidence: Where values and names come from, one line each.
        doubts: What to check, one line each.
    """

    labels: dict[str, Any]
    ignore_label: int | None
    evidence: tuple[str, ...]
    doubts: tuple[str, ...]


def read_values(path: Path) -> Values:
    """The values of a label map.

    Raises:
        UserError: The file cannot be read, or holds fractions or too many values for labels.
    """
    channels, palette = open_file(path).load(indices=True)
    first = channels[0]
    if palette is None and len(channels) >= 3 and not all(np.array_equal(first, other) for other in channels[1:]):
        found = np.unique(channels[:3].reshape(3, -1), axis=1)
        if found.shape[1] > _MOST_VALUES:
            raise UserError(f"{path}: holds {found.shape[1]} colours, too many for labels; is it an image?")
        return Values({}, frozenset((int(r), int(g), int(b)) for r, g, b in found.T))
    values, counts = np.unique(first, return_counts=True)
    if first.dtype.kind == "f" and not np.array_equal(values, values.round()):
        raise UserError(f"{path}: holds fractions such as {values[values != values.round()][0]:g}; is it a label map?")
    table = {int(value): int(count) for value, count in zip(values, counts, strict=True)}
    if _is_smeared(path, values, counts):
        return Values(table, smeared=True)
    if len(values) > _MOST_VALUES:
        raise UserError(f"{path}: holds {len(values)} values, too many for labels; is it an image?")
    return Values(table)


def _is_smeared(path: Path, values: np.ndarray, counts: np.ndarray) -> bool:
    if len(values) <= 2 or values.min() < 0 or values.max() > 255 or values.max() < 255 - _NEAR:
        return False
    near = counts[(values <= _NEAR) | (values >= 255 - _NEAR)].sum() / counts.sum()
    lossy = split_suffix(path)[1] in LOSSY
    return bool(near >= _NEARLY_ALL and (lossy or len(values) > 16))


def is_label_map(path: Path) -> bool:
    """Whether a file can be a label map by what it holds: few values, or black and white."""
    if is_dicom_label(path):
        return True
    try:
        found = read_values(path)
    except UserError:
        return False
    return found.smeared or len(found.counts) <= _MOST_VALUES // 2 or bool(found.colors)


def find_labels(
    paths: Sequence[Path],
    known: Mapping[str, Any] | None,
    ignored: int | None,
    word: str,
    on_case: Callable[[int, int], None] | None = None,
) -> FoundLabels:
    """The labels that label maps hold, with names.

    Args:
        paths: One label map for each case.
        known: Names and values that the data set documents, or None.
        ignored: Value of undecided pixels that it documents.
        word: The word in the files' names that told the label maps, such as "lungmask", or "".
        on_case: Called with the number of files read and of all.

    Raises:
        UserError: Nothing is labelled, or the files are no label maps; one line for each.
    """
    if any(map(is_dicom_label, paths[:1])):
        return _structures(paths)
    chosen = [paths[round(index)] for index in np.linspace(0, len(paths) - 1, min(len(paths), MOST_MAPS))]
    problems: list[str] = []

    def read(path: Path) -> Values | None:
        try:
            return read_values(path)
        except UserError as error:
            problems.append(str(error))
            return None

    found = [values for values in in_order(read, chosen, None, on_case) if values is not None]
    if not found:
        raise UserError("\n".join(sorted(problems)[:10]))
    doubts = [f"label map that cannot be used: {text}" for text in sorted(problems)[:5]]
    if len(chosen) < len(paths):
        doubts.append(
            f"label values were looked at in {len(chosen)} of {len(paths)} label maps; r2seg check looks at all"
        )
    counts: Counter[int] = Counter()
    for each in found:
        counts.update(each.counts)
    values = sorted(value for value in counts if value != 0)
    told = f"values in {counted(len(found), 'label map')}: {some(sorted(counts), 12)}"
    if known:
        declared = _flat(known)
        undeclared = [value for value in values if value not in declared and value != ignored]
        if undeclared and not (len(values) == 1 and len(known) == 1) and not any(each.smeared for each in found):
            doubts.append(
                f"the files hold {some(undeclared)}, which the data set does not document: add them to data.labels"
            )
        evidence = (f"names and values as the data set documents them; {told}",)
        return FoundLabels(dict(known), ignored, evidence, tuple(doubts))
    if colors := frozenset().union(*(each.colors for each in found)) - {(0, 0, 0)}:
        labels = {f"label_{number}": {"rgb": list(color)} for number, color in enumerate(sorted(colors), start=1)}
        doubts.append("the label maps are in colours: give each its name")
        return FoundLabels(
            labels, None, (f"{counted(len(colors), 'colour')} in the label maps; black is background",), tuple(doubts)
        )
    if not values:
        raise UserError("every label map is empty: there is nothing to train on")
    if any(each.smeared for each in found):
        doubts.append("the label maps are black and white with grey borders, as JPEG leaves them; they are cut at 128")
        values, told = [255], f"black and white with {len(counts)} grey levels"
    if min(values) < 0:
        raise UserError(f"the label maps hold negative values ({some(values)}); labels are whole numbers from 1")
    ignore = _IGNORED if len(values) > 1 and values[-1] == _IGNORED and values[-2] < _IGNORED // 2 else None
    if ignore is not None:
        values.remove(ignore)
        doubts.append(
            f"the value {ignore} is taken for undecided pixels, which are left out; if it is a label, name it"
        )
    if len(values) == 1 and {1, 255} >= {*values}:
        told += "; 0 is background"
    names, source = _names(values, paths, word)
    if source is None:
        doubts.append(
            f"the labels have no names yet: {', '.join(names.values())}; write the real ones into data.labels"
        )
    told_by = (told, *([source] if source else []))
    return FoundLabels(_written(names, values), ignore, told_by, tuple(doubts))


def _structures(paths: Sequence[Path]) -> FoundLabels:
    """The structures or segments that all DICOM files hold, as labels; the others are told."""
    counts: Counter[str] = Counter()
    for path in paths:
        counts.update(dict.fromkeys(_structure_names(path), 1))
    common = [name for name in counts if counts[name] == len(paths)]
    if not common:
        raise UserError(
            f"no structure is in all of the {counted(len(paths), 'DICOM label file')}; there are {some(sorted(counts), 20)}: name those "
            "of data.labels in a config"
        )
    rest = [f"{name} ({counts[name]})" for name in counts if name not in common]
    doubts = (
        [f"structures that only some of the {len(paths)} files hold are left out: {some(rest, 20)}"] if rest else []
    )
    if len(common) > 1:
        doubts.append(
            f"every structure that all files hold is a label: {some(common, 20)}; remove those that are not wanted"
        )
    evidence = (f"the structures that all {counted(len(paths), 'DICOM label file')} hold, by their names",)
    return FoundLabels({name: value for value, name in enumerate(common, start=1)}, None, evidence, tuple(doubts))


def _structure_names(path: Path) -> list[str]:
    """Names of the structures with contours of an RTSTRUCT, or of the segments of a DICOM-SEG."""
    file, kind = label_file_of(path) or (path, "")
    pydicom = pydicom_for(file)
    with errors_of(file, "read"):
        dataset = pydicom.dcmread(file, stop_before_pixels=True)
        if kind != RTSTRUCT:
            return [str(item.SegmentLabel).strip() for item in dataset.get("SegmentSequence") or []]
        drawn = {
            int(item.ReferencedROINumber)
            for item in dataset.get("ROIContourSequence") or []
            if item.get("ContourSequence")
        }
        rois = dataset.get("StructureSetROISequence") or []
        return [str(roi.get("ROIName") or "").strip() for roi in rois if int(roi.ROINumber) in drawn]


def _flat(labels: Mapping[str, Any]) -> set[int]:
    """All values of the labels."""
    return {
        int(value) for given in labels.values() for value in (given if isinstance(given, list | tuple) else [given])
    }


def _written(names: Mapping[int, str], values: Sequence[int]) -> dict[str, Any]:
    """Name -> value; a value above 255 follows the number that predictions, which have 8 bits, are written with."""
    free = (number for number in range(1, 256) if number not in values)
    return {names[value]: value if value <= 255 else [next(free), value] for value in values}


def exclusive(regions: Mapping[str, Sequence[int]]) -> tuple[dict[str, Any], str | None]:
    """Labels without common values from regions that may overlap, as nnU-Net's do, and what was done, if anything.

    Each value belongs to the smallest region that holds it: of whole tumor [1, 2] and core [2], 1 is whole tumor and 2 is core.
    """
    owner: dict[int, str] = {}
    for name in sorted(regions, key=lambda name: -len(regions[name])):
        owner |= dict.fromkeys(regions[name], name)
    labels = {name: [value for value in regions[name] if owner[value] == name] for name in regions}
    plain = {name: values[0] if len(values) == 1 else values for name, values in labels.items() if values}
    if all(list(regions[name]) == values for name, values in labels.items()):
        return plain, None
    shown = ", ".join(f"{name} {list(values)}" for name, values in regions.items())
    return (
        plain,
        f"dataset.json has regions that overlap ({shown}); here each value is the label of its smallest region",
    )


def _names(values: Sequence[int], paths: Sequence[Path], word: str) -> tuple[dict[int, str], str | None]:
    """A name for each value, and where the names come from; None if from nowhere."""
    slicer = _slicer_names(paths[0])
    if slicer.keys() >= set(values):
        return {value: slicer[value] for value in values}, f"names from the header of {paths[0].name}"
    rest = _GENERIC.sub("", word.lower()).strip("_-. ")
    if len(values) == 1 and len(rest) > 2:
        return {values[0]: rest}, f"the name from {word!r} in the file names"
    return {value: f"label_{number}" for number, value in enumerate(values, start=1)}, None


def _slicer_names(path: Path) -> dict[int, str]:
    """Value -> name as 3D Slicer writes them into the header of a .seg.nrrd."""
    if not path.name.lower().endswith(".nrrd"):
        return {}
    with open(path, "rb") as file:
        header = file.read(1 << 18).split(b"\n\n", 1)[0].decode("utf-8", "replace").replace("\r", "")
    fields = dict(re.findall(r"^(Segment\d+_(?:Name|LabelValue)):=(.*)$", header, flags=re.M))
    found = {}
    for key, name in fields.items():
        value = fields.get(key.replace("_Name", "_LabelValue"), "")
        if key.endswith("_Name") and value.isdigit():
            found[int(value)] = name.strip()
    return found
