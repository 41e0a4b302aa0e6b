"""Rotated and scaled windows: they hold what a slow interpolation of the whole image gives, in millimetres, tissue where there is some.

The images' channels hold the coordinates of their voxels, so that a window itself shows where each of its pixels was taken.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from r2seg.config import Augmentation, Sampling, Window
from r2seg.data.cache import CachedCase, _remember_foreground
from r2seg.data.geometry import PLANES, WorkingGrid, pad_to
from r2seg.data.images import IGNORE
from r2seg.data.intensity import Intensity
from r2seg.data.sampling import WindowSampler

STRAIGHT = {"rotate_degrees": 0.0, "scale": 0.0, "brightness": 0.0, "contrast": 0.0, "noise": 0.0}


def make_case(
    shape: tuple[int, ...],
    label: np.ndarray | None = None,
    case_id: str = "a",
    spacing_mm: tuple[float, ...] | None = None,
    intensity: Intensity | None = None,
) -> CachedCase:
    """One channel per axis with the voxels' coordinates along it, then one of noise."""
    rng = np.random.default_rng(len(case_id))
    voxels = np.concatenate([np.indices(shape), rng.integers(0, 200, (1, *shape))]).astype(np.float32)
    label = rng.integers(0, 4, shape).astype(np.uint8) if label is None else label
    number = len(voxels)
    return CachedCase(
        id=case_id,
        voxels=voxels,
        label=label,
        reference=label,
        grid=WorkingGrid.of(shape, None),
        intensity=intensity
        or Intensity((-float("inf"),) * number, (float("inf"),) * number, (0.0,) * number, (1.0,) * number),
        spacing_mm=spacing_mm or (1.0,) * len(shape),
        foreground={
            int(index): rows[rows[:, 0] == index, 1:]
            for rows in [_remember_foreground(label)]
            for index in {*rows[:, 0]}
        },
    )


def make_sampler(cases, size, *, plane=None, foreground=0.0, batch_size=8, **strength) -> WindowSampler:
    return WindowSampler(
        cases,
        Window(size=size, plane=plane, batch_size=batch_size),
        Sampling(windows_per_epoch=400, foreground=foreground),
        Augmentation(**{**STRAIGHT, **strength}),
        seed=0,
        device=torch.device("cpu"),
    )


def affine_of(coordinates: np.ndarray, shape) -> tuple[np.ndarray, np.ndarray]:
    """Steps (D, D) and the coordinates of every pixel (D, *window), from those of the pixels inside the image."""
    dims = len(coordinates)
    offsets = np.indices(coordinates.shape[1:]).reshape(dims, -1)
    found = coordinates.reshape(dims, -1)
    # At the edge a coordinate is that of the edge: only pixels well inside show where they lie.
    inside = ((found > 0.01) & (found < np.array(shape)[:, None] - 1.01)).all(0)
    rows = np.concatenate([offsets, np.ones_like(offsets[:1])]).T
    solution, *_ = np.linalg.lstsq(rows[inside].astype(float), found[:, inside].T.astype(float), rcond=None)
    return solution[:dims].T, (rows @ solution).T.reshape(coordinates.shape)


LAYOUTS = {
    "picture": ((70, 90), (20, 28), None, (1.0, 1.0)),
    "axial": ((50, 40, 6), (18, 14), "axial", (1.0, 2.5, 5.0)),
    "coronal": ((50, 6, 40), (18, 14), "coronal", (0.7, 2.5, 2.0)),
    "sagittal": ((6, 50, 40), (18, 14), "sagittal", (3.0, 1.0, 2.0)),
    "volume": ((40, 44, 30), (12, 14, 8), None, (1.0, 1.5, 3.0)),
    "window as large as the picture": ((20, 28), (20, 28), None, (1.0, 1.0)),
    "smaller than the window": ((15, 40), (20, 28), None, (1.0, 1.0)),
    "thin volume": ((40, 44, 5), (12, 14, 8), None, (1.0, 1.5, 3.0)),
}


