"""Label maps: masks in any encoding to class indices, and class indices to a label map on an image's own grid.

What values mean is in mask_values.py, colours in mask_colors.py, segmentations of 3D Slicer in seg_nrrd.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from r2seg.data.formats import File, Grid, Header, ImageError, open_file, split_suffix, write_array
from r2seg.data.formats.dicom_files import label_file_of
from r2seg.data.images.dicom_labels import read_dicom_label
from r2seg.data.images.image import Image, check_finite, check_same_grid
from r2seg.data.images.mask_colors import as_bytes, colors_in_words, pack, packed, recognised_colors, unpack
from r2seg.data.images.mask_values import (
    LOSSY,
    Recognised,
    as_integers,
    count_values,
    look_up,
    recognised,
    recognised_greys,
)
from r2seg.data.images.seg_nrrd import Segment, masks_of_segments, place_on, segment_fields, segments_of
from r2seg.errors import some
from r2seg.labels import IgnoreLabel, Labels, Rgb, colors_in_files, values_of
from r2seg.palette import label_colors, palette_color

IGNORE = 255

# A grey mask that was saved as a colour JPEG has channels that differ by no more than rounding.
_ROUNDING = 8


@dataclass(frozen=True, eq=False)
class LabelMap(Image):
    """A label map as class indices, and what was done to the values of its file.

    Attributes:
        cut: Whether the file is a mask smeared by JPEG or smooth resizing: one of 0/255 was cut at `CUT`, in one of colours each
            pixel took the nearest declared colour.
        num_undeclared: Pixels of undeclared values that became background.
        cropped: Whether the file is a segmentation of 3D Slicer, which may cover a part of its image.
    """

    cut: bool = False
    num_undeclared: int = 0
    cropped: bool = False


@dataclass(frozen=True)
class _Declared:
    """What the values and colours of a mask may be.

    Attributes:
        labels: As given.
        ignored: Value or colour of ignored pixels, or None.
        values: Value -> class index.
        colors: Number of a colour -> class index; empty if no colour is declared.
    """

    labels: Labels
    ignored: IgnoreLabel | None
    values: Mapping[int, int]
    colors: Mapping[int, int]

    @classmethod
    def of(cls, labels: Labels, ignored: IgnoreLabel | None) -> _Declared:
        values, colors = {0: 0}, {0: 0}
        for index, label in enumerate(labels.values(), start=1):
            values |= dict.fromkeys(values_of(label), index)
            colors |= {packed(color): index for color in colors_in_files(label)}
        if isinstance(ignored, tuple):
            colors[packed(ignored)] = IGNORE
        elif ignored is not None:
            values[int(ignored)] = IGNORE
        return cls(labels, ignored, values, colors if len(colors) > 1 else {})

    @property
    def palette_colors(self) -> dict[int, int]:
        """As `colors`, and the colours that our own palette pictures have."""
        drawn = label_colors(self.labels)
        ours = {
            packed(palette_color(min(values_of(label)[0], IGNORE), drawn[name])): index
            for index, (name, label) in enumerate(self.labels.items(), start=1)
        }
        return {**ours, **self.colors}

    def __str__(self) -> str:
        named = []
        for name, label in self.labels.items():
            values, colors = label if isinstance(label, int) else list(label), colors_in_files(label)
            named.append(f"{name} {values}" + (f" or {some([list(color) for color in colors])}" if colors else ""))
        ignored = list(self.ignored) if isinstance(self.ignored, tuple) else self.ignored
        return ", ".join(["background 0", *named] + ([] if ignored is None else [f"ignored {ignored}"]))


class _Coded(NamedTuple):
    """A mask as one number per pixel, and how the numbers are to be understood.

    Attributes:
        array: Numbers (*S).
        table: Number -> class index, of all that is declared.
        recognise: Of the numbers counted, what they mean; None if some are not declared.
        words: Numbers with their counts, for messages.
    """

    array: np.ndarray
    table: Mapping[int, int]
    recognise: Callable[[Mapping[int, int]], Recognised | None]
    words: Callable[[Mapping[int, int]], str]
    what: str = "label values"


def read_label_map(
    path: str | Path,
    labels: Labels,
    ignore_label: IgnoreLabel | None = None,
    *,
    undeclared: str = "error",
    like: Image | File | Grid | None = None,
) -> LabelMap:
    """Label map of a file as class indices, however the mask is encoded.

    Accepted are the declared values; palette pictures, whose index is the label, or the grey level if all colours in use are
    grey and declared; several equal channels; floats with integer values. If the only label is declared as 1, 255 or 65535, masks of
    0/1, 0/255 and 0/65535 are accepted too, and masks of 0/255 smeared by jpeg or by smooth resizing, cut at 128. If labels declare
    colours, colour and palette pictures are read by them; a picture smeared by jpeg takes the nearest declared colour where no colour
    can be mistaken for the border of others. Segmentations of 3D Slicer (.seg.nrrd) are read by the names of their segments.

    Args:
        path: The file.
        labels: Name -> value or values in the file, or a `Label` with colours, in class order; 0 is background.
        ignore_label: Value or colour in the file of pixels that are neither trained nor scored.
        undeclared: "error" refuses values that are not declared; "background" counts them as background. Masks of 0/1, of
            0/255 and smeared ones are recognised first, so that their foreground is never taken for undeclared values.
        like: The image that it belongs to: their grids must be the same; a segmentation that 3D Slicer cropped is placed on the image's,
            and an RTSTRUCT or DICOM-SEG is read on it, by the labels' names.

    Shape: array (1, *S) uint8: 0 background, 1..K the labels in their order, 255 (`IGNORE`) ignored.

    Raises:
        ImageError: As `read_image`; or colours, fractions, or values that are not declared, listed with their counts; or another
            grid than ``like``. With undeclared="background": the undeclared pixels are the whole foreground, or the file is a JPEG.
    """
    if undeclared not in ("error", "background"):
        raise ValueError(f"undeclared is {undeclared!r}: give error or background")
    path = Path(path)
    if label_file_of(path) is not None:
        drawn, grid = read_dicom_label(path, labels, like)
        return LabelMap(drawn[None], grid.affine, path)
    return on_grid_of(like, read_file(open_file(path), labels, ignore_label, undeclared=undeclared))


def read_file(
    file: File, labels: Labels, ignore_label: IgnoreLabel | None = None, *, undeclared: str = "error"
) -> LabelMap:
    """Label map of a file that is open; arguments and errors as for `read_label_map`."""
    declared = _Declared.of(labels, ignore_label)
    segments = segments_of(file)
    if segments is not None:
        return _read_segments(file, segments, declared, undeclared)
    return _read_values(file, declared, undeclared)


def on_grid_of(like: Image | File | Grid | None, label_map: LabelMap) -> LabelMap:
    """A label map on the grid of its image: a segmentation that 3D Slicer cropped is placed on it; without an image as it is.

    Raises:
        ImageError: The grids differ.
    """
    if like is None:
        return label_map
    like = like.grid if isinstance(like, File) else like
    if label_map.cropped:
        array, affine = place_on(label_map, like)
        label_map = replace(label_map, array=array, affine=affine)
    check_same_grid(like, label_map)
    return label_map


def _read_values(file: File, declared: _Declared, undeclared: str) -> LabelMap:
    path = file.grid.path
    channels, palette = file.load(indices=True)
    check_finite(path, channels)
    coded = _coded(path, channels, palette, declared)

    def label_map(indices: np.ndarray, cut: bool = False, num_undeclared: int = 0) -> LabelMap:
        return LabelMap(indices[None], file.grid.affine, path, file.source, cut=cut, num_undeclared=num_undeclared)

    # All values between 0 and the largest declared: nothing to count (the pass over them takes as long as inflating the file).
    dense = next(value for value in range(len(coded.table) + 1) if value not in coded.table) - 1
    if palette is None and coded.array.min() >= 0 and coded.array.max() <= dense:
        return label_map(look_up(coded.array, coded.table))
    counts = count_values(coded.array)
    known = coded.recognise(counts)
    if known is not None:
        return label_map(look_up(coded.array, known.classes), cut=known.cut)
    stray = {value: count for value, count in counts.items() if value not in coded.table}
    held = f"{path}: holds undeclared {coded.what} {coded.words(stray)}"
    if undeclared == "error":
        made = "; if JPEG made these, save the mask as PNG" if split_suffix(path)[1] in LOSSY else ""
        raise ImageError(f"{held}; declared: {declared}{made}")
    if split_suffix(path)[1] in LOSSY:
        raise ImageError(f"{held}, which JPEG may have made of declared ones; save the label map as PNG")
    if not any(coded.table.get(value) not in (None, 0, IGNORE) for value in counts):
        raise ImageError(
            f"{path}: all its foreground is of undeclared {coded.what}: {coded.words(stray)}; declared: {declared}; "
            "declare these values too, or correct the file"
        )
    indices = look_up(coded.array, {**coded.table, **dict.fromkeys(stray, 0)})
    return label_map(indices, num_undeclared=sum(stray.values()))


def _coded(path: Path, channels: np.ndarray, palette: np.ndarray | None, declared: _Declared) -> _Coded:
    """A mask's channels as one number per pixel: its values, or its colours if colours are declared.

    Raises:
        ImageError: Channels differ and are not declared colours, or values are not integers.
    """
    if declared.colors and palette is not None:
        numbers = pack(palette)[np.minimum(channels[0], len(palette) - 1)]
        table = declared.palette_colors
        in_use = [unpack(number) for number in count_values(numbers)]
        if all(packed(color) in table for color in in_use) or any(len(set(color)) > 1 for color in in_use):
            return _by_color(path, numbers, table)
    equal = all(np.array_equal(channels[0], other) for other in channels[1:])
    colors = None if palette is not None or len(channels) == 1 else as_bytes(channels)
    if colors is not None and declared.colors:
        numbers = pack(colors)
        if not equal or count_values(numbers).keys() <= declared.colors.keys():
            return _by_color(path, numbers, declared.colors)
    array = channels[0]
    if not equal:
        middle = None if colors is None else _smeared_grey(path, colors, declared)
        if middle is None:
            raise ImageError(f"{path}: {_why_not_colors(channels, colors, declared)}")
        array = middle
    if array.dtype.kind == "f":
        array = as_integers(path, array)

    def recognise(counts: Mapping[int, int]) -> Recognised | None:
        known = None if palette is None else recognised_greys(path, counts, palette, declared.values)
        return known or recognised(path, counts, declared.values)

    return _Coded(array, declared.values, recognise, _listed)


def _by_color(path: Path, numbers: np.ndarray, table: Mapping[int, int]) -> _Coded:
    return _Coded(
        numbers, table, lambda counts: recognised_colors(path, counts, table), colors_in_words, what="colours"
    )


def _smeared_grey(path: Path, colors: np.ndarray, declared: _Declared) -> np.ndarray | None:
    """The grey levels of a 0/255 mask that was saved as a colour JPEG, or None if the colours are not such a mask's."""
    if int(np.ptp(colors, axis=-1).max()) > _ROUNDING:
        return None
    grey = np.rint(colors.mean(axis=-1)).astype(np.uint8)
    known = recognised(path, count_values(grey), declared.values)
    return grey if known is not None and known.cut else None


