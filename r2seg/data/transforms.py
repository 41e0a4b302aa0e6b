"""The deterministic part of training's data as MONAI transforms: read a case, adjust it, resample it to the working grid, measure it.

Thin wrappers: the work is in images/, preprocessing.py, geometry.py and intensity.py, which inference uses too. A sample is a dictionary; each
transform adds to it. ``case_transforms`` is their composition, whose result ``cache.py`` keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from monai.transforms import Compose, Transform

from r2seg.data.cases import Case
from r2seg.data.field_of_view import read_field_of_view
from r2seg.data.geometry import resample, resample_indices
from r2seg.data.images import Image, read_image, read_labels
from r2seg.data.intensity import measure_intensity
from r2seg.data.preprocessing import adjust_image, outside_to_ignore, working_grid

if TYPE_CHECKING:
    from r2seg.config import Data, Preprocessing


class ReadCase(Transform):
    """Case -> its ``image``, its label map as class ``indices``, and its ``mask`` (or None), on the file's grid.

    ``cut`` lists the masks that were smeared and cut.
    """

    def __init__(self, data: Data) -> None:
        self.data = data

    def __call__(self, case: Case) -> dict[str, Any]:
        image = read_image(case.images, series=self.data.series)
        label = read_labels(
            case.labels, self.data.labels, self.data.ignore_label, overlapping=self.data.overlapping, like=image
        )
        mask = None if case.mask is None else read_field_of_view(case.mask, image)
        cut = [each.path for each in (label, mask) if each is not None and each.cut]
        return {
            "case": case,
            "image": image,
            "indices": label.array[0],
            "mask": None if mask is None else mask.array[0] > 0,
            "cut": cut,
        }


class AdjustImage(Transform):
    """The image with the config's contrast, its ``mask`` given or found, and pixels outside of it ignored in ``indices``."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing

    def __call__(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        image, mask = adjust_image(sample["image"], self.preprocessing, sample["mask"])
        return {**sample, "image": image, "mask": mask, "indices": outside_to_ignore(sample["indices"], mask)}


class ToWorkingGrid(Transform):
    """Adds ``voxels`` (C, *S) and ``label`` (*S) on the working grid, ``reference`` (*S) on the oriented one, and ``grid``."""

    def __init__(self, preprocessing: Preprocessing, *, overlapping: bool = False) -> None:
        self.preprocessing = preprocessing
        self.overlapping = overlapping

    def __call__(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        image: Image = sample["image"]
        grid = working_grid(image, self.preprocessing)
        oriented = grid.orient(image.array)
        reference = grid.orient(sample["indices"])
        return {
            **sample,
            "grid": grid,
            "voxels": resample(oriented, grid),
            "reference": reference,
            "label": resample_indices(reference, grid, overlapping=self.overlapping),
        }


class MeasureIntensity(Transform):
    """Adds ``intensity``, the case's intensity map; it is applied to windows when they are drawn."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing

    def __call__(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        return {**sample, "intensity": measure_intensity(sample["image"].array, self.preprocessing, sample["mask"])}


def case_transforms(data: Data, preprocessing: Preprocessing) -> Compose:
    """Case -> everything training and validation need of it, deterministically."""
    return Compose(
        [
            ReadCase(data),
            AdjustImage(preprocessing),
            ToWorkingGrid(preprocessing, overlapping=data.overlapping),
            MeasureIntensity(preprocessing),
        ]
    )