@pytest.mark.parametrize("foreground", [0.0, 1.0])
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_turned_window_is_what_a_slow_interpolation_of_the_whole_image_gives(name: str, foreground: float) -> None:
    shape, size, plane, spacing_mm = LAYOUTS[name]
    case = make_case(shape, spacing_mm=spacing_mm)
    batch = make_sampler(
        [case], size, plane=plane, foreground=foreground, batch_size=24, rotate_degrees=60.0, scale=0.25
    ).batch(0, 0)
    axes = [axis for axis in range(len(shape)) if plane is None or axis != PLANES[plane]]
    spacing = np.array(spacing_mm)[axes]
    extents = [shape[axis] for axis in axes]
    turned = 0
    for image, label in zip(batch["image"].numpy(), batch["label"].numpy(), strict=True):
        whole, whole_label = case.voxels[-1], case.label
        if plane:
            index = round(float(image[PLANES[plane]].mean()))
            whole, whole_label = whole.take(index, PLANES[plane]), whole_label.take(index, PLANES[plane])
        steps, places = affine_of(image[axes], extents)
        # In millimetres the window is turned and scaled, and nothing else.
        steps_mm = steps * spacing[:, None] / spacing
        square = steps_mm.T @ steps_mm
        np.testing.assert_allclose(square, np.eye(len(axes)) * square[0, 0], atol=2e-3)
        assert np.linalg.det(steps_mm) > 0
        assert 1 / 1.25 - 1e-3 <= square[0, 0] ** 0.5 <= 1 / 0.75 + 1e-3
        turned += abs(square[0, 0] - 1) > 1e-3
        # Beyond the image the edge is repeated and nothing is known.
        far = 60
        slow = map_coordinates(np.pad(whole, far, mode="edge"), places + far, order=1)
        np.testing.assert_allclose(image[-1], slow, atol=0.05)
        slow = map_coordinates(np.pad(whole_label, far, constant_values=IGNORE), places + far, order=0)
        # Half way between two voxels rounding decides.
        sure = (np.abs(places % 1 - 0.5) > 1e-2).all(0)
        np.testing.assert_array_equal(label[sure], slow[sure])
        if foreground:
            assert ((label > 0) & (label != IGNORE)).any()
    assert turned > 6


def test_windows_inside_a_large_image_have_no_ignored_pixel() -> None:
    sampler = make_sampler([make_case((300, 300))], (20, 20), rotate_degrees=180.0, scale=0.2, batch_size=100)
    ignored = 0
    for batch in sampler.epoch(0):
        for image, label in zip(batch["image"].numpy(), batch["label"].numpy(), strict=True):
            _, places = affine_of(image[:2], (300, 300))
            if ((places > -0.49) & (places < 299.49)).all():
                assert (label != IGNORE).all()
            ignored += int((label == IGNORE).sum())
    assert ignored / (400 * 400) < 0.01


def test_without_rotation_a_scaled_window_never_reaches_beyond_an_image_that_is_large_enough() -> None:
    for batch in make_sampler([make_case((30, 34))], (20, 24), scale=0.25, batch_size=50).epoch(0):
        assert (batch["label"] != IGNORE).all()


@pytest.mark.parametrize("place", [(0, 0), (0, 25), (39, 59), (20, 30)])
def test_every_window_that_must_hold_a_label_holds_it_however_it_is_turned(place) -> None:
    label = np.zeros((40, 60), np.uint8)
    label[place] = 1
    sampler = make_sampler(
        [make_case((40, 60), label)], (12, 9), foreground=1.0, batch_size=100, rotate_degrees=180.0, scale=0.3
    )
    batches = list(sampler.epoch(0))
    assert sum(len(batch["label"]) for batch in batches) == 400
    assert all((window == 1).any() for batch in batches for window in batch["label"])