def _why_not_colors(channels: np.ndarray, colors: np.ndarray | None, declared: _Declared) -> str:
    """What is wrong with a mask whose channels differ, and which declaration would read it."""
    text = f"its {len(channels)} channels differ; expected one label value per pixel"
    if colors is None:
        return text
    counts = count_values(pack(colors))
    counts.pop(0, None)
    text += f", or declared colours; it holds {colors_in_words(counts, 5)}"
    for name, label in declared.labels.items():
        values = values_of(label)
        if len(values) == 3 and packed((values[0], values[1], values[2])) in counts and max(values) <= 255:
            return f"{text}; data.labels.{name} lists three values: if they are one colour, write {name}: {{rgb: {list(values)}}}"
    name, example = next(iter(declared.labels)), list(unpack(max(counts, key=lambda number: counts[number])))
    return f"{text}; if these are labels, declare their colours in data.labels, such as {name}: {{rgb: {example}}}"


def _listed(stray: Mapping[int, int]) -> str:
    return some([f"{value} ({count} pixels)" for value, count in stray.items()], 8)


def _read_segments(file: File, segments: list[Segment], declared: _Declared, undeclared: str) -> LabelMap:
    """A segmentation of 3D Slicer, its segments taken by their names.

    Raises:
        ImageError: A segment that has voxels is not declared, or two declared ones overlap.
    """
    masks, num_stray = masks_of_segments(file, segments, declared.labels, undeclared)
    indices = np.zeros(file.grid.shape, np.uint8)
    names = list(declared.labels)
    for index, name in enumerate(names, start=1):
        both = masks[name] & (indices != 0)
        if both.any():
            raise ImageError(
                f"{file.grid.path}: its segments {names[int(indices[both][0]) - 1]} and {name} overlap in {int(both.sum())} voxels: "
                "remove the overlap in Slicer, or set data.overlapping: true and network.output: sigmoid"
            )
        indices[masks[name]] = index
    return LabelMap(
        indices[None], file.grid.affine, file.grid.path, file.source, num_undeclared=num_stray, cropped=True
    )


