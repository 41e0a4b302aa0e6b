"""The field of view: found from the dark border of a picture, as the published masks of real ones say; read from a mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from r2seg.config import Preprocessing
from r2seg.data.field_of_view import find_field_of_view, read_field_of_view
from r2seg.data.images import Image, read_image, read_label_map
from r2seg.data.preprocessing import adjust_image, prepare_image
from r2seg.errors import UserError


def disc(shape: tuple[int, int], radius: float) -> np.ndarray:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return (rows - shape[0] / 2) ** 2 + (columns - shape[1] / 2) ** 2 < radius**2


def eye(shape=(300, 320), radius: float = 140.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A round field of 60 to 200 with dark spots in it, noise of a JPEG around it."""
    rng = np.random.default_rng(seed)
    inside = disc(shape, radius)
    bright = np.linspace(200, 60, shape[0])[:, None] + rng.normal(0, 5, shape)
    picture = np.where(inside, bright, rng.integers(0, 6, shape))
    picture[140:150, 100:130] = 2  # a dark spot is not outside
    picture[5:8, 5:30] = 90  # nor is a printed name in the corner inside
    return np.stack([picture, picture / 2, picture / 4]).astype(np.uint8), inside


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("size", [1, 4])
def test_the_field_of_a_round_picture_is_found_with_its_dark_spots_and_without_printed_names(size: int) -> None:
    array, inside = eye((300 * size, 320 * size), 140 * size)
    found = find_field_of_view(array)
    assert found is not None
    assert found.dtype == bool
    assert dice(found, inside) > 0.99
    assert np.array_equal(find_field_of_view(array), found)


def test_a_picture_without_a_dark_border_has_no_field() -> None:
    rng = np.random.default_rng(0)
    assert find_field_of_view(rng.integers(100, 200, (3, 60, 80), np.uint8)) is None
    assert find_field_of_view(np.zeros((3, 60, 80), np.uint8)) is None
    assert find_field_of_view(np.full((1, 5, 1), 7, np.uint8)) is None


@pytest.mark.real
def test_fields_of_real_photographs_are_those_of_their_published_masks(real_data: Path) -> None:
    files = sorted((real_data / "chase_db1").glob("*.jpg"))
    assert len(files) == 14
    for file in files:
        mask = read_label_map(real_data / "chase_db1" / "fov_mask" / f"{file.stem}.gif", {"field of view": 255}).array[
            0
        ]
        found = find_field_of_view(read_image(file).array)
        assert found is not None, file
        assert dice(found, mask > 0) >= 0.98, file


SETTINGS = {"intensity": {"kind": "zscore", "region": "field_of_view"}, "field_of_view": "find"}


def test_z_scores_inside_the_field_have_mean_0_and_outside_lies_the_mean() -> None:
    array, inside = eye()
    found = prepare_image(Image(array, None, Path("eye.png")), Preprocessing.model_validate(SETTINGS), inside)[:]
    for channel, values in zip(found.numpy(), array, strict=True):
        mean, deviation = values[inside].mean(), values[inside].std()
        np.testing.assert_allclose(channel[inside], (values[inside] - mean) / deviation, atol=1e-4)
        np.testing.assert_allclose(channel[~inside], 0, atol=0.5 / deviation)


def test_a_found_field_gives_what_the_same_field_gives_as_a_mask() -> None:
    image = Image(eye()[0], None, Path("eye.png"))
    settings = Preprocessing.model_validate(SETTINGS)
    found = find_field_of_view(image.array)
    assert (prepare_image(image, settings)[:] == prepare_image(image, settings, found)[:]).all()


def test_without_a_mask_a_region_that_needs_one_is_refused() -> None:
    settings = Preprocessing.model_validate({**SETTINGS, "field_of_view": "given"})
    with pytest.raises(
        UserError, match=r"eye\.png: has no mask, .* give masks, or set preprocessing\.field_of_view: find"
    ):
        adjust_image(Image(eye()[0], None, Path("eye.png")), settings)
    volume = Image(np.zeros((1, 3, 4, 5)), np.eye(4), Path("ct.nii"))
    with pytest.raises(UserError, match=r"ct\.nii: has no mask, .* give masks, or set region: nonzero"):
        adjust_image(volume, settings)


@pytest.mark.parametrize(
    "setting",
    [{"color": "grey"}, {"clahe": {}}, {"gamma": 1.2}, {"field_of_view": "find"}, {"resize": {"longest_side": 9}}],
)
def test_settings_of_pictures_are_refused_for_volumes(setting: dict) -> None:
    volume = Image(np.zeros((1, 3, 4, 5)), np.eye(4), Path("ct.nii"))
    with pytest.raises(
        UserError, match=rf"ct\.nii: is a volume, and preprocessing\.{next(iter(setting))} is for pictures"
    ):
        prepare_image(volume, Preprocessing.model_validate({**setting, "intensity": SETTINGS["intensity"]}))


def test_an_empty_mask_is_refused(tmp_path: Path) -> None:
    Picture.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "mask.png")
    image = Image(np.zeros((1, 4, 5), np.uint8), None, Path("eye.png"))
    with pytest.raises(UserError, match=r"mask\.png: the field of view is empty"):
        read_field_of_view(tmp_path / "mask.png", image)
