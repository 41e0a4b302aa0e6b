"""RTSTRUCT and DICOM-SEG as class indices on an image's grid: which structure or segment is which label.

How contours are filled and segments placed is in formats/dicom_rtstruct.py and formats/dicom_seg.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from r2seg.data.formats import File, Grid, ImageError
from r2seg.data.formats.dicom import DicomSource
from r2seg.data.formats.dicom_files import RTSTRUCT, label_file_of
from r2seg.data.formats.dicom_rtstruct import Structures
from r2seg.data.formats.dicom_seg import Segments
from r2seg.data.formats.messages import named, say_once
from r2seg.data.images.image import Image
from r2seg.errors import counted, some
from r2seg.labels import Labels, structures_of, values_of


def read_dicom_label(path: Path, labels: Labels, like: Image | File | Grid | None) -> tuple[np.ndarray, Grid]:
    """Class indices of an RTSTRUCT or DICOM-SEG on the grid of the image it belongs to.

    A structure or segment belongs to the label of its name; capitals and blanks around a name do not matter. Segments of which none
    has the name of a label are matched by their numbers, the labels' values. What is left out is told in warnings, as are labels
    that are not there. A voxel that several labels claim is given to the one declared last, and a warning says how many there are.

    Args:
        path: The file, or a folder in which it is the only label.
        labels: Name -> value or values, in class order.
        like: The image, read or opened; of a DICOM series also its slices are known.

    Shape: array (*S) uint8, 0 background, 1..K the labels, S that of the image.

    Raises:
        ImageError: No image is given, it has no such label, or the file does not fit its grid.
    """
    file, kind = label_file_of(path) or (path, "")
    grid, source = _grid_for(file, like)
    with named(file):
        drawn = (Structures if kind == RTSTRUCT else Segments)(file, grid, source)
        numbers = _matched(file, drawn.names, labels, by_number=kind != RTSTRUCT)
        indices = np.zeros(grid.shape, np.uint8, order="F")
        claimed: dict[tuple[str, str], int] = {}
        names = list(labels)
        for label, own in numbers.items():
            index = 1 + names.index(label)
            for voxels in (part for number in own for part in drawn.voxels(number)):
                places = tuple(voxels.T)
                before = indices[places]
                for other in np.unique(before[(before != 0) & (before != index)]):
                    pair = (names[int(other) - 1], label)
                    claimed[pair] = claimed.get(pair, 0) + int((before == other).sum())
                indices[places] = index
            if not (indices == index).any():
                say_once(
                    file,
                    f"{some([drawn.names[number] for number in own])} holds no voxel's centre, so label {label} is empty",
                )
        for (first, last), count in claimed.items():
            say_once(
                file,
                f"{counted(count, 'voxel')} claimed by both {first} and {last}: given to {last}, which is declared later",
            )
    return indices, grid


def grid_of_dicom_label(path: Path, like: Image | File | Grid | None) -> Grid:
    """The grid that an RTSTRUCT or DICOM-SEG is read on, which is its image's.

    Raises:
        ImageError: No image is given, or it is not a volume with geometry.
    """
    return _grid_for(path, like)[0]


def _grid_for(path: Path, like: Image | File | Grid | None) -> tuple[Grid, DicomSource | None]:
    if like is None:
        raise ImageError(
            f"{path}: is drawn in millimetres and needs the grid of its image: name a config or run, which knows the images, or "
            "their folder with --images"
        )
    grid = like if isinstance(like, Grid) else like.grid
    if grid.spatial_dims != 3 or grid.affine is None:
        raise ImageError(
            f"{path}: is drawn in millimetres, and its image {grid.path} is not a volume with voxel size and place"
        )
    source = None if isinstance(like, Grid) else like.source
    return grid, source if isinstance(source, DicomSource) else None


def _matched(path: Path, names: Mapping[int, str], labels: Labels, *, by_number: bool) -> dict[str, list[int]]:
    """Label -> numbers of its structures or segments, in the order of the labels.

    Raises:
        ImageError: None is there, or several have one name.
    """
    by_name: dict[str, list[int]] = {}
    for number, name in names.items():
        by_name.setdefault(name.casefold(), []).append(number)
    found: dict[str, list[int]] = {}
    absent = []
    for label, structures in structures_of(labels).items():
        for structure in structures:
            numbers = by_name.get(structure.strip().casefold(), [])
            if len(numbers) > 1:
                raise ImageError(
                    f"{path}: {len(numbers)} structures are named {names[numbers[0]]!r}: rename or remove one"
                )
            if numbers:
                found.setdefault(label, []).extend(numbers)
            else:
                absent.append(structure)
    if not found and by_number:
        for label, values in labels.items():
            if numbers := [n for n in values_of(values) if n in names]:
                found[label] = numbers
        absent = [label for label in labels if label not in found]
        if found:
            said = some([f"{label} is segment {n} {names[n]!r}" for label, numbers in found.items() for n in numbers])
            say_once(path, f"no segment has the name of a label: matched by number: {said}")
    held = some(sorted(names.values()), 20) or "nothing"
    if not found:
        raise ImageError(
            f"{path}: holds none of the labels {some(list(labels))}; it holds {held}: name them in data.labels, such as lung: {{value: 1, structures: [Lung_L, Lung_R]}}"
        )
    if absent:
        say_once(path, f"holds no {some(absent)}; it holds {held}")
    if left := [name for number, name in names.items() if not any(number in own for own in found.values())]:
        say_once(path, f"not declared in data.labels and left out: {some(left, 20)}")
    return found