def write_label_map(path: str | Path, indices: np.ndarray, like: Image, labels: Labels) -> None:
    """Writes class indices as a uint8 label map on the grid of the image they were made from.

    NIfTI keeps every field of the input's header except data type, scaling and display range; NRRD and MetaImage keep origin, spacing
    and direction, and a name that ends in .seg.nrrd makes a segmentation of 3D Slicer; pictures become palette images whose index is
    the label value, in the labels' colours. The file appears whole or not at all.

    Args:
        path: File to write; its folder is made if needed.
        indices: Class indices, 0 background and 1..K the labels in their order.
        like: The image, as read: its grid and header are kept.
        labels: Name -> value in the file; the first of several is written.

    Shape: indices (*S) uint8, with S that of `like`.

    Raises:
        ImageError: A label's value is above 255, the format cannot hold the map, or the file cannot be written.
    """
    path = Path(path)
    values = [0]
    for name, label in labels.items():
        values.append(values_of(label)[0])
        if not 0 <= values[-1] <= 255:
            raise ImageError(
                f"{path}: label {name!r} has value {values[-1]}; label maps are written as uint8, 0 to 255"
            )
    indices = np.asarray(indices)
    if indices.shape != like.shape:
        raise ValueError(f"indices {indices.shape} are not on the grid {like.shape} of {like.path}")
    if indices.size and not 0 <= int(indices.min()) <= int(indices.max()) < len(values):
        raise ValueError(
            f"class indices from {indices.min()} to {indices.max()}, but there are {len(values) - 1} labels"
        )
    array = look_up(indices.astype(np.uint8, copy=False), dict(enumerate(values)))
    colors: dict[int, Rgb] = dict(zip(values[1:], label_colors(labels).values(), strict=True))
    fields = segment_fields(labels, like.shape) if path.name.lower().endswith(".seg.nrrd") else {}
    write_array(path, array, Header(like.source, like.affine, colors=colors, fields=fields))
