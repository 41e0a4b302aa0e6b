"""Pictures of cases: which way is up, the true aspect, and contours where the labels are."""

from __future__ import annotations

import base64
import io
import itertools

import numpy as np
import pytest
from image_files import ORIENTATIONS, affine_of
from PIL import Image as Picture

from r2seg.data.images import Image
from r2seg.pictures.charts import histogram
from r2seg.pictures.contact_sheet import LONGEST, tile_of
from r2seg.pictures.contours import contour_pixels
from r2seg.pictures.views import View


def pixels(address: str) -> np.ndarray:
    return np.asarray(Picture.open(io.BytesIO(base64.b64decode(address.split(",")[1]))).convert("RGB"))


def volume(affine: np.ndarray, shape=(4, 5, 6)) -> Image:
    return Image(np.arange(np.prod(shape), dtype=np.int16).reshape(1, *shape), affine, "x.nii")


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("rotation", ORIENTATIONS[::7], ids=lambda rotation: str(rotation.astype(int).tolist()))
def test_slices_have_the_patients_right_on_the_left_and_head_or_front_up(rotation: np.ndarray, plane: str) -> None:
    image = volume(affine_of(rotation))
    view = View.of(image.grid, plane)
    index = view.stack(image.array[0])
    where = {  # value -> world coordinates of its voxel
        int(image.array[0][voxel]): image.affine[:3, :3] @ voxel + image.affine[:3, 3]
        for voxel in itertools.product(*map(range, image.shape))
    }
    step = {
        "down": where[int(index[0, 1, 0])] - where[int(index[0, 0, 0])],
        "right": where[int(index[0, 0, 1])] - where[int(index[0, 0, 0])],
        "next": where[int(index[1, 0, 0])] - where[int(index[0, 0, 0])],
    }
    signs = {name: np.sign(np.round(each, 6)).tolist() for name, each in step.items()}
    assert (
        signs
        == {
            "axial": {"down": [0, -1, 0], "right": [-1, 0, 0], "next": [0, 0, 1]},
            "coronal": {"down": [0, 0, -1], "right": [-1, 0, 0], "next": [0, 1, 0]},
            "sagittal": {"down": [0, 0, -1], "right": [0, 1, 0], "next": [1, 0, 0]},
        }[plane]
    )
    assert view.pixel_mm == pytest.approx((np.linalg.norm(step["down"]), np.linalg.norm(step["right"])))


def test_a_tile_shows_the_slice_with_the_most_labelled_voxels_in_its_true_aspect() -> None:
    image = Image(np.zeros((1, 40, 80, 5), np.int16), np.diag([2.0, 1.0, 3.0, 1.0]), "x.nii")
    indices = np.zeros((40, 80, 5), np.uint8)
    indices[5:30, 20:60, 3] = 1
    indices[5:9, 20:60, 2] = 1
    indices[:, :, 1] = 255
    tile = tile_of(image, indices, ["#ff0000"])
    assert tile.place == "axial slice 4 of 5"
    assert tile.size == (80, 80), "80 x 1 mm high and 40 x 2 mm wide"
    labels = pixels(tile.labels)
    red = np.argwhere((labels == (255, 0, 0)).all(axis=-1))
    # Anterior is up: rows 80 - 60 to 80 - 20; right is left: columns 2 * (40 - 30) to 2 * (40 - 5).
    assert (red.min(axis=0).tolist(), red.max(axis=0).tolist()) == ([20, 20], [59, 69])


def test_a_large_picture_becomes_a_small_tile_in_colour() -> None:
    array = np.zeros((3, 600, 900), np.uint8)
    array[0] = 200
    tile = tile_of(Image(array, None, "x.png"), None, [])
    assert (tile.size, tile.labels, tile.place) == ((171, LONGEST), None, "")
    assert np.abs(pixels(tile.image).mean(axis=(0, 1)) - (200, 0, 0)).max() < 4


def test_a_window_decides_what_is_black_and_white() -> None:
    image = Image(np.linspace(-1000, 3000, 64 * 64).reshape(1, 64, 64).astype(np.float32), None, "x.npy")
    grey = pixels(tile_of(image, None, [], (-1000, 0)).image)[..., 0]
    assert grey[0, 0] < 10 and grey[20, 0] > 245
    assert pixels(tile_of(image, None, []).image)[20, 0, 0] < 128


def test_contours_are_borders_of_thick_labels_and_fill_thin_ones() -> None:
    thick = np.zeros((100, 100), np.uint8)
    thick[20:80, 20:80] = 2
    drawn = contour_pixels(thick, 2, (100, 100))
    assert (drawn[20:22, 20:80] == 2).all() and (drawn[22:78, 22:78] == 0).all()
    assert (drawn[19, 20:80] == 3).all() and (drawn[:19] == 0).all(), "a casing of one pixel"
    thin = np.zeros((100, 100), np.uint8)
    thin[50, 10:90] = 1
    drawn = contour_pixels(thin, 2, (50, 50))
    assert (drawn[25, 5:45] == 1).all() and (drawn == 1).sum() == 40, (
        "a vessel of one pixel stays when it is shown half as large"
    )
    assert not contour_pixels(np.full((9, 9), 255, np.uint8), 2, (9, 9)).any(), "ignored pixels are not drawn"


def test_contours_of_overlapping_labels_are_drawn_for_each_label() -> None:
    bits = np.zeros((30, 30), np.uint8)
    bits[5:25, 5:25] |= 1
    bits[10:20, 10:20] |= 2  # within label 1
    drawn = contour_pixels(bits, 2, (30, 30), overlapping=True)
    assert drawn[5, 15] == 1 and drawn[10, 15] == 2
    assert drawn[5, 5] == 1, "the outer border is that of the whole square"


def test_a_histogram_names_what_it_shows_and_escapes_it() -> None:
    svg = histogram({"train": [0.25, 0.75]}, [0, 5, 10], {"train": "#000000"}, 'a "title" <x>')
    assert 'aria-label="a &quot;title&quot; &lt;x&gt;"' in svg
    assert svg.count("<path") == 1 and ">10</text>" in svg