def test_a_label_inside_the_image_lies_anywhere_in_its_turned_windows() -> None:
    label = np.zeros((60, 60), np.uint8)
    label[30, 30] = 1
    sampler = make_sampler(
        [make_case((60, 60), label)], (6, 5), foreground=1.0, batch_size=400, rotate_degrees=180.0, scale=0.01
    )
    places = (sampler.batch(0, 0)["label"] == 1).nonzero()[:, 1:]
    counts = np.unique(places.numpy(), axis=0, return_counts=True)[1]
    assert len(counts) == 30
    assert counts.max() < 4 * counts.min() + 10


def test_every_pixel_of_an_image_is_trained_on() -> None:
    seen = np.zeros((24, 28), int)
    sampler = make_sampler([make_case((24, 28))], (16, 16), rotate_degrees=180.0, scale=0.2, batch_size=100)
    for epoch in range(5):
        for batch in sampler.epoch(epoch):
            known = batch["label"].numpy() != IGNORE
            rows, columns = (batch["image"][:, axis].numpy()[known].round().astype(int) for axis in (0, 1))
            np.add.at(seen, (rows, columns), 1)
    assert seen.min() > 0


def test_windows_as_large_as_their_image_stay_straight_every_second_time() -> None:
    case = make_case((20, 28))
    batch = make_sampler([case], (20, 28), rotate_degrees=180.0, scale=0.2, batch_size=200).batch(0, 0)
    straight = np.isclose(batch["image"].numpy(), case.voxels, atol=1e-2).all((1, 2, 3))
    assert 70 < straight.sum() < 130
    assert (batch["label"][straight] != IGNORE).all()


def test_a_small_picture_that_stays_straight_is_padded_as_in_inference() -> None:
    case = make_case((9, 28))
    batch = make_sampler([case], (20, 12), rotate_degrees=180.0, batch_size=60).batch(0, 0)
    padded = pad_to(torch.from_numpy(case.voxels), (20, 12)).numpy()
    straight = 0
    for image in batch["image"].numpy():
        start = image[1, 0, 0].round().astype(int)
        if 0 <= start <= 16 and np.allclose(image, padded[:, :, start : start + 12], atol=1e-2):
            straight += 1
    assert 15 < straight < 50


def test_images_of_many_sizes_share_a_batch() -> None:
    cases = [make_case(shape, case_id="abcd"[:index]) for index, shape in enumerate([(9, 60), (80, 12), (50, 50)], 1)]
    sampler = make_sampler(cases, (20, 16), rotate_degrees=30.0, scale=0.1, batch_size=30)
    batch = sampler.batch(0, 0)
    shapes = {case.id: case.label.shape for case in cases}
    assert set(batch["case"]) == set(shapes)
    for image, label, name in zip(batch["image"].numpy(), batch["label"].numpy(), batch["case"], strict=True):
        case = next(case for case in cases if case.id == name)
        _, places = affine_of(image[:2], shapes[name])
        slow = map_coordinates(np.pad(case.voxels[-1], 60, mode="edge"), places + 60, order=1)
        np.testing.assert_allclose(image[-1], slow, atol=0.05)
        outside = (
            np.abs(places - (np.array(shapes[name])[:, None, None] - 1) / 2)
            > np.array(shapes[name])[:, None, None] / 2 + 1e-2
        ).any(0)
        assert (label[outside] == IGNORE).all()


def test_intensities_are_clipped_before_they_are_interpolated() -> None:
    low, high = (-1000.0,) * 3, (100.0,) * 3
    mapped = Intensity(low, high, (50.0,) * 3, (0.5,) * 3)
    raw, found = (
        make_sampler([make_case((60, 60), intensity=each)], (20, 20), rotate_degrees=45.0).batch(0, 0)["image"].numpy()
        for each in (None, mapped)
    )
    case = make_case((60, 60))
    clipped_first, clipped_last = [], []
    for image in raw:
        _, places = affine_of(image[:2], (60, 60))
        whole = np.pad(case.voxels[-1], 40, mode="edge")
        clipped_first.append(map_coordinates(whole.clip(max=100), places + 40, order=1))
        clipped_last.append(map_coordinates(whole, places + 40, order=1).clip(max=100))
    np.testing.assert_allclose(found[:, -1], (np.array(clipped_first) - 50) * 0.5, atol=0.05)
    assert np.abs(np.array(clipped_last) - np.array(clipped_first)).max() > 5


