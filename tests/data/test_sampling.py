"""The windows of training: what follows from the seed, what they hold, and which way they are mirrored."""

from __future__ import annotations

import dataclasses
import math
import threading

import numpy as np
import pytest
import torch

from r2seg.config import Augmentation, Sampling, Window
from r2seg.data.cache import CachedCase, _remember_foreground
from r2seg.data.geometry import PLANES, WorkingGrid, pad_to
from r2seg.data.images import IGNORE
from r2seg.data.intensity import Intensity
from r2seg.data.sampling import WindowSampler

NOTHING = Augmentation(rotate_degrees=0, scale=0, brightness=0, contrast=0, noise=0)
CPU = torch.device("cpu")


def make_case(
    label: np.ndarray,
    case_id: str = "a",
    channels: int = 1,
    spacing_mm: tuple[float, ...] | None = None,
    dtype=np.int16,
) -> CachedCase:
    """A case whose first channel numbers its voxels, so that a window shows where it lies."""
    numbers = np.arange(label.size).reshape(label.shape)
    voxels = np.stack([numbers + 10_000 * channel for channel in range(channels)]).astype(dtype)
    infinite, nothing = (float("inf"),) * channels, (0.0,) * channels
    return CachedCase(
        id=case_id,
        voxels=voxels,
        label=label,
        reference=label,
        grid=WorkingGrid.of(label.shape, None),
        intensity=Intensity(tuple(-i for i in infinite), infinite, nothing, (1.0,) * channels),
        spacing_mm=spacing_mm or (1.0,) * label.ndim,
        foreground={
            int(index): rows[:, 1:]
            for index in np.unique(label)
            if index not in (0, IGNORE) and len(rows := _remember_foreground(label * (label == index)))
        },
    )


def volume(seed: int = 0, shape=(12, 10, 8)) -> np.ndarray:
    label = np.zeros(shape, np.uint8)
    label[2:4, 6:8, 1:3] = 1
    label[9, 1, 6] = 2
    return np.roll(label, seed, axis=0)


def make_sampler(cases, window=None, *, foreground=0.5, windows=12, augmentation=NOTHING, seed=0) -> WindowSampler:
    settings = Window.model_validate({"size": [6, 5], "plane": "axial", "batch_size": 4, **(window or {})})
    sampling = Sampling(windows_per_epoch=windows, foreground=foreground)
    return WindowSampler(cases, settings, sampling, augmentation, seed=seed, device=CPU)


def assert_equal(first: dict, second: dict) -> None:
    assert first["case"] == second["case"]
    assert torch.equal(first["image"], second["image"])
    assert torch.equal(first["label"], second["label"])


# what follows from (seed, epoch, step)


def cases_of_two() -> list[CachedCase]:
    return [make_case(volume(), "a"), make_case(volume(3), "b")]


ALL = Augmentation(
    flip=("left-right", "front-back"), rotate_degrees=20, scale=0.2, brightness=0.1, contrast=0.1, noise=0.1
)


def test_a_batch_follows_from_seed_epoch_and_step_alone() -> None:
    first = make_sampler(cases_of_two(), augmentation=ALL)
    second = make_sampler(cases_of_two(), augmentation=ALL)
    second.batch(4, 1)
    for epoch in (0, 3):
        for step in (2, 0, 1):
            assert_equal(first.batch(epoch, step), second.batch(epoch, step))


def test_an_epoch_can_start_at_any_step() -> None:
    sampler = make_sampler(cases_of_two(), augmentation=ALL)
    whole = list(sampler.epoch(2))
    assert len(whole) == sampler.steps_per_epoch == 3
    rest = list(make_sampler(cases_of_two(), augmentation=ALL).epoch(2, first_step=1))
    assert len(rest) == 2
    for one, other in zip(whole[1:], rest, strict=True):
        assert_equal(one, other)
    assert_equal(whole[0], sampler.batch(2, 0))


