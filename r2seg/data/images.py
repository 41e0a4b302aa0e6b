"""Every file format in and out, geometry kept: pictures, volumes, label maps and probability maps.

Voxels come and go in the axis order of the file; nothing is reoriented, resampled or rescaled here (that is preprocessing.py).
What is read: NIfTI (.nii, .nii.gz, .img with its .hdr), NRRD, MetaImage, pictures (png, jpg, tif, bmp, gif, ppm, pgm, pbm, the
last three also gzipped) and .npy. How each is read and written lies in formats.py.

Choices where a format leaves room:

- NIfTI: the sform where its code is above 0, else the qform, else nibabel's default (that of Analyze). Affines are in
  millimetres: units of metre or micron are converted, unknown units taken as millimetres. Two axes are a picture with an affine; of
  four axes the last one is channels; more are refused. RGB voxels are three channels.
- An opaque alpha channel is dropped; one that hides something is refused. Palette pictures become RGB where they are images.
- A picture that asks to be turned or mirrored on display (EXIF orientation) is refused: whether its mask was drawn on the stored or
  on the displayed pixels cannot be known.
- Animations and TIFFs of several pages are refused: a stack of pages has no voxel size and no orientation.
- .npy holds (rows, columns) or (rows, columns, channels) with at most 16 channels; volumes need a format that knows geometry.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from r2seg.data.formats import (
    IMAGE_SUFFIXES,
    PICTURES,
    WRITABLE,
    Grid,
    ImageError,
    known_suffix,
    open_file,
    split_suffix,
    write_array,
)

__all__ = [
    "IGNORE",
    "IMAGE_SUFFIXES",
    "Grid",
    "Image",
    "ImageError",
    "check_same_grid",
    "output_name",
    "read_grid",
    "read_image",
    "read_label_map",
    "read_probabilities",
    "split_suffix",
    "write_label_map",
    "write_probabilities",
]

IGNORE = 255
_PROBABILITY_STEPS = 65535

Labels = Mapping[str, int | Sequence[int]]


@dataclass(frozen=True, eq=False)
class Image:
    """An image as its file holds it.

    Attributes:
        array: (C, *S) in the file's axis order and dtype; float32 where the header rescales. May be memory-mapped.
        affine: (4, 4) voxel index -> RAS+ millimetres, or None where the file has no geometry.
        path: The (first) file.
        source: What a writer needs to give the same header back; opaque.
    """

    array: np.ndarray
    affine: np.ndarray | None
    path: Path
    source: Any = field(default=None, repr=False)

    @property
    def grid(self) -> Grid:
        return Grid(self.path, self.shape, self.num_channels, self.affine)

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial size (*S), without channels."""
        return tuple(self.array.shape[1:])

    @property
    def spatial_dims(self) -> int:
        return self.array.ndim - 1

    @property
    def num_channels(self) -> int:
        return self.array.shape[0]

    @property
    def spacing_mm(self) -> tuple[float, ...] | None:
        """Distance between neighbouring voxels along each axis, or None where the file has no geometry."""
        return self.grid.spacing_mm


def output_name(path: str | Path) -> str:
    """File name that an output takes for this input: its own, with .png for pictures whose format cannot hold a label map.

    The "_0000" that marks a case's first channel is dropped; "scan_0007.png" keeps its number.
    """
    stem, _ = split_suffix(path)
    suffix = Path(path).name[len(stem) :] if known_suffix(Path(path)) in WRITABLE else ".png"
    return (stem.removesuffix("_0000") or stem) + suffix


def read_grid(path: str | Path) -> Grid:
    """Grid of an image file, from its header alone.

    Raises:
        ImageError: The file is missing or no image, or its header cannot be read.
    """
    return open_file(Path(path)).grid


def read_image(path: str | Path | Sequence[str | Path]) -> Image:
    """Image of one file, or of several files that are the channels of one case.

    Args:
        path: A file, or files in channel order whose grids agree.

    Shape: array (C, *S), S in the file's axis order.

    Raises:
        ImageError: A file is missing, damaged or unsupported, holds NaN or infinite values, or the grids differ.
    """
    paths = [path] if isinstance(path, str | os.PathLike) else list(path)
    if not paths:
        raise ValueError("read_image: no file given")
    files = [open_file(Path(one)) for one in paths]
    first = files[0].grid
    for other in files[1:]:
        check_same_grid(first, other.grid)
    arrays = [file.load()[0] for file in files]
    for file, array in zip(files, arrays, strict=True):
        _check_finite(file.grid.path, array)
    array = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    return Image(array, first.affine, first.path, files[0].source)


