"""Random changes of training windows that are already cut, in batches on their device, each window its own.

Rotation and scale are not among them: they decide which part of an image a window is, see cutting.py.

``AUGMENTATIONS`` lists the changes in the order in which they are applied and draw their numbers; a new one is a function there
and its strength in config/schema/.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from r2seg.data.geometry import PLANES
from r2seg.errors import UserError

if TYPE_CHECKING:
    from r2seg.config import Augmentation, Window


class Windows(NamedTuple):
    """A batch of windows and what its changes need to know of it.

    Attributes:
        image: (B, C, *S) float32, preprocessed intensities.
        label: (B, *S) uint8 class indices.
        flip_axes: Spatial axis of each direction that the windows have.
    """

    image: Tensor
    label: Tensor
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


def refuse_missing_directions(flip: Sequence[str], window: Window, *, pictures: bool) -> None:
    """Checks that windows can be mirrored along every direction that a config names.

    Raises:
        UserError: They do not have one of them.
    """
    valid = flip_axes(window, pictures=pictures)
    lost = [direction for direction in flip if direction not in valid]
    if lost:
        kind = "pictures" if pictures else f"{window.plane_in_volumes} slices"
        raise UserError(
            f"augmentation.flip names {', '.join(lost)}, which {kind} do not have: they have {' and '.join(valid)}"
        )


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
    change_contrast_and_brightness,
    add_noise,
)