def test_other_seeds_epochs_and_steps_give_other_batches() -> None:
    batches = [
        make_sampler(cases_of_two(), seed=seed).batch(epoch, step)
        for seed, epoch, step in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
    ]
    images = [batch["image"] for batch in batches]
    assert not any(torch.equal(a, b) for index, a in enumerate(images) for b in images[:index])


def test_an_epoch_may_be_left_before_its_end() -> None:
    batches = make_sampler(cases_of_two()).epoch(0)
    next(batches)
    batches.close()
    assert not any(thread.name.startswith("windows") for thread in threading.enumerate()), "the reader has ended"


def test_nothing_global_is_drawn_from() -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    state, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()
    make_sampler(cases_of_two(), augmentation=ALL).batch(0, 0)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numbers)


def test_steps_cover_the_windows_of_an_epoch() -> None:
    assert make_sampler(cases_of_two(), windows=9).steps_per_epoch == 3
    assert make_sampler(cases_of_two(), windows=1).steps_per_epoch == 1


# what a window holds


@pytest.mark.parametrize("plane", PLANES)
def test_without_augmentation_a_window_is_a_piece_of_its_slice(plane: str) -> None:
    case = make_case(volume(), channels=2)
    sampler = make_sampler([case], {"plane": plane, "size": [5, 4]})
    for step in range(3):
        batch = sampler.batch(0, step)
        assert batch["image"].shape == (4, 2, 5, 4)
        assert batch["image"].dtype is torch.float32
        assert (batch["label"].shape, batch["label"].dtype) == ((4, 5, 4), torch.int64)
        for image, label in zip(batch["image"], batch["label"], strict=True):
            corner = np.unravel_index(int(image[0, 0, 0]), case.label.shape)
            size = [5, 4]
            size.insert(PLANES[plane], 1)
            parts = tuple(slice(start, start + length) for start, length in zip(corner, size, strict=True))
            assert np.array_equal(image.numpy(), case.voxels[(slice(None), *parts)].squeeze(1 + PLANES[plane]))
            assert np.array_equal(label.numpy(), case.label[parts].squeeze(PLANES[plane]))


def test_3d_windows_are_boxes_of_their_volume() -> None:
    case = make_case(volume())
    batch = make_sampler([case], {"size": [6, 5, 4], "plane": None}).batch(0, 0)
    assert batch["image"].shape == (4, 1, 6, 5, 4)
    for image, label in zip(batch["image"], batch["label"], strict=True):
        corner = np.unravel_index(int(image[0, 0, 0, 0]), case.label.shape)
        parts = tuple(slice(start, start + length) for start, length in zip(corner, (6, 5, 4), strict=True))
        assert np.array_equal(image[0].numpy(), case.voxels[0][parts])
        assert np.array_equal(label.numpy(), case.label[parts])


def test_pictures_are_cut_in_rows_and_columns() -> None:
    label = np.zeros((9, 14), np.uint8)
    label[2:4, 10:12] = 1
    batch = make_sampler([make_case(label, channels=3, dtype=np.uint16)], {"plane": None, "size": [4, 6]}).batch(0, 0)
    assert batch["image"].shape == (4, 3, 4, 6)


def test_intensities_are_mapped_as_in_inference() -> None:
    case = make_case(volume())
    mapped = CachedCase(**{**vars(case), "intensity": Intensity((10.0,), (500.0,), (100.0,), (0.25,))})
    plain, found = (make_sampler([each]).batch(0, 0)["image"] for each in (case, mapped))
    torch.testing.assert_close(found, (plain.clamp(10, 500) - 100) * 0.25)


def test_every_place_of_a_volume_can_be_drawn() -> None:
    case = make_case(volume())
    sampler = make_sampler([case], {"batch_size": 50}, foreground=0.0, windows=4000)
    seen = torch.cat([batch["image"].flatten() for batch in sampler.epoch(0)]).unique()
    assert len(seen) == case.label.size