def test_boxes_turn_about_all_three_axes() -> None:
    case = make_case((60, 60, 60))
    images = make_sampler([case], (10, 10, 10), rotate_degrees=25.0, batch_size=40).batch(0, 0)["image"].numpy()
    steps = np.array([affine_of(image[:3], (60, 60, 60))[0] for image in images])
    for first, second in ((0, 1), (0, 2), (1, 2)):
        angles = np.degrees(np.arcsin(steps[:, first, second].clip(-1, 1)))
        assert angles.std() > 8
        assert np.abs(angles).max() < 55


def test_each_window_turns_in_its_own_spacing() -> None:
    cases = [make_case((60, 60, 3), case_id="a"), make_case((60, 60, 3), case_id="bb", spacing_mm=(1.0, 4.0, 1.0))]
    batch = make_sampler(cases, (12, 12), plane="axial", rotate_degrees=45.0, batch_size=30).batch(0, 0)
    for image, name in zip(batch["image"].numpy(), batch["case"], strict=True):
        spacing = np.array([1.0, 4.0 if name == "bb" else 1.0])
        steps, _ = affine_of(image[:2], (60, 60))
        steps_mm = steps * spacing[:, None] / spacing
        np.testing.assert_allclose(steps_mm.T @ steps_mm, np.eye(2), atol=2e-3)


def test_no_label_appears_that_was_not_there() -> None:
    label = np.zeros((40, 40), np.uint8)
    label[:13], label[13:26, :15], label[35:] = 3, 7, IGNORE
    batch = make_sampler([make_case((40, 40), label)], (24, 24), rotate_degrees=45.0, scale=0.3, batch_size=40).batch(
        0, 0
    )
    assert set(batch["label"].unique().tolist()) == {0, 3, 7, IGNORE}


@pytest.mark.parametrize(
    "strength", [{"rotate_degrees": 30.0}, {"scale": 0.3}, {"rotate_degrees": 180.0, "scale": 0.2}]
)
def test_a_bright_square_and_its_label_move_together(strength) -> None:
    label = np.zeros((64, 64), np.uint8)
    label[24:32, 28:42] = 1
    case = make_case((64, 64), label)
    case.voxels[-1] = label
    batch = make_sampler([case], (40, 40), batch_size=40, **strength).batch(0, 0)
    found, moved = batch["image"][:, -1], batch["label"]
    # Where linear interpolation is sure of itself, the nearest voxel is of the same side.
    wrong = ((found > 0.5) != (moved == 1)) & (moved != IGNORE)
    assert wrong.float().mean() < 0.002
    assert len({tuple(window.flatten().tolist()) for window in moved}) == 40


def test_turning_keeps_areas_and_scaling_changes_them_within_bounds() -> None:
    label = np.zeros((100, 100), np.uint8)
    label[40:64, 40:66] = 1
    areas = []
    for strength in ({"rotate_degrees": 30.0}, {"scale": 0.3}):
        sampler = make_sampler([make_case((100, 100), label)], (90, 90), batch_size=200, **strength)
        areas.append((sampler.batch(0, 0)["label"] == 1).flatten(1).sum(1) / (24 * 26))
    turned, scaled = areas
    assert turned.min() > 0.93 and turned.max() < 1.07
    assert 0.7**2 - 0.06 < scaled.min() < 0.6
    assert 1.5 < scaled.max() < 1.3**2 + 0.06
