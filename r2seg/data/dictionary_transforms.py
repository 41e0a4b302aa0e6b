"""The deterministic chain as MONAI dictionary transforms, for training with MONAI's own data sets, transforms and engines.

They give what ``r2seg-train`` sees: the work is done by images/, geometry.py and intensity.py, which training and inference use.
Random transforms are MONAI's own; data sets are in datasets.py.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms import Compose, InvertibleTransform, MapTransform
from monai.utils import convert_to_tensor
from torch import Tensor

from r2seg.config import Config, Preprocessing
from r2seg.data.cases import as_written
from r2seg.data.geometry import WorkingGrid, resample, resample_indices
from r2seg.data.intensity import Intensity, measure_intensity
from r2seg.data.load_cased import DTYPE, INTENSITY, WHOLE, Keys, LoadCased, image_of
from r2seg.data.preprocessing import (
    adjust_image,
    as_tensor,
    fill_outside,
    needs_field_of_view,
    working_grid,
)


class AdjustPictured(MapTransform):
    """Changes pictures as a whole, before anything else is done: ``color``, then ``clahe``, then ``gamma``.

    Args:
        keys: Keys of images that ``LoadCased`` has read.
        options: ``color``, ``clahe`` and ``gamma`` as in the config's ``preprocessing``: ``color="green", clahe={"clip": 2.0}``.
        allow_missing_keys: Pass over keys that an item does not have.

    Shape: (C, H, W) -> (C, H, W) in the picture's own type, with one channel after grey or green.

    Raises:
        UserError: An image is a volume, or its colours are needed and it has none.
        pydantic.ValidationError: An option is unknown or does not fit.
    """

    def __init__(self, keys: Keys = "image", *, allow_missing_keys: bool = False, **options: Any) -> None:
        super().__init__(keys, allow_missing_keys)
        if unknown := options.keys() - {"color", "clahe", "gamma"}:
            raise ValueError(f"AdjustPictured has no {sorted(unknown)[0]!r}: give color, clahe or gamma")
        self.preprocessing = Preprocessing.model_validate(as_written(options))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            tensor = convert_to_tensor(result[key], track_meta=True)
            array = adjust_image(image_of(tensor), self.preprocessing).image.array
            result[key] = MetaTensor(
                as_tensor(array), meta=dict(tensor.meta), applied_operations=tensor.applied_operations
            )
        return result


class ToWorkingGridd(MapTransform, InvertibleTransform):
    """Orders a volume's axes R, A, S and, if a spacing is given, resamples it: the grid on which ``r2seg-train`` draws windows.

    Images are interpolated linearly, with antialiasing where voxels become fewer; class indices take the label with the largest
    interpolated share. Pictures keep their size unless ``resize`` is given. ``monai.transforms.Invertd`` takes predictions back to the grid of the file:
    with ``nearest_interp=True`` (its default) as class indices, with ``nearest_interp=False`` as probabilities.

    Args:
        keys: Keys to bring to the working grid.
        spacing_mm: Voxel size of volumes along R, A and S in millimetres; the file's own by default.
        resize: Size of pictures, as in the config's ``preprocessing``: ``{"size": [224, 224]}`` or ``{"longest_side": 512}``.
        label_keys: Those of the keys that hold class indices.
        allow_missing_keys: Pass over keys that an item does not have.

    Shape: (C, *S of the file) -> (C, *S of the working grid).
    """

    def __init__(
        self,
        keys: Keys = ("image", "label"),
        spacing_mm: Sequence[float] | None = None,
        *,
        resize: Mapping[str, Any] | None = None,
        label_keys: Iterable[Hashable] = ("label", "mask"),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.preprocessing = Preprocessing.model_validate(as_written({"spacing_mm": spacing_mm, "resize": resize}))
        self.label_keys = frozenset(label_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self._forward(result[key], "nearest" if key in self.label_keys else "bilinear")
        return result

    def _forward(self, tensor: Tensor, mode: str) -> MetaTensor:
        source = convert_to_tensor(tensor, track_meta=True)
        affine = source.affine.cpu().double().numpy()
        grid = working_grid(image_of(source), self.preprocessing)
        moved = grid.orient(source.detach().cpu().numpy())
        values = _resampled(moved, grid, mode)
        result = MetaTensor(as_tensor(values), meta=dict(source.meta), applied_operations=source.applied_operations)
        info = {
            "mode": mode,
            "order": list(grid.order),
            "flips": list(grid.flips),
            "oriented_shape": list(grid.oriented_shape),
            "shape": list(grid.shape),
            "affine": affine.tolist(),
        }
        index = torch.as_tensor(working_to_file(grid))
        return self.push_transform(result, orig_size=tuple(source.shape[1:]), extra_info=info, affine=index)

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The tensors on the grids of their files."""
        result = dict(data)
        for key in self.key_iterator(result):
            tensor: MetaTensor = result[key]
            info = self.pop_transform(tensor)["extra_info"]
            names = ("order", "flips", "oriented_shape", "shape")
            grid = WorkingGrid(**{name: tuple(info[name]) for name in names})
            back = WorkingGrid(
                tuple(range(len(grid.order))), (False,) * len(grid.order), grid.shape, grid.oriented_shape
            )
            values = _resampled(tensor.detach().cpu().numpy(), back, info["mode"])
            restored = MetaTensor(
                as_tensor(grid.restore_orientation(values)).to(tensor.device),
                affine=torch.as_tensor(info["affine"], dtype=torch.float64),
                meta={name: value for name, value in tensor.meta.items() if name != "affine"},
                applied_operations=tensor.applied_operations,
            )
            result[key] = restored
        return result