def check_same_grid(first: Grid | Image, second: Grid | Image) -> None:
    """Checks that two images lie on one grid: equal shape, and corners within a tenth of a voxel where both have geometry.

    A tenth, because a qform's quaternion in float32 may turn a grid by 3e-4 rad against the sform of the very same file.

    Raises:
        ImageError: They differ; names both files and what differs.
    """
    if first.shape != second.shape:
        raise ImageError(f"{second.path}: grid {second.shape} differs from grid {first.shape} of {first.path}")
    if first.affine is None or second.affine is None:
        return
    corners = np.indices((2,) * len(first.shape)).reshape(len(first.shape), -1).T * (np.array(first.shape) - 1)
    difference = second.affine - first.affine
    shift = float(np.linalg.norm(corners @ difference[:3, : corners.shape[1]].T + difference[:3, 3], axis=1).max())
    if shift > 0.1 * min(first.spacing_mm):
        raise ImageError(
            f"{second.path}: grid differs from that of {first.path} by up to {shift:.4g} mm: "
            f"spacing {_numbers(second.spacing_mm)} against {_numbers(first.spacing_mm)} mm, "
            f"first voxel at {_numbers(second.affine[:3, 3])} against {_numbers(first.affine[:3, 3])} mm"
        )


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{v:.5g}" for v in values) + ")"


def _check_finite(path: Path, array: np.ndarray) -> None:
    if array.dtype.kind != "f":
        return
    # One pass without a mask: a sum is finite unless a voxel is not (or it overflows, which the mask then clears up).
    with np.errstate(over="ignore", invalid="ignore"):
        if math.isfinite(array.sum(dtype=np.float64)):
            return
    bad = ~np.isfinite(array)
    if count := int(bad.sum()):
        channel, *index = (int(i) for i in np.unravel_index(int(bad.argmax()), bad.shape))
        where = f"index {tuple(index)}" + (f" of channel {channel}" if len(array) > 1 else "")
        value = array[(channel, *index)]
        raise ImageError(f"{path}: {count} voxels are NaN or infinite, the first ({value}) at {where}; replace them")


def read_label_map(path: str | Path, labels: Labels, ignore_label: int | None = None) -> Image:
    """Label map of a file as class indices, whichever way the mask was encoded.

    Accepted are the declared values; palette pictures, where the index is the label, or the grey level if all colours in use are
    grey and declared; several equal channels; floats with integer values. Where the only label is declared as 1 or as 255, also
    masks of 0/1 and of 0/255, and such masks smeared by jpeg or by smooth resizing, cut at 128.

    Args:
        path: The file.
        labels: Name -> value or values in the file, in class order; 0 is background.
        ignore_label: Value in the file of pixels that count nowhere.

    Shape: array (1, *S) uint8: 0 background, 1..K the labels in their order, 255 (`IGNORE`) ignored.

    Raises:
        ImageError: As `read_image`; or colours, fractions, or values that are not declared, listed with their counts.
    """
    path = Path(path)
    table = {0: 0}
    for index, values in enumerate(labels.values(), start=1):
        table |= {int(value): index for value in ([values] if isinstance(values, int | np.integer) else values)}
    if ignore_label is not None:
        table[int(ignore_label)] = IGNORE

    file = open_file(path)
    channels, palette = file.load(indices=True)
    _check_finite(path, channels)
    array = channels[0]
    if not all(np.array_equal(array, other) for other in channels[1:]):
        raise ImageError(f"{path}: its {len(channels)} channels differ; expected one label value a pixel")
    if array.dtype.kind == "f":
        array = _as_integers(path, array)

    # All values between 0 and the largest declared: nothing to count (the pass over them takes as long as inflating the file).
    declared = next(value for value in range(len(table) + 1) if value not in table) - 1
    if palette is None and array.min() >= 0 and array.max() <= declared:
        chosen = table
    else:
        counts = _count_values(array)
        chosen = None if palette is None else _grey_table(path, counts, palette, table)
        chosen = chosen or _table_for(path, counts, table)
        if chosen is None:
            unknown = [f"{value} ({count} pixels)" for value, count in counts.items() if value not in table]
            more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
            raise ImageError(
                f"{path}: holds undeclared label values {', '.join(unknown[:8])}{more}; "
                f"declared: {_declared(labels, ignore_label)}"
            )
    return Image(_look_up(array, chosen)[None], file.grid.affine, path, file.source)


