"""What is done to a label map after the network: components and holes. Each step is a pure function of class indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from r2seg.config import PostprocessingStep


def keep_largest_components(indices: np.ndarray, index: int, count: int = 1) -> np.ndarray:
    """Class indices with only the ``count`` largest components of one class; the others become background.

    Components touch by faces, edges or corners. Of equal ones the first in memory order stays.
    """
    components, found = ndimage.label(indices == index, structure=np.ones((3,) * indices.ndim))
    if found <= count:
        return indices
    sizes = np.bincount(components.reshape(-1))[1:]
    kept = np.argsort(-sizes, kind="stable")[:count] + 1
    return np.where((components > 0) & ~np.isin(components, kept), 0, indices).astype(indices.dtype)


def fill_holes(indices: np.ndarray, index: int) -> np.ndarray:
    """Class indices with background that one class encloses (in all axes at once) turned into that class."""
    filled = ndimage.binary_fill_holes(indices == index)
    return np.where(filled & (indices == 0), index, indices).astype(indices.dtype)


def postprocess(indices: np.ndarray, steps: Sequence[PostprocessingStep], labels: Mapping[str, object]) -> np.ndarray:
    """The config's ``postprocessing`` steps, one after another, on class indices (*S)."""
    index_of = {name: index for index, name in enumerate(labels, start=1)}
    for step in steps:
        index = index_of[step.label]
        if step.step == "largest_components":
            indices = keep_largest_components(indices, index, step.count)
        else:
            indices = fill_holes(indices, index)
    return indices
