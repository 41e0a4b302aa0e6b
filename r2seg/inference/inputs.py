"""What ``Segmenter.segment`` accepts: files, arrays, and the images of MONAI, nibabel and SimpleITK, all as one Image.

Images in memory pass the same checks as files: real and finite values, axes, an affine that can be inverted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.utils.enums import SpaceKeys
from torch import Tensor

from r2seg.data.formats.base import RAS_FROM_LPS, File, Grid, with_normal
from r2seg.data.formats.itk import from_simpleitk
from r2seg.data.formats.nifti import from_nibabel
from r2seg.data.images import Image, SeriesChoice, image_of, read_image
from r2seg.errors import UserError


@dataclass(frozen=True)
class Input:
    """An image to segment.

    Attributes:
        image: The image, in the axis order of a file.
        turned: Whether the two axes of the given picture are those of the image in reverse order.
        warnings: What was assumed.
        in_memory: Whether it is not a file's.
    """

    image: Image
    turned: bool = False
    warnings: tuple[str, ...] = ()
    in_memory: bool = True


def read_input(given: Any, image_dims: int, affine: np.ndarray | None = None, *, series: SeriesChoice = ()) -> Input:
    """The image of anything that can be segmented.

    Args:
        given: A file, the files of the channels, an ``Image``, an array, a tensor, a MetaTensor, or an image of nibabel or SimpleITK.
            Arrays and tensors are channel-first, (C, *S), or without channels, (*S).
        image_dims: Spatial axes that the run was trained on.
        affine: Of an array or tensor without one: (4, 4), voxel index -> RAS+ millimetres.
        series: Of folders with several DICOM series: numbers or UIDs to choose by.

    Raises:
        UserError: It is none of these, cannot be read, or does not pass the checks.
    """
    is_array = isinstance(given, np.ndarray | Tensor) and not isinstance(given, MetaTensor)
    if affine is not None and not is_array:
        raise UserError(f"affine is for arrays and tensors without geometry; a {type(given).__name__} states its own")
    if isinstance(given, Image):
        return Input(image_of(File(given.grid, given.source, lambda _: (given.array, None))))
    if isinstance(given, MetaTensor):
        return _of_meta_tensor(given, image_dims)
    if is_array:
        name = "the torch tensor" if isinstance(given, Tensor) else "the numpy array"
        image = _of_array(given, image_dims, affine, name)
        return Input(image, warnings=_told(image))
    if _is_from("nibabel", "spatialimages", "SpatialImage", given):
        return Input(image_of(from_nibabel(given)))
    if _is_from("SimpleITK", None, "Image", given):
        return Input(image_of(from_simpleitk(given)))
    if isinstance(given, str | os.PathLike):
        return Input(read_image(given, series=series), in_memory=False)
    if isinstance(given, Sequence) and given and all(isinstance(one, str | os.PathLike) for one in given):
        return Input(read_image(given, series=series), in_memory=False)
    raise UserError(
        f"a {type(given).__name__} cannot be segmented: give a file, a list of files, an array, a tensor, or an image of MONAI, "
        "nibabel or SimpleITK"
    )


def _is_from(package: str, module: str | None, name: str, given: Any) -> bool:
    """Whether something is of a library's class; a library that nobody has imported has made nothing."""
    library = sys.modules.get(package if module is None else f"{package}.{module}")
    return library is not None and isinstance(given, getattr(library, name))


def _told(image: Image) -> tuple[str, ...]:
    if image.affine is not None or image.spatial_dims == 2:
        return ()
    return (
        "it has no affine: its axes are taken to run to the right, anterior and superior, and its voxels to be of the size that the "
        "run was trained on; give affine=...",
    )


def _of_array(given: np.ndarray | Tensor, image_dims: int, affine: Any, name: str, source: Any = None) -> Image:
    if isinstance(given, Tensor):
        given = given.detach().cpu()
        array = (given.float() if given.dtype == torch.bfloat16 else given).numpy()
    elif isinstance(given, np.ma.MaskedArray):
        raise UserError(f"{name} is masked, which a network cannot use: give the values, for example array.filled(0)")
    else:
        array = np.asarray(given)
    if array.ndim not in (image_dims, image_dims + 1):
        spatial = {2: "(rows, columns)", 3: "(X, Y, Z)"}[image_dims]
        raise UserError(
            f"{name} has {array.ndim} axes {tuple(array.shape)}; expected {spatial}, or channels first and then {spatial}"
        )
    array = array[None] if array.ndim == image_dims else array
    if affine is not None:
        affine = np.array(affine.detach().cpu() if isinstance(affine, Tensor) else affine, np.float64)
        if affine.shape != (4, 4):
            raise UserError(f"{name}: its affine has the shape {affine.shape}; expected (4, 4)")
        affine = with_normal(affine) if image_dims == 2 else affine
    grid = Grid(Path(name), array.shape[1:], len(array), affine)
    return image_of(File(grid, source, lambda _: (array, None)))


def _of_meta_tensor(given: MetaTensor, image_dims: int) -> Input:
    """A MetaTensor (C, *S) or (*S), whose affine is RAS+ unless its metadata say LPS+."""
    meta = given.meta
    path = str(meta.get("filename_or_obj") or "the MetaTensor")
    tensor = given.as_tensor()
    if image_dims == 2:
        # MONAI's PILReader gives pictures as (columns, rows).
        turned = "width" in meta and tuple(tensor.shape[-2:]) == (meta["width"], meta.get("height"))
        if meta.get("mode") in ("L", "P", "RGB", "RGBA", "LA") and tensor.is_floating_point():
            bytes_ = tensor.byte()  # LoadImage makes float32 of bytes
            tensor = bytes_ if torch.equal(bytes_.to(tensor.dtype), tensor) else tensor
        if "width" in meta:
            return Input(_of_array(tensor.mT if turned else tensor, 2, None, path), turned)
    affine = given.affine.detach().cpu().double().numpy()
    if affine.shape == (4, 4) and meta.get("space") == SpaceKeys.LPS:
        affine = RAS_FROM_LPS @ affine
    return Input(_of_array(tensor, image_dims, affine, path))
