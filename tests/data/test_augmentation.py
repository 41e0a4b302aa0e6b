"""The random changes of cut windows: image and label are mirrored together, and intensities change as far as their strengths say."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

from r2seg.config import Augmentation, Window
from r2seg.data.augmentation import Windows, augment, flip_axes, refuse_missing_directions
from r2seg.errors import UserError

NOTHING = Augmentation(rotate_degrees=0, scale=0, brightness=0, contrast=0, noise=0)


def square(batch: int = 8, size=(32, 32), channels: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """A bright square and its label, off the centre."""
    label = torch.zeros(batch, *size, dtype=torch.uint8)
    label[:, 8:16, 12:26] = 1
    return label[:, None].float().repeat(1, channels, *[1] * len(size)), label


def run(image, label, strength, axes=None, seed=0):
    axes = {"left-right": 0, "front-back": 1} if axes is None else axes
    found = augment(Windows(image, label, axes), strength, np.random.default_rng(seed))
    return found.image, found.label


def only(**strength) -> Augmentation:
    return NOTHING.model_copy(update=strength)


def test_zero_strength_changes_nothing() -> None:
    image, label = square()
    found = run(image, label, NOTHING)
    assert torch.equal(found[0], image)
    assert torch.equal(found[1], label)


@pytest.mark.parametrize(("direction", "axis"), [("left-right", 0), ("front-back", 1)])
def test_flips_mirror_about_half_of_the_windows_along_their_axis(direction: str, axis: int) -> None:
    image, label = square(64)
    found, found_label = run(image, label, only(flip=(direction,)))
    flipped = [bool(torch.equal(one, image[0].flip(1 + axis))) for one in found]
    assert 16 < sum(flipped) < 48
    for one, one_label, is_flipped in zip(found, found_label, flipped, strict=True):
        assert torch.equal(one[0].byte(), one_label)
        assert is_flipped or torch.equal(one, image[0])


def test_contrast_keeps_each_channels_mean_and_brightness_shifts_it() -> None:
    image = torch.rand(32, 2, 16, 16)
    _, label = square(32, size=(16, 32))
    changed = run(image, label[..., :16], only(contrast=0.5))[0]
    torch.testing.assert_close(changed.mean((2, 3)), image.mean((2, 3)))
    gain = changed.std((2, 3)) / image.std((2, 3))
    assert 0.5 <= gain.min() < 0.7
    assert 1.3 < gain.max() <= 1.5001
    shifted = run(image, label[..., :16], only(brightness=0.2))[0] - image
    assert shifted.std((2, 3)).max() < 1e-5
    assert 0.15 < shifted.abs().max() <= 0.2001


def test_noise_is_as_strong_as_said_and_leaves_labels_alone() -> None:
    image, label = torch.zeros(64, 1, 32, 32), torch.zeros(64, 32, 32, dtype=torch.uint8)
    found, found_label = run(image, label, only(noise=0.3))
    level = found.std((1, 2, 3))
    assert level.min() < 0.05
    assert 0.25 < level.max() < 0.32
    assert torch.equal(found_label, label)


def test_the_directions_are_those_that_a_config_may_name() -> None:
    boxes = flip_axes(Window(size=[4, 4, 4]), pictures=False)
    directions = get_args(get_args(Augmentation.model_fields["flip"].annotation)[0])
    assert sorted(directions) == sorted(boxes)
    assert set(flip_axes(Window(size=[4, 4]), pictures=True)) < set(boxes)


def test_changes_are_made_in_their_order_from_one_source_of_numbers() -> None:
    image, label = square(4)
    everything = only(flip=("left-right",), contrast=0.2, brightness=0.1, noise=0.1)
    found = run(image, label, everything, seed=3)
    rng = np.random.default_rng(3)
    windows = Windows(image, label, {"left-right": 0, "front-back": 1})
    for part in (
        only(flip=("left-right",)),
        only(contrast=0.2, brightness=0.1),
        only(noise=0.1),
    ):
        windows = augment(windows, part, rng)
    assert torch.equal(found[0], windows.image)
    assert torch.equal(found[1], windows.label)


@pytest.mark.parametrize(
    ("window", "pictures", "lost", "valid"),
    [
        ({"size": [4, 4]}, True, "front-back", "pictures do not have: they have up-down and left-right"),
        ({"size": [4, 4]}, False, "up-down", "axial slices do not have: they have left-right and front-back"),
        (
            {"size": [4, 4], "plane": "coronal"},
            False,
            "front-back",
            "coronal slices do not have: they have left-right and up-down",
        ),
        (
            {"size": [4, 4], "plane": "sagittal"},
            False,
            "left-right",
            "sagittal slices do not have: they have front-back and up-down",
        ),
    ],
)
def test_a_direction_that_the_windows_do_not_have_is_refused_with_those_they_have(
    window, pictures, lost, valid
) -> None:
    window = Window(**window)
    refuse_missing_directions(list(flip_axes(window, pictures=pictures)), window, pictures=pictures)
    with pytest.raises(UserError) as caught:
        refuse_missing_directions(["left-right", "front-back", "up-down"], window, pictures=pictures)
    assert str(caught.value) == f"augmentation.flip names {lost}, which {valid}"


def test_boxes_have_all_directions() -> None:
    refuse_missing_directions(["left-right", "front-back", "up-down"], Window(size=[4, 4, 4]), pictures=False)
