"""Cases read as dictionaries of MetaTensors for MONAI: ``LoadCased``, and what a tensor remembers of its file.

The transforms that follow are in dictionary_transforms.py.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor

from r2seg.config import Data, Preprocessing
from r2seg.data.cases import as_written, case_of
from r2seg.data.images import Image
from r2seg.data.preprocessing import adjust_image, as_tensor, outside_to_ignore
from r2seg.data.transforms import ReadCase, read_unlabelled
from r2seg.metrics import IGNORE, label_mask

Keys = Hashable | Sequence[Hashable]

# Where the meta of an image says what MONAI's own meta cannot: the file's number type, and whether the file has a geometry.
DTYPE, GEOMETRY, INTENSITY = "file_dtype", "has_geometry", "intensity"
WHOLE = "whole_image"  # of a field of view: the case has none


class LoadCased(MapTransform):
    """Reads image, label and field of view as ``r2seg-train`` does: any format and mask encoding, label values to class indices.

    The image keeps the number type of its file (uint16 and uint32, which torch hardly supports, become int32 and float32). Class
    indices are 0 for background, 1..K for ``labels`` in their order and 255 for pixels that nothing is known of: those of
    ``ignore_label``, and with ``mask_key`` among the keys those outside the field of view. Axes are in the file's order; rows
    come first in pictures. A case without a field of view gets one that is 1 everywhere.

    Args:
        keys: Those of ``image_key``, ``label_key`` and ``mask_key`` that are wanted; the image always is.
        labels: As in ``data.labels`` of a config: name -> value or values in the label files, in class order.
        ignore_label: Value in the label files of pixels that are neither trained on nor scored.
        overlapping: Whether labels may overlap; the label then has a channel of 0, 1 and 255 for each of them.
        series: Numbers or UIDs of DICOM series, which choose in folders that hold several.
        field_of_view: "given" takes that of ``mask_key``; "find" finds it in pictures that have none.
        image_key: Key of the image: a file, or a list of files that are its channels.
        label_key: Key of the label map.
        mask_key: Key of the field of view; an item may be without it.
        allow_missing_keys: Pass over a label that an item does not have.

    Shape: paths -> MetaTensors: image (C, *S), label (1, *S) or (K, *S) uint8, field of view (1, *S) uint8.

    Raises:
        UserError: A file cannot be read, label values are not declared, or two grids differ; the text names the file.
        ValueError: A key is none of the three, or a label is to be read and ``labels`` is not given.
    """

    def __init__(
        self,
        keys: Keys = ("image", "label"),
        labels: Mapping[str, Any] | None = None,
        *,
        ignore_label: int | Sequence[int] | None = None,
        overlapping: bool = False,
        series: int | str | Sequence[int | str] = (),
        field_of_view: str = "given",
        image_key: str = "image",
        label_key: str = "label",
        mask_key: str = "mask",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        known = (image_key, label_key, mask_key)
        if unknown := [key for key in self.keys if key not in known]:
            raise ValueError(
                f"LoadCased reads {', '.join(known)}, not {unknown[0]!r}: name its image_key, label_key or mask_key"
            )
        if label_key in self.keys and not labels:
            raise ValueError(f"LoadCased reads {label_key!r}: give labels, such as {{'lung': 1}}")
        section = {"labels": as_written(labels or {"label": 1}), "ignore_label": as_written(ignore_label)}
        section |= {"overlapping": overlapping, "series": as_written(series)}
        self.data = Data.model_validate({"root": ".", **section})
        self.preprocessing = Preprocessing.model_validate({"field_of_view": field_of_view})
        self.image_key, self.label_key, self.mask_key = known

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        wants_mask = self.mask_key in self.keys
        has_label = self.label_key in self.keys and not (self.allow_missing_keys and self.label_key not in result)
        files = {
            "image": result[self.image_key],
            "label": result[self.label_key] if has_label else None,
            "mask": result.get(self.mask_key) if wants_mask else None,
        }
        case = case_of({**{key: result[key] for key in ("id", "group") if key in result}, **files})
        sample = ReadCase(self.data)(case) if has_label else read_unlabelled(case, self.data)
        image: Image = sample["image"]
        mask = sample["mask"]
        if wants_mask:
            mask = adjust_image(image, self.preprocessing, mask).field_of_view
            inside = np.ones(image.shape, np.uint8) if mask is None else mask.astype(np.uint8)
            result[self.mask_key] = _meta_tensor(replace(image, array=inside[None]))
            result[self.mask_key].meta[WHOLE] = mask is None
        result[self.image_key] = _meta_tensor(image)
        if has_label:
            indices = outside_to_ignore(sample["indices"], mask)
            result[self.label_key] = _meta_tensor(replace(image, array=self._channels(indices), path=case.labels[0]))
        return result

    def _channels(self, indices: np.ndarray) -> np.ndarray:
        """Class indices (1, *S), or a mask of each label (K, *S) where labels overlap."""
        if not self.data.overlapping:
            return indices[None]
        known = indices != IGNORE
        masks = [label_mask(indices, label, overlapping=True) for label in range(1, len(self.data.labels) + 1)]
        return np.stack([np.where(known, mask, np.uint8(IGNORE)) for mask in masks]).astype(np.uint8)


def _meta_tensor(image: Image) -> MetaTensor:
    meta = {"filename_or_obj": str(image.path), DTYPE: str(image.array.dtype), GEOMETRY: image.affine is not None}
    affine = None if image.affine is None else torch.as_tensor(image.affine, dtype=torch.float64)
    return MetaTensor(as_tensor(image.array), affine=affine, meta=meta)


def image_of(tensor: Tensor) -> Image:
    """A tensor as the image of its file, in the file's number type as far as the values still are the file's."""
    values = tensor.detach().cpu().numpy()
    meta = tensor.meta if isinstance(tensor, MetaTensor) else {}
    if values.dtype.kind in "ui":
        values = values.astype(np.dtype(meta.get(DTYPE, values.dtype)), copy=False)
    affine = None
    if isinstance(tensor, MetaTensor) and meta.get(GEOMETRY, True) and values.ndim == 4:
        affine = tensor.affine.cpu().double().numpy()
    return Image(values, affine, Path(str(meta.get("filename_or_obj", "image"))))