@pytest.mark.parametrize(
    ("batch_size", "foreground"), [(4, 0.5), (1, 0.5), (1, 0.3), (3, 0.25), (8, 0.0), (8, 1.0), (2, 0.9)]
)
def test_the_foreground_share_holds_for_any_batch_size(batch_size: int, foreground: float) -> None:
    # The label is so small that a window elsewhere hardly ever holds it.
    label = np.zeros((200, 200, 3), np.uint8)
    label[77, 120, 1] = 1
    sampler = make_sampler(
        [make_case(label, dtype=np.float32)], {"batch_size": batch_size}, foreground=foreground, windows=240
    )
    held = [
        bool((window == 1).any()) for epoch in (0, 1) for batch in sampler.epoch(epoch) for window in batch["label"]
    ]
    assert sum(held) == pytest.approx(foreground * len(held), abs=3)


def test_foreground_windows_are_of_cases_that_have_labels() -> None:
    cases = [make_case(np.zeros((12, 10, 8), np.uint8), "empty"), make_case(volume(), "full")]
    batch = make_sampler(cases, {"batch_size": 20}, foreground=0.5).batch(0, 0)
    assert all((window > 0).any() for window in batch["label"][:10])
    assert set(batch["case"][:10]) == {"full"}
    assert set(batch["case"][10:]) == {"empty", "full"}
    make_sampler(cases[:1]).batch(0, 0)  # nothing to hold: windows anywhere


def test_labels_and_cases_are_drawn_evenly_however_large_they_are() -> None:
    small = make_case(volume(), "small")
    large_label = np.zeros((40, 40, 40), np.uint8)
    large_label[5:35, 5:35, 5:35] = 1
    large_label[39, 39, 39] = 2
    sampler = make_sampler(
        [small, make_case(large_label, "large", dtype=np.float32)], {"batch_size": 400}, foreground=1.0
    )
    batch = sampler.batch(0, 0)
    assert batch["case"].count("small") == pytest.approx(200, abs=40)
    large = [window for window, case in zip(batch["label"], batch["case"], strict=True) if case == "large"]
    assert sum(bool((window == 2).any()) for window in large) == pytest.approx(len(large) / 2, abs=35)


def test_a_labelled_voxel_lies_anywhere_in_its_window() -> None:
    label = np.zeros((40, 40), np.uint8)
    label[20, 20] = 1
    sampler = make_sampler([make_case(label)], {"plane": None, "batch_size": 300, "size": [6, 5]}, foreground=1.0)
    places = (sampler.batch(0, 0)["label"] == 1).nonzero()[:, 1:]
    assert len(places) == 300
    assert len(places.unique(dim=0)) == 30


