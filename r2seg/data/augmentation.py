"""Random changes of training windows, in batches on their device, each window its own.

``AUGMENTATIONS`` lists the changes in the order in which they are applied and draw their numbers; a new one is a function there
and its strength in config/schema.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from r2seg.data.geometry import PLANES
from r2seg.data.images import IGNORE

if TYPE_CHECKING:
    from r2seg.config import Augmentation, Window


class Windows(NamedTuple):
    """A batch of windows and what its changes need to know of it.

    Attributes:
        image: (B, C, *S) float32, preprocessed intensities.
        label: (B, *S) uint8 class indices.
        spacing_mm: Voxel size (B, len(S)).
        flip_axes: Spatial axis of each direction that the windows have.
    """

    image: Tensor
    label: Tensor
    spacing_mm: np.ndarray
    flip_axes: Mapping[str, int]

    def per_window(self, numbers: np.ndarray) -> Tensor:
        """Numbers (B, ...) as a float32 tensor on the windows' device that broadcasts over the image's last axes."""
        shape = numbers.shape + (1,) * (self.image.ndim - numbers.ndim)
        return torch.from_numpy(numbers.astype(np.float32).reshape(shape)).to(self.image.device)


def flip_axes(window: Window, *, pictures: bool) -> dict[str, int]:
    """Spatial axis of a window that each anatomical direction runs along; rows of pictures run up and down."""
    if pictures:
        return {"up-down": 0, "left-right": 1}
    names = ["left-right", "front-back", "up-down"]
    if len(window.size) == 2:
        del names[PLANES[window.plane_in_volumes]]
    return {name: axis for axis, name in enumerate(names)}


def augment(windows: Windows, strength: Augmentation, rng: np.random.Generator) -> Windows:
    """The windows after every change of ``AUGMENTATIONS``, in that order.

    Args:
        windows: A batch.
        strength: The config's augmentation section; a change of strength 0 draws no number.
        rng: Source of every number; noise is drawn on the image's device with a seed from it.

    Shape: image (B, C, *S) and label (B, *S) keep theirs.
    """
    for change in AUGMENTATIONS:
        windows = change(windows, strength, rng)
    return windows


def flip(windows: Windows, strength: Augmentation, rng: np.random.Generator) -> Windows:
    """Each direction of ``strength.flip`` mirrored in about half of the windows; directions they do not have are passed over."""
    image, label = windows.image, windows.label
    batch, dims = len(image), image.ndim - 2
    for direction in strength.flip:
        if direction in windows.flip_axes:
            axis = windows.flip_axes[direction]
            chosen = torch.from_numpy(rng.random(batch) < 0.5).to(image.device)
            image = torch.where(chosen.view(-1, *[1] * (dims + 1)), image.flip(2 + axis), image)
            label = torch.where(chosen.view(-1, *[1] * dims), label.flip(1 + axis), label)
    return windows._replace(image=image, label=label)


def rotate_and_scale(windows: Windows, strength: Augmentation, rng: np.random.Generator) -> Windows:
    """Rotation by up to ``rotate_degrees`` about each axis and a change of size by up to ``scale``.

    Both act in millimetres, so that anisotropic windows are not sheared. Beyond the window the image repeats its edge and the
    label is ignored.
    """
    if not (strength.rotate_degrees or strength.scale):
        return windows
    image, label = windows.image, windows.label
    batch, dims = len(image), image.ndim - 2
    size = np.array(image.shape[2:], dtype=np.float64)
    theta = np.zeros((batch, dims, dims + 1))
    limit = math.radians(strength.rotate_degrees)
    for index in range(batch):
        matrix = np.eye(dims) / rng.uniform(1 - strength.scale, 1 + strength.scale)
        for first, second in ((0, 1),) if dims == 2 else ((0, 1), (0, 2), (1, 2)):
            angle = rng.uniform(-limit, limit)
            turn = np.eye(dims)
            turn[[first, second], [first, second]] = math.cos(angle)
            turn[first, second], turn[second, first] = -math.sin(angle), math.sin(angle)
            matrix = turn @ matrix
        # Millimetres -> voxels -> grid_sample's [-1, 1] over the window, whose axes count from the last.
        to_unit = 2 / (windows.spacing_mm[index] * size)
        matrix = to_unit[:, None] * matrix / to_unit[None, :]
        theta[index, :, :dims] = matrix[::-1, ::-1]
    grid = F.affine_grid(
        torch.from_numpy(theta.astype(np.float32)).to(image.device), list(image.shape), align_corners=False
    )
    image = F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)
    shifted = label[:, None].float() - IGNORE  # so that what lies outside, sampled as 0, becomes IGNORE
    label = (F.grid_sample(shifted, grid, mode="nearest", padding_mode="zeros", align_corners=False) + IGNORE)[:, 0]
    return windows._replace(image=image, label=label.round().to(torch.uint8))


def change_contrast_and_brightness(windows: Windows, strength: Augmentation, rng: np.random.Generator) -> Windows:
    """Each channel stretched about its mean by up to ``contrast``, and shifted by up to ``brightness``.

    ``brightness`` is in units of the preprocessed intensities.
    """
    if not (strength.contrast or strength.brightness):
        return windows
    image = windows.image
    gain = rng.uniform(1 - strength.contrast, 1 + strength.contrast, image.shape[:2])
    offset = rng.uniform(-strength.brightness, strength.brightness, image.shape[:2])
    centre = image.mean(dim=tuple(range(2, image.ndim)), keepdim=True)
    changed = (image - centre) * windows.per_window(gain) + centre + windows.per_window(offset)
    return windows._replace(image=changed)


def add_noise(windows: Windows, strength: Augmentation, rng: np.random.Generator) -> Windows:
    """Gaussian noise whose standard deviation is drawn up to ``noise``, in units of the preprocessed intensities."""
    if not strength.noise:
        return windows
    image = windows.image
    generator = torch.Generator(image.device).manual_seed(int(rng.integers(2**62)))
    level = windows.per_window(rng.uniform(0, strength.noise, len(image)))
    return windows._replace(image=image + level * torch.randn(image.shape, generator=generator, device=image.device))


# In this order: runs of one seed draw the same windows as long as it stays.
AUGMENTATIONS: tuple[Callable[[Windows, Augmentation, np.random.Generator], Windows], ...] = (
    flip,
    rotate_and_scale,
    change_contrast_and_brightness,
    add_noise,
)
