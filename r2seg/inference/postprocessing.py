"""What is done to a label map after the network: components and holes. Each step is a pure function of class indices.

A new step is a function here, its row in ``POSTPROCESSING``, and its section in config/schema/.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from r2seg.errors import entry_of

if TYPE_CHECKING:
    from r2seg.config import PostprocessingStep


def keep_largest_components(indices: np.ndarray, index: int, count: int = 1) -> np.ndarray:
    """Class indices with only the ``count`` largest components of one class; its others become background.

    Components are connected by faces, edges or corners. Among components of equal size the first in memory order stays.
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


# Step -> function of class indices and a class, whose keywords are the options of the step's section in config/schema/
POSTPROCESSING: dict[str, Callable[..., np.ndarray]] = {
    "largest_components": keep_largest_components,
    "fill_holes": fill_holes,
}


def postprocess(
    indices: np.ndarray,
    steps: Sequence[PostprocessingStep],
    labels: Mapping[str, object],
    *,
    overlapping: bool = False,
) -> np.ndarray:
    """The config's ``postprocessing`` steps, one after another.

    Args:
        indices: Class indices (*S): 0 background, 1..K the labels in order.
        steps: Each names a step of ``POSTPROCESSING``, a label, and options.
        labels: The declared labels, in class order.
        overlapping: Whether the indices hold bits of overlapping labels (`label_mask`); each label is then treated by itself.

    Raises:
        UserError: A step is unknown.
    """
    index_of = {name: index for index, name in enumerate(labels, start=1)}
    for step in steps:
        apply = entry_of(POSTPROCESSING, step.step, "postprocessing.step")
        options = step.model_dump(exclude={"step", "label"})
        if overlapping:
            bit = np.uint8(1 << (index_of[step.label] - 1))
            mask = apply(((indices & bit) != 0).astype(np.uint8), 1, **options)
            indices = np.where(mask > 0, indices | bit, indices & ~bit)
        else:
            indices = apply(indices, index_of[step.label], **options)
    return indices