def _resampled(values: np.ndarray, grid: WorkingGrid, mode: str) -> np.ndarray:
    """An oriented array (C, *S) on the other grid, each channel as class indices if the mode is "nearest"."""
    if not grid.resampled:
        return values
    if mode != "nearest":
        return resample(values, grid)
    indices = [resample_indices(channel.astype(np.uint8), grid) for channel in values]
    return np.stack(indices).astype(values.dtype)


def working_to_file(grid: WorkingGrid) -> np.ndarray:
    """(4, 4): voxel index on the working grid -> voxel index in the file; axes that a picture does not have stay as they are."""
    matrix = np.eye(4)
    for working, axis in enumerate(grid.order):
        old, new = grid.oriented_shape[working], grid.shape[working]
        scale, shift = old / new, (old / new - 1) / 2  # voxel centres lie at (i + 1/2) / n of one extent
        matrix[axis, :] = 0
        matrix[axis, working] = -scale if grid.flips[working] else scale
        matrix[axis, 3] = old - 1 - shift if grid.flips[working] else shift
    return matrix


class MeasureIntensityd(MapTransform):
    """Measures the intensity map of each image on all its values, for ``NormalizeCased`` to apply later.

    ``r2seg-train`` measures the file's values and applies the map after resampling: put this before ``ToWorkingGridd`` and
    ``NormalizeCased`` after it for the same numbers. The values stay as they are, but with ``region="field_of_view"`` what lies
    outside of it becomes the mean inside, as in a training. The map goes into the tensor's meta.

    Args:
        keys: Keys of images.
        kind: A kind of ``preprocessing.intensity``, such as "zscore" or "hu_window".
        mask_key: Key of the field of view, which ``LoadCased`` has read, for ``region="field_of_view"``.
        options: The kind's other keys, such as ``low=-1000, high=400`` or ``region="nonzero"``.
        allow_missing_keys: Pass over keys that an item does not have.

    Raises:
        pydantic.ValidationError: The kind is unknown or its options do not fit.
        ValueError: The field of view is needed and the item has none.
    """

    def __init__(
        self,
        keys: Keys = "image",
        kind: str = "zscore",
        *,
        mask_key: str = "mask",
        allow_missing_keys: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mask_key = mask_key
        self.preprocessing = Preprocessing.model_validate({"intensity": {"kind": kind, **options}})

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            tensor = convert_to_tensor(result[key], track_meta=True)
            array = self._values(tensor)
            field_of_view = None
            if needs_field_of_view(self.preprocessing):
                field_of_view = self._field_of_view(result, array)
                array = fill_outside(array, field_of_view)
            intensity = measure_intensity(array, self.preprocessing, field_of_view)
            measured = {name: list(numbers) for name, numbers in vars(intensity).items()}
            meta = {**tensor.meta, INTENSITY: measured}
            values = as_tensor(array) if field_of_view is not None else tensor.as_tensor()
            result[key] = MetaTensor(values, meta=meta, applied_operations=tensor.applied_operations)
        return result

    def _field_of_view(self, data: Mapping[Hashable, Any], array: np.ndarray) -> np.ndarray:
        mask = data.get(self.mask_key)
        if mask is None or (isinstance(mask, MetaTensor) and mask.meta.get(WHOLE, False)):
            raise ValueError(
                f"region is field_of_view, and the item has no field of view {self.mask_key!r}: load it with "
                f'LoadCased(("image", "label", "{self.mask_key}")), of pictures without a mask with field_of_view="find"'
            )
        inside = np.asarray(mask)[0]
        if inside.shape != array.shape[1:]:
            raise ValueError(f"the field of view {inside.shape} has another grid than the image {array.shape[1:]}")
        return inside

    def _values(self, tensor: MetaTensor) -> np.ndarray:
        """The tensor's values; for "unit", whose map follows from the number type, in that of the file."""
        array = image_of(tensor).array
        if self.preprocessing.intensity.kind == "unit":
            return array.astype(np.dtype(tensor.meta.get(DTYPE, array.dtype)), copy=False)
        return array


class NormalizeCased(MapTransform):
    """Intensities for the network: a clip and a linear map per channel, of the kinds of ``preprocessing.intensity``.

    Args:
        keys: Keys of images.
        kind: The kind, measured on what the tensor holds now. None applies what ``MeasureIntensityd`` has measured before.
        options: Of ``MeasureIntensityd``, such as ``low=-1000, high=400``.
        allow_missing_keys: Pass over keys that an item does not have.

    Shape: (C, *S) -> (C, *S) float32.

    Raises:
        pydantic.ValidationError: The kind is unknown or its options do not fit.
        ValueError: No kind is given and nothing was measured, or options without a kind.
    """

    def __init__(
        self, keys: Keys = "image", kind: str | None = None, *, allow_missing_keys: bool = False, **options: Any
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if kind is None and options:
            raise ValueError(f"NormalizeCased has {', '.join(options)} and no kind: give kind, such as 'percentile'")
        self.measure = None
        if kind is not None:
            self.measure = MeasureIntensityd(keys, kind, allow_missing_keys=allow_missing_keys, **options)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data if self.measure is None else self.measure(data))
        for key in self.key_iterator(result):
            tensor = result[key]
            measured = tensor.meta.get(INTENSITY) if isinstance(tensor, MetaTensor) else None
            if measured is None:
                raise ValueError(
                    f"{key!r} has no measured intensity: give NormalizeCased a kind, or put MeasureIntensityd before it"
                )
            intensity = Intensity(**{name: tuple(numbers) for name, numbers in measured.items()})
            meta = {name: value for name, value in tensor.meta.items() if name != INTENSITY}  # it is applied once
            result[key] = MetaTensor(
                intensity(tensor.as_tensor()), meta=meta, applied_operations=tensor.applied_operations
            )
        return result


def config_transforms(config: Config, keys: Sequence[str] = ("image", "label", "mask")) -> Compose:
    """The transforms that ``r2seg-train`` means by a config, with the same numbers, for items as ``list_cases`` gives them.

    Args:
        config: Its sections ``data`` (labels) and ``preprocessing`` decide.
        keys: Those of "image", "label" and "mask" that are wanted.
    """
    data, preprocessing = config.data, config.preprocessing
    kind = preprocessing.intensity.model_dump()
    changes = {name: getattr(preprocessing, name) for name in ("color", "clahe", "gamma")}
    defaults = Preprocessing()
    given = {name: value for name, value in changes.items() if value != getattr(defaults, name)}
    resize = preprocessing.resize.model_dump() if preprocessing.resize else None
    return Compose(
        [
            LoadCased(
                keys,
                data.labels,
                ignore_label=data.ignore_label,
                overlapping=data.overlapping,
                series=data.series,
                field_of_view=preprocessing.field_of_view,
                allow_missing_keys=True,
            ),
            *([AdjustPictured("image", **given)] if given else []),
            MeasureIntensityd("image", **kind),
            ToWorkingGridd(keys, preprocessing.spacing_mm, resize=resize, allow_missing_keys=True),
            NormalizeCased("image"),
        ]
    )
