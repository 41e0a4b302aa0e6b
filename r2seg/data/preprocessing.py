"""The deterministic chain from a file's voxels to what a network sees; it serves training, validation and inference alike.

Two steps: ``WorkingGrid`` (geometry.py) orders a volume's axes R, A, S and, if a spacing is set, resamples them; pictures keep
their grid. ``Intensity`` (intensity.py) is measured on the whole case. Both work on any part of an image, so that no float copy of
a large volume is ever held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from r2seg.data.geometry import WorkingGrid, resample
from r2seg.data.images import IGNORE, Image
from r2seg.data.intensity import Intensity, measure_intensity

if TYPE_CHECKING:
    from r2seg.config import Preprocessing


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


def prepare_image(image: Image, preprocessing: Preprocessing) -> PreparedImage:
    """The image of a case as the network sees it: the one chain of training and inference."""
    grid = WorkingGrid.of(image.shape, image.affine, preprocessing.spacing_mm if image.spatial_dims == 3 else None)
    return PreparedImage(grid.orient(image.array), grid, measure_intensity(image.array, preprocessing))


def outside_to_ignore(indices: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Class indices with every pixel outside the field of view set to ``IGNORE``."""
    return indices if mask is None else np.where(mask > 0, indices, np.uint8(IGNORE))