def _declared(labels: Labels, ignore_label: int | None) -> str:
    named = [f"{name} {values if isinstance(values, int) else list(values)}" for name, values in labels.items()]
    return ", ".join(["background 0", *named] + ([] if ignore_label is None else [f"ignored {ignore_label}"]))


def _as_integers(path: Path, array: np.ndarray) -> np.ndarray:
    low, high = float(array.min()), float(array.max())
    if max(abs(low), abs(high)) >= 2**31:
        raise ImageError(f"{path}: label values reach from {low:g} to {high:g}; is it a label map?")
    integers = array.astype(np.int32)
    if not np.array_equal(integers, array):
        example = array.ravel("K")[int((integers != array).ravel("K").argmax())]
        raise ImageError(
            f"{path}: label values are not integers, for example {example:g}; is it an image, or was it resampled with interpolation?"
        )
    return integers


def _grey_table(
    path: Path, counts: Mapping[int, int], palette: np.ndarray, table: Mapping[int, int]
) -> dict[int, int] | None:
    """Palette index -> class index by grey level, or None where a colour in use is no grey or no declared value."""
    if max(counts) >= len(palette) or any(len(set(palette[index])) > 1 for index in counts):
        return None
    greys = {index: int(palette[index][0]) for index in counts}
    grey_counts: dict[int, int] = {}
    for index, count in counts.items():
        grey_counts[greys[index]] = grey_counts.get(greys[index], 0) + count
    chosen = _table_for(path, dict(sorted(grey_counts.items())), table)
    return None if chosen is None else {index: chosen[grey] for index, grey in greys.items()}


def _table_for(path: Path, counts: Mapping[int, int], table: Mapping[int, int]) -> Mapping[int, int] | None:
    """File value -> class index for all values counted, or None where some value is not declared."""
    if counts.keys() <= table.keys():
        return table
    # A single label is written as 1 by one tool and as 255 by the next. Not so for other declared values: there, 1 and 255 may be
    # structures that were left out on purpose.
    if table not in ({0: 0, 1: 1}, {0: 0, 255: 1}):
        return None
    if counts.keys() <= {0, 1} or counts.keys() <= {0, 255}:
        return {0: 0, 1: 1, 255: 1}
    if _is_smeared(path, counts):
        return {value: int(value >= 128) for value in counts}
    return None


def _is_smeared(path: Path, counts: Mapping[int, int]) -> bool:
    """Whether values are those of a 0/255 mask after lossy compression or smooth resizing: two heaps, little between.

    Many labels of which one is declared must not pass for it: they have no heap at 255 that thins out downwards.
    """
    suffix = split_suffix(path)[1]
    if suffix not in PICTURES or min(counts) < 0 or max(counts) > 255:
        return False

    def within(low: int, high: int) -> list[int]:
        return [count for value, count in counts.items() if low <= value <= high]

    black, dark, between, light, white = (within(*r) for r in ((0, 3), (4, 31), (32, 223), (224, 251), (252, 255)))
    heaps = sum(black) > 0.3 * sum(dark) and sum(white) > 0.3 * sum(light)
    total = sum(counts.values())
    if suffix in (".jpg", ".jpeg"):
        return heaps and sum(between) < 0.25 * total
    # In a lossless file few values are labels that somebody meant.
    return (
        heaps
        and min(len(within(1, 31)), len(within(224, 254))) >= 3
        and sum(between) < 0.1 * total
        and max(between, default=0) < 0.01 * total
    )


def _blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """The values in memory order, a million at a time: temporaries stay small beside a large volume."""
    flat = array.ravel("K")
    for start in range(0, flat.size, 1 << 20):
        yield flat[start : start + (1 << 20)]


def _count_values(array: np.ndarray) -> dict[int, int]:
    """Value -> number of pixels, by ascending value."""
    low, high = int(array.min()), int(array.max())
    if high - low < 1 << 16:
        tally = sum(np.bincount(block.astype(np.int64) - low, minlength=high - low + 1) for block in _blocks(array))
        return {int(i) + low: int(tally[i]) for i in np.flatnonzero(tally)}
    values, counts = np.unique(array, return_counts=True)
    return {int(value): int(count) for value, count in zip(values, counts, strict=True)}


