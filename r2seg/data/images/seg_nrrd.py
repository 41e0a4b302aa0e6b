"""Segmentations of 3D Slicer (.seg.nrrd): the segments that their header names, and their place on the image's grid.

Slicer numbers the values of its segments itself, so that a segment is known by its name alone; it crops the file to what is drawn,
and puts segments that overlap into several layers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from r2seg.data.formats import File, Grid, ImageError
from r2seg.data.images.image import Image
from r2seg.data.images.mask_values import count_values
from r2seg.errors import nearest, some
from r2seg.labels import Labels, structures_of, values_of
from r2seg.palette import label_colors

_KEY = re.compile(r"Segment(\d+)_(\w+)")
# Fraction of a voxel by which the corner of a cropped grid may miss a voxel of the image's.
_TOLERANCE = 0.1


@dataclass(frozen=True)
class Segment:
    """One segment of a segmentation.

    Attributes:
        name: As Slicer shows it.
        layer: The channel that holds it.
        value: Its value in that channel.
    """

    name: str
    layer: int
    value: int


def segments_of(file: File) -> list[Segment] | None:
    """The segments that a file's header names, in their order; None if the file is not a segmentation of 3D Slicer.

    Raises:
        ImageError: The header's numbers cannot be read.
    """
    stated: dict[int, dict[str, str]] = {}
    for key, text in file.fields.items():
        if match := _KEY.fullmatch(key):
            stated.setdefault(int(match[1]), {})[match[2]] = text.strip()
    if not any("Name" in one or "ID" in one for one in stated.values()):
        return None
    try:
        # Before version 4.11, Slicer wrote each segment into a layer of its own, with the value 1.
        return [
            Segment(
                one.get("Name") or one.get("ID", f"Segment{number}"),
                int(one.get("Layer", number if "LabelValue" not in one else 0)),
                int(one.get("LabelValue", 1)),
            )
            for number, one in sorted(stated.items())
        ]
    except ValueError as error:
        raise ImageError(f"{file.grid.path}: its segments cannot be read: {error}") from None


def masks_of_segments(
    file: File, segments: Sequence[Segment], labels: Labels, undeclared: str
) -> tuple[dict[str, np.ndarray], int]:
    """The mask (*S) of each label, found by the names of the segments; and the voxels of segments that are no label.

    Raises:
        ImageError: A segment that has voxels is not declared (with ``undeclared`` "background": all of them), or the header does not
            fit the voxels.
    """
    path = file.grid.path
    layers, _ = file.load()
    names = {_plain(structure): name for name, own in structures_of(labels).items() for structure in own}
    masks = {name: np.zeros(layers.shape[1:], bool) for name in labels}
    stray: dict[str, int] = {}
    for segment in segments:
        if segment.layer >= len(layers):
            raise ImageError(
                f"{path}: segment {segment.name!r} is in layer {segment.layer}, but the file has {len(layers)}: it is damaged"
            )
        mask = layers[segment.layer] == segment.value
        if (name := names.get(_plain(segment.name))) is not None:
            masks[name] |= mask
        elif count := int(mask.sum()):
            stray[segment.name] = count
    if stray and (undeclared == "error" or not any(mask.any() for mask in masks.values())):
        listed = some([f"{name!r} ({count} voxels)" for name, count in stray.items()], 8)
        raise ImageError(
            f"{path}: holds segments that are not labels: {listed}; declared: {', '.join(labels)}; segments are found by their "
            f"names: {nearest(next(iter(stray)), labels)}"
        )
    known = {(segment.layer, segment.value) for segment in segments}
    for layer, array in enumerate(layers):
        extra = [value for value in count_values(array) if value and (layer, value) not in known]
        if extra:
            raise ImageError(
                f"{path}: holds the values {some(extra)}, which no segment of its header has: it is damaged"
            )
    return masks, sum(stray.values())


def _plain(name: str) -> str:
    """A name as names are compared: without capitals, and with one kind of space."""
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def place_on(segmentation: Image, like: Image | Grid) -> tuple[np.ndarray, np.ndarray | None]:
    """A segmentation's array (C, *S) on the grid of its image, with zeros around it; and the affine of that grid.

    Both are returned as they are if the grids do not differ by a shift of whole voxels: comparing them tells what does.

    Raises:
        ImageError: The segmentation reaches beyond the image.
    """
    array, affine = segmentation.array, segmentation.affine
    if affine is None or like.affine is None or array.ndim - 1 != like.spatial_dims or like.spatial_dims != 3:
        return array, affine
    to_image = np.linalg.inv(like.affine) @ affine
    # How far the last voxel lies from where a shift of whole voxels would put it.
    offset = np.rint(to_image[:3, 3]).astype(int)
    last = np.array(array.shape[1:]) - 1
    corners = np.array([[0, 0, 0], last, *(last * axis for axis in np.eye(3))])
    missed = np.abs(corners @ to_image[:3, :3].T + to_image[:3, 3] - corners - offset).max()
    if missed > _TOLERANCE:
        return array, affine
    stop = offset + array.shape[1:]
    if (offset < 0).any() or (stop > like.shape).any():
        # Empty margins around the image are only margins.
        inside = tuple(slice(max(0, -o), n - max(0, e - s)) for o, n, e, s in zip(offset, array.shape[1:], stop, like.shape, strict=True))  # fmt: skip
        if np.count_nonzero(array[(slice(None), *inside)]) != np.count_nonzero(array):
            raise ImageError(
                f"{segmentation.path}: its segments reach beyond the image {like.path}: voxels {offset.tolist()} to "
                f"{stop.tolist()} of {list(like.shape)}; is it the segmentation of another image?"
            )
        array, offset = array[(slice(None), *inside)], np.maximum(offset, 0)
        stop = offset + array.shape[1:]
    placed = np.zeros((len(array), *like.shape), array.dtype)
    placed[(slice(None), *(slice(o, e) for o, e in zip(offset, stop, strict=True)))] = array
    return placed, like.affine


def segment_fields(labels: Labels, shape: Sequence[int]) -> dict[str, str]:
    """Header fields that make a label map a segmentation of 3D Slicer: names, values and colours of its labels."""
    extent = " ".join(f"0 {size - 1}" for size in shape)
    fields = {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": " ".join("0" for _ in shape),
    }
    for number, ((name, label), color) in enumerate(zip(labels.items(), label_colors(labels).values(), strict=True)):
        fields |= {
            f"Segment{number}_ID": f"Segment_{number + 1}",
            f"Segment{number}_Name": name,
            f"Segment{number}_NameAutoGenerated": "0",
            f"Segment{number}_LabelValue": str(values_of(label)[0]),
            f"Segment{number}_Layer": "0",
            f"Segment{number}_Color": " ".join(f"{channel / 255:.6f}" for channel in color),
            f"Segment{number}_Extent": extent,
        }
    return fields
