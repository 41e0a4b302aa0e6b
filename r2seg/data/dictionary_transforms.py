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
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import convert_to_tensor
from torch import Tensor

from r2seg.config import Preprocessing
from r2seg.data.geometry import WorkingGrid, resample, resample_indices
from r2seg.data.images import Image, check_same_grid, read_image, read_label_map
from r2seg.data.intensity import Intensity, measure_intensity
from r2seg.data.preprocessing import as_tensor, outside_to_ignore

Keys = Hashable | Sequence[Hashable]

# Where the meta of an image says what MONAI's own meta cannot: the file's number type, and whether the file has a geometry.
_DTYPE, _GEOMETRY, _INTENSITY = "file_dtype", "has_geometry", "intensity"
_FIELD_OF_VIEW = {"field of view": 255}


class LoadCased(MapTransform):
    """Reads image, label and field of view as ``r2seg-train`` does: any format and mask encoding, label values to class indices.

    The image keeps the number type of its file (uint16 and uint32, which torch hardly supports, become int32 and float32). Class
    indices are 0 for background, 1..K for ``labels`` in their order and 255 for pixels that nothing is known of: those of
    ``ignore_label``, and with ``mask_key`` among the keys those outside the field of view. Axes are in the file's order; rows
    come first in pictures. A case without a field of view gets one that is 1 everywhere.

    Args:
        keys: The image's key, and those of ``label_key`` and ``mask_key`` that are wanted.
        labels: Name -> value or values in the label files, in class order, as in ``data.labels`` of a config.
        ignore_label: Value in the label files of pixels that are neither trained on nor scored.
        label_key: Key of the label map.
        mask_key: Key of the field of view.
        allow_missing_keys: Pass over keys that an item does not have.

    Shape: paths -> MetaTensors: image (C, *S), label (1, *S) uint8, field of view (1, *S) uint8.

    Raises:
        UserError: A file cannot be read, label values are not declared, or two grids differ; the text names the file.
        ValueError: A label is to be read and ``labels`` is not given.
    """

    def __init__(
        self,
        keys: Keys = ("image", "label"),
        labels: Mapping[str, int | Sequence[int]] | None = None,
        *,
        ignore_label: int | None = None,
        label_key: str = "label",
        mask_key: str = "mask",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if label_key in self.keys and not labels:
            raise ValueError(f"LoadCased reads {label_key!r}: give labels, such as {{'lung': 1}}")
        self.labels = dict(labels or {})
        self.ignore_label = ignore_label
        self.label_key, self.mask_key = label_key, mask_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        wanted = list(self.key_iterator(result))
        images = {key: read_image(result[key]) for key in wanted if key not in (self.label_key, self.mask_key)}
        first = next(iter(images.values()), None)
        for key, image in images.items():
            if first is not None:
                check_same_grid(first, image)
            result[key] = _meta_tensor(image)
        field_of_view = None
        if self.mask_key in wanted:
            mask = _single(result[self.mask_key])
            if mask is not None:
                field_of_view = read_label_map(mask, _FIELD_OF_VIEW)
                if first is not None:
                    check_same_grid(first, field_of_view)
                result[self.mask_key] = _meta_tensor(field_of_view)
            elif first is not None:
                everywhere = np.ones((1, *first.shape), np.uint8)
                result[self.mask_key] = _meta_tensor(Image(everywhere, first.affine, first.path))
        if self.label_key in wanted:
            label = read_label_map(_single(result[self.label_key]), self.labels, self.ignore_label)
            if first is not None:
                check_same_grid(first, label)
            indices = label.array if field_of_view is None else outside_to_ignore(label.array, field_of_view.array)
            result[self.label_key] = _meta_tensor(Image(indices, label.affine, label.path))
        return result


def _single(path: Any) -> Any:
    """The one file of a list of one."""
    return path[0] if isinstance(path, list | tuple) and len(path) == 1 else path


def _meta_tensor(image: Image) -> MetaTensor:
    meta = {"filename_or_obj": str(image.path), _DTYPE: str(image.array.dtype), _GEOMETRY: image.affine is not None}
    affine = None if image.affine is None else torch.as_tensor(image.affine, dtype=torch.float64)
    return MetaTensor(as_tensor(image.array), affine=affine, meta=meta)


class ToWorkingGridd(MapTransform, InvertibleTransform):
    """Orders a volume's axes R, A, S and, if a spacing is given, resamples it: the grid on which ``r2seg-train`` draws windows.

    Images are interpolated linearly, with antialiasing where voxels become fewer; class indices take the label with the largest
    interpolated share. Pictures stay as they are. ``monai.transforms.Invertd`` takes predictions back to the grid of the file:
    with ``nearest_interp=True`` (its default) as class indices, with ``nearest_interp=False`` as probabilities.

    Args:
        keys: Keys to bring to the working grid.
        spacing_mm: Voxel size along R, A and S in millimetres; the file's own by default.
        label_keys: Those of the keys that hold class indices.
        allow_missing_keys: Pass over keys that an item does not have.

    Shape: (C, *S of the file) -> (C, *S of the working grid).
    """

    def __init__(
        self,
        keys: Keys = ("image", "label"),
        spacing_mm: Sequence[float] | None = None,
        *,
        label_keys: Iterable[Hashable] = ("label", "mask"),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.spacing_mm = None if spacing_mm is None else tuple(spacing_mm)
        self.label_keys = frozenset(label_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self._forward(result[key], "nearest" if key in self.label_keys else "bilinear")
        return result

    def _forward(self, tensor: Tensor, mode: str) -> MetaTensor:
        source = convert_to_tensor(tensor, track_meta=True)
        affine = source.affine.cpu().double().numpy()
        has_geometry = source.meta.get(_GEOMETRY, True) and source.ndim == 4
        grid = WorkingGrid.of(source.shape[1:], affine if has_geometry else None, self.spacing_mm)
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
    ``NormalizeCased`` after it for the same numbers. The values stay as they are; the map goes into the tensor's meta.

    Args:
        keys: Keys of images.
        kind: A kind of ``preprocessing.intensity``, such as "zscore" or "hu_window".
        options: The kind's other keys, such as ``low=-1000, high=400``.
        allow_missing_keys: Pass over keys that an item does not have.

    Raises:
        pydantic.ValidationError: The kind is unknown or its options do not fit.
    """

    def __init__(
        self, keys: Keys = "image", kind: str = "zscore", *, allow_missing_keys: bool = False, **options: Any
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.preprocessing = Preprocessing.model_validate({"intensity": {"kind": kind, **options}})

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            tensor = convert_to_tensor(result[key], track_meta=True).clone()
            intensity = measure_intensity(self._values(tensor), self.preprocessing)
            tensor.meta[_INTENSITY] = {name: list(numbers) for name, numbers in vars(intensity).items()}
            result[key] = tensor
        return result

    def _values(self, tensor: MetaTensor) -> np.ndarray:
        """The tensor's values in the number type of their file, as far as they still are the file's."""
        values = tensor.detach().cpu().numpy()
        of_file = np.dtype(tensor.meta.get(_DTYPE, values.dtype))
        kept = values.dtype.kind in "ui" or self.preprocessing.intensity.kind == "unit"
        return values.astype(of_file, copy=False) if kept else values


class NormalizeCased(MapTransform):
    """Intensities for the network: a clip and a linear map per channel, of the kinds of ``preprocessing.intensity``.

    Args:
        keys: Keys of images.
        kind: The kind, measured on what the tensor holds now. None applies what ``MeasureIntensityd`` has measured before.
        options: The kind's other keys, such as ``low=-1000, high=400``.
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
            measured = tensor.meta.get(_INTENSITY) if isinstance(tensor, MetaTensor) else None
            if measured is None:
                raise ValueError(
                    f"{key!r} has no measured intensity: give NormalizeCased a kind, or put MeasureIntensityd before it"
                )
            intensity = Intensity(**{name: tuple(numbers) for name, numbers in measured.items()})
            meta = {name: value for name, value in tensor.meta.items() if name != _INTENSITY}  # it is applied once
            result[key] = MetaTensor(
                intensity(tensor.as_tensor()), meta=meta, applied_operations=tensor.applied_operations
            )
        return result