def _look_up(array: np.ndarray, table: Mapping[int, int]) -> np.ndarray:
    """uint8 array of `table[value]` in the memory order of the input, which is returned itself where nothing changes."""
    if array.dtype != np.uint8 and min(table) >= 0 and max(table) < 256:
        array = array.astype(np.uint8)  # all values are in the table
    if array.dtype == np.uint8:
        entries = np.arange(256, dtype=np.uint8)
        for value, index in table.items():
            if 0 <= value < 256:
                entries[value] = index
        if np.array_equal(entries, np.arange(256)):
            return array
        indices = np.empty_like(array)
        flat, done = indices.ravel("K"), 0
        if not np.shares_memory(flat, indices):
            return entries[array]
        for block in _blocks(array):
            flat[done : done + block.size] = entries[block]
            done += block.size
        return indices
    indices = np.zeros_like(array, np.uint8)
    for value, index in table.items():
        if index:
            indices[array == value] = index
    return indices


def write_label_map(path: str | Path, indices: np.ndarray, like: Image, labels: Labels) -> None:
    """Writes class indices as a uint8 label map on the grid of the image they were made from.

    NIfTI keeps every field of the input's header but data type, scaling and display range; NRRD and MetaImage keep origin, spacing
    and direction; pictures become palette images whose index is the label value. The file appears whole or not at all.

    Args:
        path: File to write; its folder is made where needed.
        indices: Class indices, 0 background and 1..K the labels in their order.
        like: The image, as read: its grid and header are kept.
        labels: Name -> value in the file; of several values the first is written.

    Shape: indices (*S) uint8, with S that of `like`.

    Raises:
        ImageError: A label's value is above 255, the format cannot hold the map, or the file cannot be written.
    """
    path = Path(path)
    values = [0]
    for name, value in labels.items():
        values.append(int(value if isinstance(value, int | np.integer) else value[0]))
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
    array = _look_up(indices.astype(np.uint8, copy=False), dict(enumerate(values)))
    write_array(path, array, like.source, like.affine)


def write_probabilities(path: str | Path, probabilities: np.ndarray, like: Image) -> Path:
    """Writes probabilities as uint16 in steps of 1/65535, classes last, on the grid of the image they were made from.

    NIfTI is (X, Y, Z, K) with scl_slope 1/65535, so that any reader yields probabilities. NRRD and MetaImage have K components a
    voxel, pictures become .npy (rows, columns, K); neither states the scale. `read_probabilities` reads all of them.

    Args:
        path: File to write; a picture's suffix is replaced by .npy.
        probabilities: Values in [0, 1].
        like: The image, as read.

    Shape: probabilities (K, *S), with S that of `like`.

    Returns:
        The file written.

    Raises:
        ImageError: The file cannot be written.
    """
    path = Path(path)
    if probabilities.shape[1:] != like.shape:
        raise ValueError(f"probabilities {probabilities.shape} are not (K, *S) on the grid {like.shape} of {like.path}")
    if known_suffix(path) in PICTURES:
        path = path.with_name(split_suffix(path)[0] + ".npy")
    steps = np.empty((*like.shape, len(probabilities)), np.uint16, order="F" if like.spatial_dims == 3 else "C")
    for k, channel in enumerate(probabilities):
        scaled = np.asarray(channel, np.float32) * _PROBABILITY_STEPS
        steps[..., k] = np.rint(np.clip(scaled, 0, _PROBABILITY_STEPS, out=scaled), out=scaled)
    write_array(path, steps, like.source, like.affine, scale=1 / _PROBABILITY_STEPS, classes=True)
    return path


def read_probabilities(path: str | Path) -> Image:
    """Probability map that `write_probabilities` wrote, or one that another tool wrote as real numbers.

    Shape: array (K, *S) float32.

    Raises:
        ImageError: As `read_image`.
    """
    image = read_image(path)
    array = image.array.astype(np.float32, copy=False)
    if image.array.dtype == np.uint16:
        array *= np.float32(1 / _PROBABILITY_STEPS)
    return Image(array, image.affine, image.path, image.source)
