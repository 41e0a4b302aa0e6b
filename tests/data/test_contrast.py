"""Colour, CLAHE and gamma of pictures: values by hand, by Pillow and by scikit-image; types are kept."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture
from skimage.exposure import equalize_hist

from r2seg.config import Preprocessing
from r2seg.data.contrast import COLORS, apply_gamma, change_contrast, equalize
from r2seg.data.images import Image
from r2seg.errors import UserError


def picture(array: np.ndarray) -> Image:
    return Image(array, None, Path("eye.png"))


def changed(array: np.ndarray, **settings) -> np.ndarray:
    return change_contrast(picture(array), Preprocessing.model_validate(settings))


def colours(seed: int = 0, shape=(40, 50)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (3, *shape), np.uint8)


def test_grey_is_the_luma_that_pillow_computes() -> None:
    array = colours()
    expected = np.asarray(Picture.fromarray(array.transpose(1, 2, 0)).convert("L"))
    found = changed(array, color="grey")
    assert found.dtype == np.uint8
    assert found.shape == (1, 40, 50)
    assert np.abs(found[0].astype(int) - expected).max() <= 1  # Pillow's weights are rounded to 16 bits
    assert (found[0] == expected).mean() > 0.999
    assert changed(np.array([[[100]], [[50]], [[200]]], np.uint8), color="grey").item() == 82  # 29.9 + 29.35 + 22.8


def test_green_is_the_second_channel() -> None:
    array = colours()
    assert np.array_equal(changed(array, color="green"), array[1:2])


@pytest.mark.parametrize("color", COLORS)
def test_one_channel_stays_as_it_is_whatever_the_color(color: str) -> None:
    array = colours()[:1]
    assert np.array_equal(changed(array, color=color), array)


def test_a_grey_picture_in_three_channels_is_told(caplog: pytest.LogCaptureFixture) -> None:
    array = np.repeat(colours()[:1], 3, axis=0)
    with caplog.at_level(logging.INFO):
        assert np.array_equal(changed(array, color="grey"), array[:1])
    assert "eye.png: is grey already" in caplog.text


def test_channels_that_are_no_colours_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"eye\.png: has 2 channels, and preprocessing\.color: green is for colour pictures"
    ):
        changed(colours()[:2], color="green")


def test_gamma_is_the_formula_in_every_type() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    expected = 255 * (grey / 255) ** (1 / 1.2)
    assert np.array_equal(apply_gamma(grey, 1.2), np.rint(expected))
    np.testing.assert_allclose(apply_gamma((grey / 255).astype(np.float32), 1.2), expected / 255, rtol=1e-5)
    assert np.abs(apply_gamma(grey.astype(np.uint16) * 257, 1.2) - expected * 257).max() <= 0.51
    assert apply_gamma(grey, 1.2)[0, 4, 4] > grey[0, 4, 4]


def test_clahe_of_one_tile_without_a_cap_is_the_equalization_of_the_histogram() -> None:
    array = (np.random.default_rng(0).beta(2, 5, (1, 64, 64)) * 255).astype(np.uint8)
    found = equalize(array, 256.0, (1, 1))
    expected = equalize_hist(array[0], nbins=256)
    assert found.dtype == np.uint8
    # The libraries' functions differ in where the darkest bin goes.
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999


def test_a_lower_cap_raises_the_contrast_less() -> None:
    array = (100 + np.random.default_rng(0).normal(0, 3, (1, 256, 256))).astype(np.uint8)
    array[0, 0, :2] = (0, 255)  # so that the whole range is in use
    spreads = [equalize(array, clip, (8, 8))[0].std() for clip in (1.0, 2.0, 8.0)]
    assert array.std() < spreads[0] < spreads[1] < spreads[2]


def test_clahe_of_colours_keeps_their_hue() -> None:
    array = np.stack([channel // divisor for channel, divisor in zip([colours()[0]] * 3, (1, 2, 4), strict=True)])
    found = equalize(array, 2.0, (4, 4)).astype(float)
    bright = found[0] > 60
    np.testing.assert_allclose(found[1][bright] / found[0][bright], 0.5, atol=0.03)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_constant_picture_stays_constant(dtype) -> None:
    array = np.full((1, 16, 16), 1, dtype)
    assert np.array_equal(equalize(array, 2.0, (8, 8)), array)