@pytest.mark.parametrize(("shape", "size"), [((3, 4), (6, 7)), ((3, 9), (8, 4)), ((1, 1), (4, 4))])
def test_a_small_picture_is_padded_as_in_inference_and_its_border_ignored(shape, size) -> None:
    case = make_case(np.ones(shape, np.uint8))
    batch = make_sampler([case], {"plane": None, "size": list(size)}).batch(0, 0)
    for image, label in zip(batch["image"], batch["label"], strict=True):
        inside = label != IGNORE
        assert int(inside.sum()) == math.prod(map(min, zip(shape, size, strict=True)))
        assert set(label.unique().tolist()) == {1, IGNORE}
        rows, columns = inside.any(1).nonzero().flatten(), inside.any(0).nonzero().flatten()
        piece = image[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert torch.equal(pad_to(piece, size), image)


def test_a_thin_volume_is_padded_in_3d() -> None:
    batch = make_sampler([make_case(volume(shape=(12, 10, 8)))], {"plane": None, "size": [4, 4, 16]}).batch(0, 0)
    assert batch["image"].shape == (4, 1, 4, 4, 16)
    assert (batch["label"] == IGNORE).sum() == 4 * 4 * 4 * 8


# directions of the body


def only(**strength) -> Augmentation:
    return NOTHING.model_copy(update=strength)


@pytest.mark.parametrize(
    ("plane", "direction", "axis"),
    [
        ("axial", "left-right", 0),
        ("axial", "front-back", 1),
        ("coronal", "left-right", 0),
        ("coronal", "up-down", 1),
        ("sagittal", "front-back", 0),
        ("sagittal", "up-down", 1),
        (None, "up-down", 2),
    ],
)
def test_directions_are_those_of_the_body_in_every_plane(plane: str | None, direction: str, axis: int) -> None:
    window = {"plane": plane, "size": [4, 4] if plane else [4, 4, 4], "batch_size": 32}
    sampler, plain = (
        make_sampler([make_case(volume())], window, augmentation=each) for each in (only(flip=(direction,)), NOTHING)
    )
    found, raw = sampler.batch(0, 0)["image"], plain.batch(0, 0)["image"]
    flipped = [torch.equal(one, other.flip(1 + axis)) for one, other in zip(found, raw, strict=True)]
    assert all(
        is_flipped or torch.equal(one, other) for is_flipped, one, other in zip(flipped, found, raw, strict=True)
    )
    assert 4 < sum(flipped) < 28


def test_directions_that_a_window_does_not_have_change_nothing() -> None:
    sampler, plain = (
        make_sampler([make_case(volume())], augmentation=each) for each in (only(flip=("up-down",)), NOTHING)
    )
    assert_equal(sampler.batch(0, 0), plain.batch(0, 0))


def test_rows_of_pictures_are_up_and_down() -> None:
    label = np.zeros((8, 8), np.uint8)
    sampler = make_sampler(
        [make_case(label)], {"plane": None, "size": [8, 8], "batch_size": 16}, augmentation=only(flip=("up-down",))
    )
    found = sampler.batch(0, 0)["image"][:, 0]
    assert {tuple(int(n) for n in one[:, 0]) for one in found} == {tuple(range(0, 64, 8)), tuple(range(56, -1, -8))}


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("turned", [False, True])
def test_a_window_comes_with_the_neighbouring_slices_of_its_plane(plane: str, turned: bool) -> None:
    augmentation = NOTHING.model_copy(update={"scale": 1e-9}) if turned else NOTHING
    axis, length = PLANES[plane], volume().shape[PLANES[plane]]
    numbers = np.broadcast_to(np.expand_dims(np.arange(length), [a for a in range(3) if a != axis]), volume().shape)
    case = dataclasses.replace(
        make_case(volume(), channels=2), voxels=np.stack([numbers, 100 + numbers]).astype(np.int16)
    )
    own, stacked = (
        make_sampler([case], {"plane": plane, "neighbours": n}, augmentation=augmentation, foreground=0.3)
        for n in (0, 2)
    )
    ends = 0
    for index in range(3):
        a, b = own.batch(0, index), stacked.batch(0, index)
        assert b["image"].shape[1] == 10
        assert torch.equal(a["label"], b["label"])
        assert torch.equal(a["image"], b["image"][:, 4:6])
        for window in b["image"]:
            where = int(window[4, 2, 2].round())
            for offset in (-2, -1, 1, 2):
                moved = min(max(where + offset, 0), length - 1) - where
                ends += moved != offset
                expected = window[4:6] + moved
                torch.testing.assert_close(window[4 + 2 * offset : 6 + 2 * offset], expected, atol=0.01, rtol=0)
    assert ends > 0, "no window was at an end of the volume"


def test_neighbouring_slices_have_the_intensities_of_their_channels() -> None:
    case = make_case(volume(), channels=2)
    scaled = dataclasses.replace(case, intensity=dataclasses.replace(case.intensity, shift=(0.0, 10_000.0)))
    for augmentation in (NOTHING, NOTHING.model_copy(update={"scale": 1e-9})):
        image = make_sampler([scaled], {"neighbours": 1}, augmentation=augmentation).batch(0, 0)["image"]
        torch.testing.assert_close(image[:, 0::2], image[:, 1::2], atol=0.02, rtol=0)
