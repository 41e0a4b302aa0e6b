"""The random changes of windows: image and label move together, in millimetres, and as far as their strengths say."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

from r2seg.config import Augmentation, Window
from r2seg.data.augmentation import Windows, augment, flip_axes
from r2seg.data.images import IGNORE

NOTHING = Augmentation(rotate_degrees=0, scale=0, brightness=0, contrast=0, noise=0)


def square(batch: int = 8, size=(32, 32), channels: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """A bright square and its label, off the centre."""
    label = torch.zeros(batch, *size, dtype=torch.uint8)
    label[:, 8:16, 12:26] = 1
    return label[:, None].float().repeat(1, channels, *[1] * len(size)), label


def run(image, label, strength, spacing=None, axes=None, seed=0):
    dims = label.ndim - 1
    spacing = np.ones((len(label), dims)) if spacing is None else spacing
    axes = {"left-right": 0, "front-back": 1} if axes is None else axes
    found = augment(Windows(image, label, spacing, axes), strength, np.random.default_rng(seed))
    return found.image, found.label


def only(**strength) -> Augmentation:
    return NOTHING.model_copy(update=strength)


def test_zero_strength_changes_nothing() -> None:
    image, label = square()
    found = run(image, label, NOTHING)
    assert torch.equal(found[0], image)
    assert torch.equal(found[1], label)


@pytest.mark.parametrize(
    "strength",
    [
        only(flip=("left-right",)),
        only(flip=("left-right", "front-back")),
        only(rotate_degrees=30.0),
        only(scale=0.3),
        only(rotate_degrees=180.0, scale=0.2),
    ],
)
def test_a_bright_square_and_its_label_move_together(strength: Augmentation) -> None:
    image, label = square()
    moved, moved_label = run(image, label, strength)
    known = moved_label != IGNORE
    # Where bilinear interpolation is sure of itself, the nearest voxel is of the same side.
    wrong = ((moved[:, 0] > 0.5) != (moved_label == 1)) & known
    assert wrong.float().mean() < 0.002
    assert not torch.equal(moved_label, label)
    assert ((moved_label == 1).flatten(1).sum(1) > 40).all()


def test_no_label_appears_that_was_not_there() -> None:
    label = torch.zeros(16, 24, 24, dtype=torch.uint8)
    label[:, :8], label[:, 8:16, :10], label[:, 20:] = 3, 7, IGNORE
    found = run(label[:, None].float(), label, only(rotate_degrees=45.0, scale=0.3))[1]
    assert set(found.unique().tolist()) == {0, 3, 7, IGNORE}
    assert found.dtype is torch.uint8


def test_what_comes_from_outside_repeats_the_edge_and_is_ignored() -> None:
    image, label = torch.full((16, 1, 20, 20), 5.0), torch.ones(16, 20, 20, dtype=torch.uint8)
    found, found_label = run(image, label, only(rotate_degrees=45.0, scale=0.4))
    torch.testing.assert_close(found, image)
    corners = found_label[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == IGNORE).any()
    assert (found_label[:, 8:12, 8:12] == 1).all()


@pytest.mark.parametrize(("direction", "axis"), [("left-right", 0), ("front-back", 1)])
def test_flips_mirror_about_half_of_the_windows_along_their_axis(direction: str, axis: int) -> None:
    image, label = square(64)
    found, found_label = run(image, label, only(flip=(direction,)))
    flipped = [bool(torch.equal(one, image[0].flip(1 + axis))) for one in found]
    assert 16 < sum(flipped) < 48
    for one, one_label, is_flipped in zip(found, found_label, flipped, strict=True):
        assert torch.equal(one[0].byte(), one_label)
        assert is_flipped or torch.equal(one, image[0])


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 3.0), (2.5, 0.5)])
def test_a_disc_in_millimetres_stays_a_disc_when_turned(spacing) -> None:
    size = (round(60 / spacing[0]), round(60 / spacing[1]))
    rows, columns = ((np.arange(n) - (n - 1) / 2) * s for n, s in zip(size, spacing, strict=True))
    disc = torch.from_numpy((rows[:, None] ** 2 + columns[None] ** 2 < 20**2).astype(np.uint8)).repeat(6, 1, 1)
    _, turned = run(disc[:, None].float(), disc, only(rotate_degrees=90.0), spacing=np.tile(spacing, (6, 1)))
    known = turned != IGNORE
    for found, expected, where in zip(turned, disc, known, strict=True):
        overlap = ((found == 1) & (expected == 1)).sum() / (((found == 1) | (expected == 1)) & where).sum()
        assert overlap > 0.88


def test_each_window_turns_in_its_own_spacing() -> None:
    image, label = square(2)
    alone = run(image, label, only(rotate_degrees=40.0), spacing=np.array([[1.0, 1.0], [1.0, 1.0]]))[0]
    mixed = run(image, label, only(rotate_degrees=40.0), spacing=np.array([[1.0, 1.0], [1.0, 4.0]]))[0]
    assert torch.equal(alone[0], mixed[0])
    assert not torch.equal(alone[1], mixed[1])


def test_turning_keeps_lengths_and_scaling_changes_them_within_bounds() -> None:
    label = torch.zeros(200, 64, 64, dtype=torch.uint8)
    label[:, 22:46, 17:43] = 1
    area = int(label[0].sum())
    turned = (run(label[:, None].float(), label, only(rotate_degrees=30.0))[1] == 1).flatten(1).sum(1) / area
    assert turned.min() > 0.93
    assert turned.max() < 1.07
    scaled = (run(label[:, None].float(), label, only(scale=0.3))[1] == 1).flatten(1).sum(1) / area
    assert 0.7**2 - 0.06 < scaled.min() < 0.6
    assert 1.5 < scaled.max() < 1.3**2 + 0.06


def test_boxes_turn_about_all_three_axes_with_their_labels() -> None:
    label = torch.zeros(4, 20, 20, 20, dtype=torch.uint8)
    label[:, 4:11, 6:16, 8:13] = 1
    found, found_label = run(label[:, None].float(), label, only(rotate_degrees=25.0), axes={})
    wrong = ((found[:, 0] > 0.5) != (found_label == 1)) & (found_label != IGNORE)
    assert wrong.float().mean() < 0.01
    for axis in (1, 2, 3):
        centres = torch.stack([(one == 1).nonzero()[:, axis - 1].float().mean() for one in found_label])
        assert centres.std() > 0.05


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
    everything = only(flip=("left-right",), rotate_degrees=20.0, scale=0.1, contrast=0.2, brightness=0.1, noise=0.1)
    found = run(image, label, everything, seed=3)
    rng = np.random.default_rng(3)
    windows = Windows(image, label, np.ones((4, 2)), {"left-right": 0, "front-back": 1})
    for part in (
        only(flip=("left-right",)),
        only(rotate_degrees=20.0, scale=0.1),
        only(contrast=0.2, brightness=0.1),
        only(noise=0.1),
    ):
        windows = augment(windows, part, rng)
    assert torch.equal(found[0], windows.image)
    assert torch.equal(found[1], windows.label)
