"""The way to the working grid and back: orientation and resampling; parts equal the whole."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from r2seg.data.geometry import WorkingGrid, resample, resample_indices, unresample
from r2seg.data.images import IGNORE

ORIENTATIONS = [
    "".join(codes) for axes in itertools.permutations(("LR", "PA", "IS")) for codes in itertools.product(*axes)
]
RESAMPLED = [
    ((6, 5, 7), (9, 5, 3)),
    ((6, 5, 7), (4, 11, 7)),
    ((1, 4, 3), (5, 1, 1)),
    ((5, 8, 6), (1, 1, 1)),
    ((7, 6, 5), (6, 7, 11)),
]


def affine_of(orientation: str, spacing=(1.0, 2.0, 3.0), shape=(4, 5, 6)) -> np.ndarray:
    """Affine of a file in this orientation, whose voxels in RAS order have ``spacing`` and whose corner is at (10, 20, 30)."""
    ras = np.diag([*spacing, 1.0])
    ras[:3, 3] = (10, 20, 30)
    back = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(orientation))
    return ras @ inv_ornt_aff(back, shape)


def grid_of(old: tuple[int, ...], new: tuple[int, ...]) -> WorkingGrid:
    return WorkingGrid((0, 1, 2), (False,) * 3, old, new)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# orientation


def test_there_are_48_orientations() -> None:
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_working_grid_is_ras_and_the_way_back_is_exact(orientation: str) -> None:
    array = np.random.default_rng(0).integers(0, 99, (4, 5, 6)).astype(np.int16)
    affine = affine_of(orientation, shape=(4, 5, 6))
    assert "".join(nib.aff2axcodes(affine)) == orientation
    grid = WorkingGrid.of(array.shape, affine)
    canonical = nib.as_closest_canonical(nib.Nifti1Image(array, affine))
    assert np.array_equal(grid.orient(array), np.asarray(canonical.dataobj))
    assert grid.shape == grid.oriented_shape == canonical.shape
    assert np.array_equal(grid.restore_orientation(grid.orient(array)), array)
    with_channels = np.stack([array, array + 1])
    assert np.array_equal(grid.restore_orientation(grid.orient(with_channels)), with_channels)
    assert np.shares_memory(grid.orient(array), array)


def test_oblique_and_sheared_volumes_go_to_the_closest_axes_as_in_nibabel() -> None:
    rng = np.random.default_rng(1)
    array = np.arange(4 * 5 * 6).reshape(4, 5, 6).astype(np.int16)
    for index in range(200):
        affine = affine_of(ORIENTATIONS[index % 48])
        affine[:3, :3] = (np.eye(3) + rng.uniform(-0.45, 0.45, (3, 3))) @ affine[:3, :3]
        canonical = nib.as_closest_canonical(nib.Nifti1Image(array, affine))
        grid = WorkingGrid.of(array.shape, affine)
        assert np.array_equal(grid.orient(array), np.asarray(canonical.dataobj))
        assert np.array_equal(grid.restore_orientation(grid.orient(array)), array)


def test_pictures_keep_their_grid() -> None:
    array = noise(3, 4, 5)
    grid = WorkingGrid.of((4, 5), None, spacing_mm=(1, 1, 1))
    assert np.array_equal(grid.orient(array), array)
    assert np.array_equal(grid.restore_orientation(array), array)
    assert not grid.resampled


# spacing


def test_spacing_is_given_in_the_order_r_a_s_whatever_the_file() -> None:
    for orientation in ORIENTATIONS:
        affine = affine_of(orientation, spacing=(1, 2, 3), shape=(10, 10, 10))
        grid = WorkingGrid.of((10, 10, 10), affine, spacing_mm=(2, 2, 1))
        assert grid.shape == (5, 10, 30)
        assert grid.oriented_shape == (10, 10, 10)


def test_a_spacing_that_is_nearly_the_own_one_resamples_nothing() -> None:
    assert not WorkingGrid.of((100, 100, 100), np.diag([1.0004, 1, 0.9996, 1]), spacing_mm=(1, 1, 1)).resampled


def test_no_axis_shrinks_to_nothing() -> None:
    assert WorkingGrid.of((3, 3, 3), np.eye(4), spacing_mm=(100, 1, 1)).shape == (1, 3, 3)


@pytest.mark.parametrize(("old", "new"), [(5, 9), (9, 5), (7, 2), (10, 10), (1, 4), (4, 1), (12, 11), (3, 12), (64, 5)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_resampling_an_axis_is_that_of_torch(old: int, new: int, axis: int) -> None:
    shape = [3, 4, 5]
    shape[axis] = old
    wanted = [3, 4, 5]
    wanted[axis] = new
    array = noise(2, *shape)
    found = resample(array, grid_of(tuple(shape), tuple(wanted)))
    # torch resizes with antialiasing in two axes only: the other two are joined to one that stays.
    lines = torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, 1 + axis, -1))).reshape(1, 1, -1, old)
    expected = F.interpolate(
        lines, size=(lines.shape[2], new), mode="bilinear", align_corners=False, antialias=new < old
    )
    others = [size for each, size in enumerate(shape) if each != axis]
    expected = np.moveaxis(expected.numpy().reshape(2, *others, new), -1, 1 + axis)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_growing_all_three_axes_is_trilinear_interpolation() -> None:
    array = noise(2, 4, 5, 6)
    expected = F.interpolate(torch.from_numpy(array)[None], size=(7, 9, 13), mode="trilinear", align_corners=False)[0]
    found = resample(array, grid_of((4, 5, 6), (7, 9, 13)))
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(("old", "new"), RESAMPLED)
def test_any_part_of_the_working_grid_equals_that_part_of_the_whole_exactly(old, new) -> None:
    array, grid = noise(2, *old), grid_of(old, new)
    whole = resample(array, grid)
    assert whole.shape == (2, *new)
    rng = np.random.default_rng(2)
    for axis, size in enumerate(new):
        for start in range(size):
            bounds = [(0, each) for each in new]
            bounds[axis] = (start, start + 1)
            slab = resample(array, grid, bounds)
            assert np.array_equal(slab, whole.take([start], axis=1 + axis))
    for _ in range(20):
        bounds = [sorted(rng.integers(0, size + 1, 2)) for size in new]
        box = resample(array, grid, bounds)
        assert np.array_equal(box, whole[(slice(None), *(slice(*each) for each in bounds))])


@pytest.mark.parametrize(("old", "new"), RESAMPLED)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_way_back_slab_by_slab_equals_the_way_back_at_once(old, new, axis: int) -> None:
    grid = grid_of(old, new)
    working = torch.from_numpy(noise(2, *new))
    ((_, whole),) = unresample([(slice(0, new[axis]), working)], grid, axis)
    expected = resample(working.numpy(), grid_of(new, old))
    np.testing.assert_allclose(whole.numpy(), expected, atol=1e-5)
    rng = np.random.default_rng(axis)
    for _ in range(8):
        cuts = (
            [0, *sorted(rng.choice(np.arange(1, new[axis]), rng.integers(0, new[axis]), replace=False)), new[axis]]
            if new[axis] > 1
            else [0, 1]
        )
        slabs = [
            (slice(int(a), int(b)), working.narrow(1 + axis, int(a), int(b - a))) for a, b in itertools.pairwise(cuts)
        ]
        found = list(unresample(slabs, grid, axis))
        assert [part.start for part, _ in found] == [0, *(part.stop for part, _ in found[:-1])]
        assert found[-1][0].stop == old[axis]
        torch.testing.assert_close(torch.cat([slab for _, slab in found], dim=1 + axis), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("old", "new"), RESAMPLED)
def test_the_order_of_an_array_in_memory_changes_nothing(old, new) -> None:
    array, grid = (noise(2, *old) * 100).astype(np.int16), grid_of(old, new)
    expected = resample(array, grid)
    for order in itertools.permutations(range(4)):
        stored = np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))
        assert np.array_equal(resample(stored, grid), expected)
        assert np.array_equal(resample(stored[..., ::-1], grid), resample(array[..., ::-1].copy(), grid))


@pytest.mark.parametrize(("old", "new"), RESAMPLED)
def test_labels_in_a_corner_are_resampled_as_if_all_was_looked_at(old, new) -> None:
    grid = grid_of(old, new)
    for index, corner in itertools.product((1, IGNORE), itertools.product((0, -1), repeat=3)):
        label = np.zeros(old, np.uint8)
        label[corner] = index
        shares = [resample((label == each)[None], grid)[0] for each in (0, index)]
        assert np.array_equal(resample_indices(label, grid), np.array([0, index], np.uint8)[np.argmax(shares, axis=0)])
    assert not resample_indices(np.zeros(old, np.uint8), grid).any()


def test_the_way_back_holds_no_more_slabs_than_it_needs() -> None:
    grid = grid_of((4, 4, 100), (4, 4, 50))
    seen = 0

    def slabs():
        nonlocal seen
        for index in range(50):
            seen += 1
            yield slice(index, index + 1), torch.zeros(1, 4, 4, 1)

    for part, _ in unresample(slabs(), grid, 2):
        assert seen <= part.stop / 2 + 2


def test_the_way_back_is_in_float32_under_autocast() -> None:
    grid = grid_of((8, 8, 8), (5, 5, 5))
    logits = torch.rand(2, 5, 5, 5)
    ((_, expected),) = unresample([(slice(0, 5), logits)], grid, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ((_, found),) = unresample([(slice(0, 5), logits)], grid, 2)
        ((_, from_bf16),) = unresample([(slice(0, 5), logits.bfloat16())], grid, 2)
    assert torch.equal(found, expected)
    assert from_bf16.dtype is torch.float32


def test_without_resampling_slabs_pass_through() -> None:
    slabs = [(slice(0, 3), torch.zeros(1, 4, 4, 3))]
    assert list(unresample(slabs, grid_of((4, 4, 3), (4, 4, 3)), 2)) == slabs


@pytest.mark.parametrize("new", [(60, 48, 80), (30, 20, 28), (23, 61, 39)])
def test_a_smooth_volume_survives_the_round_trip(new) -> None:
    old = (40, 36, 44)
    axes = np.meshgrid(*((np.arange(size) + 0.5) / size for size in old), indexing="ij")
    smooth = sum(np.sin(2 * np.pi * axis + phase) for phase, axis in enumerate(axes)).astype(np.float32)[None]
    grid = grid_of(old, new)
    working = torch.from_numpy(resample(smooth, grid))
    ((_, back),) = unresample([(slice(0, new[1]), working)], grid, 1)
    assert np.abs(back.numpy() - smooth)[:, 2:-2, 2:-2, 2:-2].max() < 0.08
    assert np.abs(back.numpy() - smooth).mean() < 0.02


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SLA", "AIR"])
@pytest.mark.parametrize("wanted", [(1.0, 1.0, 1.0), (2.5, 1.3, 5.0), (0.7, 4.0, 2.0)])
def test_a_blob_stays_at_its_place_in_millimetres(orientation: str, wanted) -> None:
    spacing, shape = (1.0, 2.0, 3.0), (60, 34, 30)
    ras = np.indices(shape).astype(np.float64)
    centre_mm = np.array([25.3, 31.1, 46.7])
    distance = sum(((axis * s - c) / 8) ** 2 for axis, s, c in zip(ras, spacing, centre_mm, strict=True))
    blob_ras = np.exp(-distance).astype(np.float32)
    order = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(orientation))
    file = nib.orientations.apply_orientation(blob_ras, order)
    grid = WorkingGrid.of(file.shape, affine_of(orientation, spacing, shape), wanted)
    working = resample(grid.orient(file)[None], grid)[0]
    assert working.shape != shape
    # Voxel i of a working axis covers [i, i + 1) / n of the extent, which starts half a voxel before the first centre.
    for axis in range(3):
        extent = shape[axis] * spacing[axis]
        profile = working.sum(tuple(each for each in range(3) if each != axis), dtype=np.float64)
        places = (np.arange(len(profile)) + 0.5) * extent / len(profile) - spacing[axis] / 2
        assert (profile * places).sum() / profile.sum() == pytest.approx(centre_mm[axis], abs=0.1)


def test_labels_take_the_class_with_the_largest_share() -> None:
    labels = np.zeros((4, 4, 6), np.uint8)
    labels[:, :, 2:4] = 1
    labels[:, :, 4:] = IGNORE
    assert resample_indices(labels, grid_of((4, 4, 6), (4, 4, 3)))[0, 0].tolist() == [0, 1, IGNORE]
    grown = resample_indices(labels, grid_of((4, 4, 6), (8, 4, 12)))
    assert grown.dtype == np.uint8
    assert grown[0, 0].tolist() == [0] * 4 + [1] * 4 + [IGNORE] * 4
    assert resample_indices(labels, grid_of((4, 4, 6), (4, 4, 6))) is labels


def test_resampled_labels_keep_their_volume_and_values() -> None:
    axes = np.ogrid[:40, :40, :20]
    ball = (
        sum(((axis - size / 2) / (0.35 * size)) ** 2 for axis, size in zip(axes, (40, 40, 20), strict=True)) < 1
    ) * np.uint8(3)
    for new in ((60, 50, 30), (25, 25, 15)):
        found = resample_indices(ball.astype(np.uint8), grid_of((40, 40, 20), new))
        assert set(np.unique(found)) == {0, 3}
        assert (found == 3).mean() == pytest.approx((ball == 3).mean(), rel=0.06)
