"""The deterministic chain from a file's voxels to what a network sees; it serves training, validation and inference alike.

Pictures are changed as a whole first (contrast.py), and what lies outside the field of view is filled (field_of_view.py finds it).
Then two steps: ``WorkingGrid`` (geometry.py) orders a volume's axes R, A, S and, if a spacing is set, resamples them; pictures take
the size that is set. ``Intensity`` (intensity.py) is measured on the whole case. Both work on any part of an image, so that no float
copy of a large volume is ever held.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from r2seg.data.contrast import change_contrast
from r2seg.data.field_of_view import find_field_of_view
from r2seg.data.geometry import WorkingGrid, resample
from r2seg.data.images import IGNORE, Image
from r2seg.data.intensity import Intensity, measure_intensity
from r2seg.errors import UserError

if TYPE_CHECKING:
    from r2seg.config import Preprocessing


logger = logging.getLogger(__name__)


class PreparedImage:
    """A case as the network sees it, computed only when it is sliced.

    Slicing gives float32 tensors of the working grid; nothing is computed before. It can be used wherever a tensor (C, *S) is
    only sliced, as in ``WindowInferer.stream``; slices have step 1.

    Args:
        oriented: Voxels (C, *S) in working order: a file's, or a cache's.
        grid: Where the working grid lies; for a cache, already resampled, ``WorkingGrid.of`` its own shape.
        intensity: The case's intensity map.
    """

    def __init__(self, oriented: np.ndarray, grid: WorkingGrid, intensity: Intensity) -> None:
        self.oriented = oriented
        self.grid = grid
        self.intensity = intensity
        self.shape = torch.Size((len(oriented), *grid.shape))

    @property
    def ndim(self) -> int:
        """Number of axes, the channels' included."""
        return len(self.shape)

    def __getitem__(self, parts: slice | tuple[slice, ...]) -> Tensor:
        parts = parts if isinstance(parts, tuple) else (parts,)
        if len(parts) > self.ndim or not all(isinstance(part, slice) and part.step in (None, 1) for part in parts):
            raise IndexError(
                f"a prepared image of shape {tuple(self.shape)} is cut by slices of step 1, not by {parts}"
            )
        parts = (*parts, *(slice(None),) * (self.ndim - len(parts)))
        bounds = [part.indices(size)[:2] for part, size in zip(parts, self.shape, strict=True)]
        channels, *box = [(start, max(start, stop)) for start, stop in bounds]
        values = resample(self.oriented[slice(*channels)], self.grid, box)
        intensity = self.intensity.of_channels(slice(*channels))
        return intensity(as_tensor(values))


def as_tensor(array: np.ndarray) -> Tensor:
    """The array in a type that torch computes with, in native byte order and contiguous."""
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.float32 if array.dtype.itemsize > 2 else np.int32)
    array = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False))
    # numpy calls a flipped axis of length 1 contiguous, torch does not.
    return torch.from_numpy(array.copy() if any(stride < 0 for stride in array.strides) else array)


class SliceStack:
    """A prepared volume whose slices come with their neighbours as further channels: 2.5-D, computed only when it is sliced.

    The channels are those of the farthest slice before, ..., of the slice itself, ..., of the farthest slice behind; beyond an end of the
    volume its outermost slice is repeated.

    Args:
        image: (C, *S).
        axis: Spatial axis along which the neighbours lie.
        neighbours: Slices on each side.

    Shape: (C * (2 * neighbours + 1), *S).
    """

    def __init__(self, image: PreparedImage, axis: int, neighbours: int) -> None:
        self.image, self.axis, self.neighbours = image, axis, neighbours
        self.shape = torch.Size((image.shape[0] * (2 * neighbours + 1), *image.shape[1:]))

    def __getitem__(self, parts: tuple[slice, ...]) -> Tensor:
        parts = (*parts, *(slice(None),) * (len(self.shape) - len(parts)))
        if parts[0] != slice(None):
            raise IndexError(f"a stack of slices is cut along its spatial axes, not to the channels {parts[0]}")
        length = self.shape[1 + self.axis]
        start, stop, _ = parts[1 + self.axis].indices(length)
        first = max(0, start - self.neighbours)
        wider = list(parts)
        wider[1 + self.axis] = slice(first, min(length, stop + self.neighbours))
        held = self.image[tuple(wider)]
        shown = neighbouring(range(start, stop), self.neighbours, length) - first
        return torch.cat([held.index_select(1 + self.axis, torch.from_numpy(each)) for each in shown])


