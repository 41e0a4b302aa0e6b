"""Labels that may overlap: from one file per label, or one with a channel per label, to a map of bits, and back to files.

In memory they are one byte per voxel, whose bit k - 1 is label k (`metrics.label_mask`) and whose value 255 is ignored.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from r2seg.data.formats import PICTURES, File, Grid, Header, ImageError, known_suffix, open_file, write_array
from r2seg.data.images.image import Image
from r2seg.data.images.label_maps import IGNORE, LabelMap, on_grid_of, read_file, read_label_map
from r2seg.data.images.seg_nrrd import masks_of_segments, segments_of
from r2seg.errors import UserError, counted, some
from r2seg.labels import MOST_OVERLAPPING, IgnoreLabel, Labels, Rgb
from r2seg.palette import label_colors

# Header field of our pictures: the names of the labels, in the order of the bits.
BITS_FIELD = "r2seg-bits"


def read_labels(
    paths: Sequence[Path],
    labels: Labels,
    ignore_label: IgnoreLabel | None = None,
    *,
    overlapping: bool = False,
    undeclared: str = "error",
    like: Image | File | Grid | None = None,
) -> LabelMap:
    """The label map of a case: as `read_label_map`, or of labels that may overlap from one file or one file per label.

    Args:
        paths: The files: one; or, if labels overlap, one for each label, in their order.
        labels: As in `read_label_map`. Each channel of overlapping labels may also be a mask of 0/1, 0/255 or 0/65535.
        ignore_label: As in `read_label_map`; a voxel that is ignored in one channel is ignored for all labels.
        overlapping: Whether labels may overlap. One file then has one channel per label, or is a segmentation of 3D Slicer, or a
            picture that `write_overlapping` wrote.
        undeclared: As in `read_label_map`.
        like: As in `read_label_map`.

    Shape: array (1, *S) uint8: class indices, or bits.

    Raises:
        ImageError: As `read_label_map`; or the number of files or channels is not that of the labels.
    """
    if not overlapping:
        if len(paths) != 1:
            raise UserError(
                f"{counted(len(paths), 'label map')} ({some(paths, 3)}): give one; if each holds one label and labels may overlap, "
                "set data.overlapping: true and network.output: sigmoid"
            )
        return read_label_map(paths[0], labels, ignore_label, undeclared=undeclared, like=like)
    if len(labels) > MOST_OVERLAPPING:
        raise UserError(f"there are {len(labels)} labels: at most {MOST_OVERLAPPING} can overlap")
    if len(paths) == 1:
        return on_grid_of(like, _read_one(Path(paths[0]), labels, ignore_label, undeclared))
    if len(paths) != len(labels):
        raise ImageError(
            f"{some(paths, 3)}: {counted(len(paths), 'file')} for {counted(len(labels), 'label')} ({some(list(labels))}): where labels "
            "overlap, give one file for each label in the order of data.labels, or one file of as many channels"
        )
    maps: list[LabelMap] = []
    for path, (name, label) in zip(paths, labels.items(), strict=True):
        one = _read_mask(open_file(Path(path)), {name: label}, ignore_label, undeclared)
        maps.append(on_grid_of(maps[0] if like is None and maps else like, one))
    return _joined(maps, [each.array for each in maps])


def _read_one(path: Path, labels: Labels, ignore_label: IgnoreLabel | None, undeclared: str) -> LabelMap:
    file = open_file(path)
    if (segments := segments_of(file)) is not None:
        masks, num_stray = masks_of_segments(file, segments, labels, undeclared)
        empty = LabelMap(np.zeros((1, *file.grid.shape), np.uint8), file.grid.affine, path, file.source, cropped=True)
        return replace(_joined([empty], [masks[name][None] for name in labels]), num_undeclared=num_stray)
    if BITS_FIELD in file.fields:
        return _read_bits(file, labels)
    channels, _ = file.load(indices=True)
    if len(channels) != len(labels):
        raise ImageError(
            f"{path}: has {counted(len(channels), 'channel')} for {counted(len(labels), 'label')} ({some(list(labels))}): where labels "
            "overlap, give one file for each label in the order of data.labels, or one file of as many channels"
        )
    maps = []
    for channel, (name, label) in zip(channels, labels.items(), strict=True):
        grid = Grid(path, file.grid.shape, 1, file.grid.affine)
        alone = File(grid, file.source, lambda _, channel=channel: (channel[None], None))  # type: ignore[misc]
        maps.append(_read_mask(alone, {name: label}, ignore_label, undeclared))
    return _joined(maps, [each.array for each in maps])


def _read_mask(file: File, label: Labels, ignore_label: IgnoreLabel | None, undeclared: str) -> LabelMap:
    """The mask of one label by its declared values, else as 0/1, 0/255 or 0/65535."""
    try:
        return read_file(file, label, ignore_label, undeclared=undeclared)
    except ImageError:
        try:
            return read_file(file, dict.fromkeys(label, 1), ignore_label)
        except ImageError:
            pass
        raise


def _joined(maps: Sequence[LabelMap], masks: Sequence[np.ndarray]) -> LabelMap:
    """The bits of maps whose masks hold 1 (or True) where a label is, and `IGNORE`."""
    bits = np.zeros_like(masks[0], np.uint8)
    for number, mask in enumerate(masks):
        bits |= (mask == 1).astype(np.uint8) << np.uint8(number)
    for mask in masks:
        bits[mask == IGNORE] = IGNORE
    return replace(
        maps[0],
        array=bits,
        cut=any(each.cut for each in maps),
        num_undeclared=sum(each.num_undeclared for each in maps),
    )


def _read_bits(file: File, labels: Labels) -> LabelMap:
    """A picture that `write_overlapping` wrote, its bits in the order of these labels."""
    path = file.grid.path
    try:
        names = [str(name) for name in json.loads(file.fields[BITS_FIELD])]
    except (ValueError, TypeError):
        raise ImageError(f"{path}: its field {BITS_FIELD} is damaged") from None
    if set(names) != set(labels) or len(names) != len(labels):
        raise ImageError(f"{path}: holds the labels {', '.join(names)}; declared: {', '.join(labels)}")
    array, _ = file.load(indices=True)
    if int(array.max()) >= 1 << len(names):
        raise ImageError(
            f"{path}: holds the value {int(array.max())}, which {counted(len(names), 'label')} do not give"
        )
    bits = np.zeros(array.shape, np.uint8)
    for number, name in enumerate(labels):
        bits |= ((array >> names.index(name)) & 1).astype(np.uint8) << np.uint8(number)
    return LabelMap(bits, file.grid.affine, path, file.source)


def write_overlapping(path: str | Path, bits: np.ndarray, like: Image, labels: Labels) -> None:
    """Writes labels that may overlap on the grid of the image they were made from; `read_labels` reads them back.

    NIfTI is (X, Y, Z, K), NRRD and MetaImage have K components, .npy is (rows, columns, K): one channel of 0 and 1 per label, in their
    order. Pictures (PNG, TIFF) have one palette index for each set of labels, the sum of their bits 1, 2, 4, …, in the mixture of their
    colours; the header names the labels.

    Args:
        path: File to write; its folder is made if needed.
        bits: Bit k - 1 is label k.
        like: The image, as read: its grid and header are kept.
        labels: The labels, in their order.

    Shape: bits (*S) uint8, with S that of `like`.

    Raises:
        ImageError: The format cannot hold them, or the file cannot be written.
    """
    path = Path(path)
    bits = np.asarray(bits)
    if bits.shape != like.shape:
        raise ValueError(f"bits {bits.shape} are not on the grid {like.shape} of {like.path}")
    if bits.size and int(bits.max()) >= 1 << len(labels):
        raise ValueError(f"bits up to {bits.max()}, but there are {len(labels)} labels")
    suffix = known_suffix(path)
    if suffix == ".seg.nrrd":
        raise ImageError(
            f"{path}: overlapping labels are not written as a segmentation of 3D Slicer: give a .nrrd name"
        )
    if suffix in PICTURES and suffix != ".npy":
        fields = {BITS_FIELD: json.dumps(list(labels))}
        write_array(path, bits, Header(like.source, like.affine, colors=_mixed_colors(labels), fields=fields))
        return
    channels = np.empty((*bits.shape, len(labels)), np.uint8, order="F" if like.spatial_dims == 3 else "C")
    for number in range(len(labels)):
        channels[..., number] = (bits >> number) & 1
    write_array(path, channels, Header(like.source, like.affine, classes=True))


def _mixed_colors(labels: Labels) -> dict[int, Rgb]:
    """Sum of bits -> mean colour of its labels."""
    colors = np.array(list(label_colors(labels).values()))
    mixed = {}
    for value in range(1, 1 << len(labels)):
        red, green, blue = colors[[bool(value >> number & 1) for number in range(len(labels))]].mean(0).round()
        mixed[value] = (int(red), int(green), int(blue))
    return mixed
