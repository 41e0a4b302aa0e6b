"""The image as the network sees it: any part of it equals that part of the whole, whatever the file's type."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from r2seg.config import Preprocessing
from r2seg.data.images import IGNORE, Image
from r2seg.data.preprocessing import PreparedImage, SliceStack, outside_to_ignore, prepare_image


def affine_of(orientation: str, spacing=(1.0, 2.0, 3.0), shape=(4, 5, 6)) -> np.ndarray:
    """Affine of a file in this orientation, whose voxels in RAS order have ``spacing`` and whose corner is at (10, 20, 30)."""
    ras = np.diag([*spacing, 1.0])
    ras[:3, 3] = (10, 20, 30)
    back = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(orientation))
    return ras @ inv_ornt_aff(back, shape)


def prepared(spacing_mm=None, dtype=np.int16, channels: int = 2) -> PreparedImage:
    array = (np.random.default_rng(0).uniform(0, 200, (channels, 6, 9, 7))).astype(dtype)
    image = Image(array, affine_of("LSP", shape=(6, 7, 9)), path=None)
    settings = Preprocessing.model_validate({"spacing_mm": spacing_mm, "intensity": {"kind": "zscore"}})
    return prepare_image(image, settings)


@pytest.mark.parametrize("spacing_mm", [None, [1, 1, 1], [1, 2.7, 5], [1.5, 2, 1]])
def test_any_slice_equals_that_slice_of_the_whole(spacing_mm) -> None:
    image = prepared(spacing_mm)
    whole = image[:]
    assert whole.shape == image.shape
    assert whole.dtype is torch.float32
    rng = np.random.default_rng(3)
    for _ in range(60):
        parts = tuple(slice(*(int(n) for n in rng.integers(-size - 2, size + 3, 2))) for size in image.shape)
        parts = tuple(slice(None) if rng.random() < 0.3 else part for part in parts)[: rng.integers(1, 5)]
        assert torch.equal(image[parts], whole[parts]), parts


def test_channels_keep_their_own_intensities() -> None:
    image = prepared()
    assert torch.equal(image[1:2], image[:][1:2])
    assert torch.equal(image[:1], image[:][:1])


@pytest.mark.parametrize("index", [0, (0,), slice(None, None, 2), (slice(None), 3), (slice(None),) * 5, None, ...])
def test_what_cannot_be_cut_is_refused(index) -> None:
    with pytest.raises(IndexError, match="is cut by slices of step 1"):
        prepared()[index]


@pytest.mark.parametrize(
    "dtype",
    [">i2", ">f4", ">f8", "uint8", "int8", "uint16", ">u2", "uint32", "int32", "int64", "uint64", "float16", "float64"],
)
@pytest.mark.parametrize("spacing_mm", [None, [2, 2, 2]])
def test_every_type_of_voxel_gives_the_same_image(dtype: str, spacing_mm) -> None:
    whole = np.arange(48).reshape(1, 4, 3, 4)
    settings = Preprocessing.model_validate(
        {"spacing_mm": spacing_mm, "intensity": {"kind": "hu_window", "low": 0, "high": 47}}
    )
    found, expected = (
        prepare_image(Image(whole.astype(each), np.eye(4), path=None), settings)[:] for each in (dtype, "float32")
    )
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_a_memory_mapped_volume_is_read_only_where_it_is_looked_at(tmp_path) -> None:
    path = tmp_path / "v.npy"
    np.save(path, np.random.default_rng(0).integers(0, 9, (1, 6, 5, 4)).astype(np.int16))
    mapped = np.load(path, mmap_mode="r")
    image = prepare_image(Image(mapped, np.diag([-1.0, -1, 1, 1]), path=path), Preprocessing())
    assert np.shares_memory(image.oriented, mapped)
    assert torch.isfinite(image[:, 2:3]).all()


def test_outside_the_field_of_view_everything_is_ignored() -> None:
    indices = np.array([[0, 1], [2, IGNORE]], np.uint8)
    mask = np.array([[1, 0], [255, 1]], np.uint8)
    assert outside_to_ignore(indices, mask).tolist() == [[0, IGNORE], [2, IGNORE]]
    assert outside_to_ignore(indices, mask).dtype == np.uint8
    assert outside_to_ignore(indices, None) is indices


def resized(array: np.ndarray, **resize) -> PreparedImage:
    top = float(np.iinfo(array.dtype).max)
    settings = {"resize": resize, "intensity": {"kind": "hu_window", "low": 0, "high": top}}
    return prepare_image(Image(array, None, path=None), Preprocessing.model_validate(settings))


@pytest.mark.parametrize("size", [(7, 9), (30, 11), (13, 40), (45, 50)])
def test_a_resized_picture_is_that_of_torch(size: tuple[int, int]) -> None:
    array = np.random.default_rng(0).integers(0, 256, (3, 21, 26), np.uint8)
    expected = F.interpolate(
        torch.from_numpy(array / 255).float()[None], size, mode="bilinear", antialias=True, align_corners=False
    )[0]
    torch.testing.assert_close(resized(array, size=list(size))[:], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("resize", "shape"),
    [
        ({"size": [50, 60]}, (50, 60)),
        ({"size": [50, 60], "keep_aspect": True}, (30, 60)),
        ({"size": [20, 200], "keep_aspect": True}, (20, 40)),
        ({"longest_side": 40}, (20, 40)),
        ({"longest_side": 1}, (1, 1)),
        ({"longest_side": 200}, (100, 200)),
    ],
)
def test_the_size_of_a_picture_follows_from_the_setting(resize: dict, shape: tuple[int, int]) -> None:
    assert resized(np.zeros((1, 50, 100), np.uint8), **resize).shape == (1, *shape)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("neighbours", [1, 2, 20])
def test_slices_come_with_their_neighbours_and_the_outermost_one_is_repeated(axis: int, neighbours: int) -> None:
    image = prepared([1.5, 2, 1])
    whole, stack = image[:], SliceStack(image, axis, neighbours)
    length = whole.shape[1 + axis]
    assert stack.shape == ((2 * neighbours + 1) * 2, *whole.shape[1:])
    found = torch.cat(
        [stack[(slice(None), *(slice(None),) * axis, slice(first, first + 2))] for first in range(0, length, 2)],
        1 + axis,
    )
    for index in range(length):
        expected = [
            whole.select(1 + axis, min(max(index + o, 0), length - 1)) for o in range(-neighbours, neighbours + 1)
        ]
        assert torch.equal(found.select(1 + axis, index), torch.cat(expected))
