"""The deterministic part of training's data as MONAI transforms: read a case, resample it to the working grid, measure it.

Thin wrappers: the work is in images/, geometry.py and intensity.py, which inference uses too. A sample is a dictionary; each
transform adds to it. ``case_transforms`` is their composition, whose result ``cache.py`` keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from monai.transforms import Compose, Transform

from r2seg.data.cases import Case
from r2seg.data.geometry import WorkingGrid, resample, resample_indices
from r2seg.data.images import Image, read_image, read_label_map, read_labels
from r2seg.data.intensity import measure_intensity
from r2seg.data.preprocessing import outside_to_ignore

if TYPE_CHECKING:
    from r2seg.config import Data, Preprocessing


class ReadCase(Transform):
    """Case -> its image, its label map as class indices, pixels outside the field of view ignored, on the file's grid.

    ``cut`` lists the masks that were smeared and cut.
    """

    def __init__(self, data: Data) -> None:
        self.data = data

    def __call__(self, case: Case) -> dict[str, Any]:
        image = read_image(case.images)
        label = read_labels(
            case.labels, self.data.labels, self.data.ignore_label, overlapping=self.data.overlapping, like=image
        )
        indices, read = label.array[0], [label]
        if case.mask is not None:
            mask = read_label_map(case.mask, {"field of view": 255}, like=image)
            indices = outside_to_ignore(indices, mask.array[0])
            read.append(mask)
        return {"case": case, "image": image, "indices": indices, "cut": [each.path for each in read if each.cut]}


class ToWorkingGrid(Transform):
    """Adds ``voxels`` (C, *S) and ``label`` (*S) on the working grid, ``reference`` (*S) on the oriented one, and ``grid``."""

    def __init__(self, preprocessing: Preprocessing, *, overlapping: bool = False) -> None:
        self.preprocessing = preprocessing
        self.overlapping = overlapping

    def __call__(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        image: Image = sample["image"]
        spacing_mm = self.preprocessing.spacing_mm if image.spatial_dims == 3 else None
        grid = WorkingGrid.of(image.shape, image.affine, spacing_mm)
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
        return {**sample, "intensity": measure_intensity(sample["image"].array, self.preprocessing)}


def case_transforms(data: Data, preprocessing: Preprocessing) -> Compose:
    """Case -> everything training and validation need of it, deterministically."""
    return Compose(
        [ReadCase(data), ToWorkingGrid(preprocessing, overlapping=data.overlapping), MeasureIntensity(preprocessing)]
    )