def neighbouring(slices: Sequence[int], neighbours: int, length: int) -> np.ndarray:
    """Indices of the slices that are shown with some slices as 2.5-D channels, in the channels' order.

    Shape: (2 * neighbours + 1, len(slices)).
    """
    offsets = np.arange(-neighbours, neighbours + 1)[:, None]
    return (np.asarray(slices)[None] + offsets).clip(0, length - 1)


class Adjusted(NamedTuple):
    """An image before its grid and intensity map, and its field of view (*S), None for all of it."""

    image: Image
    field_of_view: np.ndarray | None


def adjust_image(image: Image, preprocessing: Preprocessing, mask: np.ndarray | None = None) -> Adjusted:
    """The image with the contrast of the config, and its field of view: the first step of the chain, on the file's grid.

    Args:
        image: As its file holds it.
        preprocessing: The settings.
        mask: Field of view (*S) if the case has one, non-zero inside.

    Raises:
        UserError: A setting is for pictures and this is a volume, or the field of view is needed and there is none.
    """
    if image.spatial_dims == 3:
        defaults = type(preprocessing)()
        given = [name for name in _OF_PICTURES if getattr(preprocessing, name) != getattr(defaults, name)]
        if given:
            raise UserError(
                f"{image.path}: is a volume, and preprocessing.{given[0]} is for pictures: leave it out of the config"
            )
    if mask is None and preprocessing.field_of_view == "find":
        mask = find_field_of_view(image.array)
        share = "it is the whole picture, which has no dark border" if mask is None else f"{mask.mean():.0%} of it"
        logger.info("%s: field of view found in the picture: %s", image.path, share)
        if mask is None:
            mask = np.ones(image.shape, dtype=bool)
    array = change_contrast(image, preprocessing) if image.spatial_dims == 2 else image.array
    if needs_field_of_view(preprocessing):
        if mask is None:
            remedy = "or set preprocessing.field_of_view: find" if image.spatial_dims == 2 else "or set region: nonzero"
            raise UserError(
                f"{image.path}: has no mask, and preprocessing.intensity.region is field_of_view: give masks, {remedy}"
            )
        array = _fill_outside(array, mask)
    return Adjusted(replace(image, array=array), mask)


# Keys of ``preprocessing`` that say nothing of volumes.
_OF_PICTURES = ("color", "clahe", "gamma", "field_of_view", "resize")


def needs_field_of_view(preprocessing: Preprocessing) -> bool:
    """Whether the intensities of a case cannot be mapped without its field of view."""
    return getattr(preprocessing.intensity, "region", None) == "field_of_view"


def _fill_outside(array: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The array (C, *S) with the mean inside the field of view outside of it, in its own type: no edge along the rim."""
    inside = mask > 0
    if not inside.any():
        return array
    means = [channel.mean(where=inside, dtype=np.float64) for channel in array]
    return np.stack(
        [
            np.where(inside, channel, np.asarray(round(mean) if array.dtype.kind in "ui" else mean, array.dtype))
            for channel, mean in zip(array, means, strict=True)
        ]
    )


def working_grid(image: Image, preprocessing: Preprocessing) -> WorkingGrid:
    """The working grid of an image."""
    if image.spatial_dims == 3:
        return WorkingGrid.of(image.shape, image.affine, preprocessing.spacing_mm)
    resize = preprocessing.resize
    return WorkingGrid.of(image.shape, image.affine, picture_shape=resize.shape_of(image.shape) if resize else None)


def prepare_image(image: Image, preprocessing: Preprocessing, mask: np.ndarray | None = None) -> PreparedImage:
    """The image of a case as the network sees it: the one chain of training and inference.

    Args:
        image: As its file holds it.
        preprocessing: The settings.
        mask: Field of view (*S) if the case has one, non-zero inside.

    Raises:
        UserError: As ``adjust_image``.
    """
    if not needs_field_of_view(preprocessing):  # only labels would need it
        preprocessing = preprocessing.model_copy(update={"field_of_view": "given"})
    adjusted = adjust_image(image, preprocessing, mask)
    grid = working_grid(image, preprocessing)
    intensity = measure_intensity(adjusted.image.array, preprocessing, adjusted.field_of_view)
    return PreparedImage(grid.orient(adjusted.image.array), grid, intensity)


def outside_to_ignore(indices: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Class indices with every pixel outside the field of view set to ``IGNORE``."""
    return indices if mask is None else np.where(mask > 0, indices, np.uint8(IGNORE))
