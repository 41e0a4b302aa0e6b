"""Intensity maps: each kind's two ends, one map per channel, and what a constant image gives."""

from __future__ import annotations

from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch

from r2seg.config import Preprocessing
from r2seg.data.geometry import WorkingGrid
from r2seg.data.intensity import INTENSITIES, Intensity, measure_intensity
from r2seg.data.preprocessing import PreparedImage
from r2seg.errors import UserError


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def measure(array: np.ndarray, **intensity) -> Intensity:
    return measure_intensity(array, Preprocessing.model_validate({"intensity": intensity}))


def test_a_hu_window_maps_its_ends_to_zero_and_one() -> None:
    array = np.array([[[-2000, -1000, -300, 400, 3000]]], np.int16)
    found = measure(array, kind="hu_window", low=-1000, high=400)(torch.from_numpy(array))
    torch.testing.assert_close(found, torch.tensor([[[0, 0, 0.5, 1, 1]]]))
    assert found.dtype is torch.float32


def test_percentiles_are_those_of_each_channel() -> None:
    array = np.stack([np.arange(101), 1000 - 10 * np.arange(101)]).reshape(2, 1, 101).astype(np.int16)
    found = measure(array, kind="percentile", low=10, high=90)(torch.from_numpy(array))
    torch.testing.assert_close(found[0, 0], ((torch.arange(101.0) - 10) / 80).clamp(0, 1))
    torch.testing.assert_close(found[1, 0], ((90 - torch.arange(101.0)) / 80).clamp(0, 1))


def test_percentiles_of_a_large_volume_are_estimated_closely() -> None:
    array = np.random.default_rng(0).normal(size=(1, 200, 200, 151)).astype(np.float32)
    exact = np.percentile(array, (0.5, 99.5))
    for ordered in (array, np.asfortranarray(array)):
        intensity = measure(ordered, kind="percentile")
        np.testing.assert_allclose((intensity.low[0], intensity.high[0]), exact, atol=0.02)


def test_zscore_makes_each_channel_mean_zero_and_deviation_one() -> None:
    array = (noise(2, 6, 7, 8) * 50 + np.array([1000, -300]).reshape(2, 1, 1, 1)).astype(np.int16)
    intensity = measure(array, kind="zscore")
    np.testing.assert_allclose(intensity.shift, array.mean((1, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(intensity.factor, 1 / array.std((1, 2, 3)), rtol=1e-12)
    found = intensity(torch.from_numpy(array))
    torch.testing.assert_close(found.mean((1, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std((1, 2, 3), correction=0), torch.ones(2))


def test_zscore_of_the_voxels_that_are_not_zero_is_that_of_each_channel() -> None:
    array = np.array([[[0, 0, 2, 4]], [[0, -1, -1, -4]]], np.int16)
    intensity = measure(array, kind="zscore", region="nonzero")
    assert intensity.shift == (3.0, -2.0)
    np.testing.assert_allclose(intensity.factor, (1.0, 1 / 2**0.5))
    found = intensity(torch.from_numpy(array))
    torch.testing.assert_close(found[0], torch.tensor([[-3.0, -3, -1, 1]]))  # the background is mapped too


def test_percentiles_of_a_region_are_of_its_values_alone() -> None:
    array = np.zeros((1, 2, 101), np.int16)
    array[0, 1] = np.arange(101) + 100
    for region in ("nonzero", "field_of_view"):
        settings = Preprocessing.model_validate(
            {"intensity": {"kind": "percentile", "low": 10, "high": 90, "region": region}}
        )
        intensity = measure_intensity(array, settings, np.array([[0] * 101, [1] * 101]))
        assert (intensity.low, intensity.high) == ((110.0,), (190.0,))


def test_a_region_without_voxels_is_the_image() -> None:
    assert measure(np.zeros((1, 3, 3)), kind="zscore", region="nonzero").shift == (0.0,)


def test_zscore_of_large_integers_does_not_overflow() -> None:
    array = np.full((1, 300, 300), 65535, np.uint16)
    array[0, :150] = 65533
    intensity = measure(array, kind="zscore")
    assert (intensity.shift, intensity.factor) == ((65534.0,), (1.0,))


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535), (np.int16, 32767), (np.float32, 1.0)])
def test_unit_maps_the_whole_range_of_the_type(dtype, top) -> None:
    array = np.array([[[0, top, top // 5 if top > 1 else 0.2]]], dtype)
    found = PreparedImage(array, WorkingGrid.of((1, 3), None), measure(array, kind="unit"))[:]
    torch.testing.assert_close(found, torch.tensor([[[0.0, 1.0, 0.2]]]), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "kind", [{"kind": "zscore"}, {"kind": "percentile"}, {"kind": "unit"}, {"kind": "hu_window", "low": 0, "high": 9}]
)
def test_a_constant_image_stays_finite(kind) -> None:
    array = np.full((1, 4, 4), 7, np.uint8)
    found = measure(array, **kind)(torch.from_numpy(array))
    assert torch.isfinite(found).all()
    if kind["kind"] in ("zscore", "percentile"):
        assert found.abs().max() == 0


def test_the_map_leaves_its_input_alone() -> None:
    values = torch.arange(6.0).view(1, 2, 3)
    measure(values.numpy(), kind="zscore")(values)
    assert torch.equal(values, torch.arange(6.0).view(1, 2, 3))


def test_the_kinds_are_those_that_a_config_may_name() -> None:
    sections = get_args(Preprocessing.model_fields["intensity"].annotation)
    kinds = [kind for section in sections for kind in get_args(section.model_fields["kind"].annotation)]
    assert len(kinds) >= 4
    assert sorted(kinds) == sorted(INTENSITIES)


def test_an_unknown_kind_is_refused() -> None:
    settings = Preprocessing.model_construct(intensity=SimpleNamespace(kind="median"))
    with pytest.raises(UserError, match="'median', which is unknown: give one of hu_window, percentile, zscore, unit"):
        measure_intensity(np.zeros((1, 2, 2)), settings)
