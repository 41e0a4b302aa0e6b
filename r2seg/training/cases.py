"""The cases of a training: preprocessed, and checked to go together and to hold the labels.

How files are found, split and preprocessed is in ``r2seg.data``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from r2seg.config import Config
from r2seg.data.augmentation import refuse_missing_directions
from r2seg.data.cache import CachedCase, cache_cases
from r2seg.data.cases import Case
from r2seg.data.geometry import PLANES
from r2seg.data.images import CUT, IGNORE
from r2seg.data_check.rules import Traits, refusals
from r2seg.errors import UserError, counted, some

NOT_VALIDATED = (
    "there are no validation cases: the weights of the last epoch are taken, no thresholds are chosen, and nothing says when the "
    "network has learned enough"
)


def cache_parts(
    parts: Mapping[str, Sequence[Case]], config: Config, folder: Path, on_case: Callable[[Case], None] | None = None
) -> dict[str, list[CachedCase]]:
    """The cases of each part, preprocessed into a folder or read from there.

    Raises:
        UserError: With every case that cannot be used; those that can are kept in the folder.
    """
    cached = cache_cases([case for members in parts.values() for case in members], config, folder, on_case)
    by_id = {case.id: case for case in cached}
    return {part: [by_id[case.id] for case in members] for part, members in parts.items()}


@dataclass(frozen=True)
class TrainingCases:
    """Preprocessed cases that a network can be trained and validated on.

    Attributes:
        parts: "train", "validation", "test" -> cases.
        in_channels: Channels of every case.
        image_dims: 2 where all cases are pictures, 3 where all are volumes.
        warnings: What a person should know about the cases, one line each.
    """

    parts: Mapping[str, Sequence[CachedCase]]
    in_channels: int
    image_dims: int
    warnings: Sequence[str] = ()

    @classmethod
    def of(
        cls, parts: Mapping[str, Sequence[CachedCase]], config: Config, warnings: Sequence[str] = ()
    ) -> TrainingCases:
        """The cases of each part, checked.

        Raises:
            UserError: They do not go together, or lack labels of the config.
        """
        first = next(case for members in parts.values() for case in members)
        cases = cls(parts, in_channels=len(first.voxels), image_dims=first.label.ndim)
        cases._check(config)
        unvalidated = [] if parts["validation"] else [NOT_VALIDATED]
        told = [*warnings, *unvalidated, *cut_warnings(cases), *window_warnings(parts["train"], config)]
        return replace(cases, warnings=told)

    @property
    def ids(self) -> dict[str, list[str]]:
        """Ids of the cases of each part."""
        return {part: [case.id for case in members] for part, members in self.parts.items()}

    def check_flips(self, config: Config) -> None:
        """Checks that the windows have every direction of ``augmentation.flip``.

        Raises:
            UserError: They do not.
        """
        refuse_missing_directions(config.augmentation.flip, config.window, pictures=self.image_dims == 2)

    def _check(self, config: Config) -> None:
        traits = {
            part: [Traits(case.id, case.label.ndim, len(case.voxels), frozenset(case.foreground)) for case in members]
            for part, members in self.parts.items()
        }
        if problems := refusals(traits, config):
            raise UserError("\n".join(problems))


def cut_warnings(cases: TrainingCases) -> list[str]:
    """A line about the masks that were smeared, by JPEG or resizing, and cut; none if there are none."""
    cut = [path.name for members in cases.parts.values() for case in members for path in case.cut]
    if not cut:
        return []
    masks = f"{counted(len(cut), 'mask')} {'is' if len(cut) == 1 else 'are'}"
    return [
        f"{masks} smeared, as by JPEG, and {'was' if len(cut) == 1 else 'were'} cut (0/255 at {CUT}, colours to the nearest): "
        f"{some(cut)}"
    ]


# A window this many times smaller than the images along an axis sees little of what surrounds a structure; one this many times
# larger is mostly padding.
_FAR_SMALLER, _FAR_LARGER = 8, 1.5
# Of vessels and other narrow structures a small window sees enough: many times their width.
_WIDTHS_SEEN = 4


def window_warnings(cases: Sequence[CachedCase], config: Config) -> list[str]:
    """Warnings about a window that is far smaller or far larger than the images, for the axes where it is."""
    plane = PLANES[config.window.plane_in_volumes]
    shapes = np.array([case.label.shape for case in cases])
    if shapes.shape[1] > config.spatial_dims:
        shapes = np.delete(shapes, plane, axis=1)
    size, typical = np.array(config.window.size), np.median(shapes, axis=0)
    about = (
        f"window.size is {list(config.window.size)} and the training images are typically {[int(n) for n in typical]}"
    )
    if (size > _FAR_LARGER * typical).any():
        return [f"{about}: most of a window is padding; give a smaller window"]
    if (size * _FAR_SMALLER < typical).any() and size.min() < _WIDTHS_SEEN * _mean_width(cases[len(cases) // 2].label):
        return [
            f"{about}: a window shows a small part of them; give a larger window, or a coarser preprocessing.spacing_mm"
        ]
    return []


def _mean_width(label: np.ndarray) -> float:
    """The mean width of what is labelled, in voxels; of a band, twice its area over its border's length. 0 if nothing is.

    Shape: (*S) class indices.
    """
    from scipy.ndimage import binary_erosion

    labelled = (label > 0) & (label != IGNORE)
    border = int(labelled.sum() - binary_erosion(labelled, border_value=1).sum())
    return 2 * int(labelled.sum()) / border if border else 0.0
