"""Masks in every encoding as class indices."""

import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from image_files import LUNG, MASK, PICTURE, RNG, save_nifti
from PIL import Image as Pillow

from r2seg.data.images import (
    IGNORE,
    ImageError,
    read_image,
    read_label_map,
    write_label_map,
)
from r2seg.data.images.mask_values import values_in


def encodings(folder: Path) -> dict[str, Path]:
    """The same mask as tools write it."""
    paths = {}

    def add(name: str, picture: Pillow.Image | None = None, **options) -> Path:
        paths[name] = folder / name
        if picture is not None:
            picture.save(folder / name, **options)
        return folder / name

    add("zero_one.png", Pillow.fromarray(MASK))
    add("zero_255.png", Pillow.fromarray(MASK * 255))
    add("zero_255.tif", Pillow.fromarray(MASK * 255), compression="tiff_lzw")
    add("bit.png", Pillow.fromarray(MASK.astype(bool)))
    add("bit.tif", Pillow.fromarray(MASK.astype(bool)))
    add("bit.bmp", Pillow.fromarray(MASK.astype(bool)))
    add("grey.gif", Pillow.fromarray(MASK * 255))
    add("grey.bmp", Pillow.fromarray(MASK * 255))
    add("copies.png", Pillow.fromarray(np.dstack([MASK * 255] * 3)))
    add("copies.ppm", Pillow.fromarray(np.dstack([MASK * 255] * 3)))
    add("opaque.png", Pillow.fromarray(np.dstack([MASK * 255] * 3 + [np.full_like(MASK, 255)])))
    for name, colours in {
        "index.png": [0, 0, 0, 200, 30, 30],
        "index.gif": [0, 0, 0, 128, 0, 0],
        "index.tif": [0, 0, 0, 0, 128, 0],
        "palette_greys.gif": [0, 0, 0, 255, 255, 255],
        "palette_greys.png": [0, 0, 0, 1, 1, 1],
    }.items():
        picture = Pillow.fromarray(MASK)
        picture.putpalette(colours + [9, 8, 7] * 254)
        add(name, picture)
    inverted = Pillow.fromarray(1 - MASK)
    inverted.putpalette([255, 255, 255, 0, 0, 0] + [9, 8, 7] * 254)
    add("inverted_palette.gif", inverted)
    tifffile.imwrite(add("min_is_white.tif"), 255 - MASK * 255, photometric="miniswhite")
    np.save(add("bool.npy"), MASK.astype(bool))
    np.save(add("float.npy"), MASK.astype(np.float32))
    add("maximum_1.pgm").write_bytes(b"P5\n30 20\n1\n" + MASK.tobytes())
    add("white_is_label.pbm").write_bytes(b"P4\n30 20\n" + np.packbits(1 - MASK, axis=1).tobytes())
    return paths


def test_every_encoding_of_a_mask_is_the_same_label(tmp_path):
    paths = encodings(tmp_path)
    assert len(paths) > 20
    for labels in (LUNG, {"lung": 255}):
        for name, path in paths.items():
            read = read_label_map(path, labels)
            assert read.array.dtype == np.uint8
            np.testing.assert_array_equal(read.array, MASK[None], err_msg=f"{name} with {labels}")


def vessels() -> np.ndarray:
    """Curves of one to five pixels' width, as an eye's."""
    rows, columns = np.mgrid[:240, :320]
    mask = np.zeros((240, 320), np.uint8)
    for k in range(1, 9):
        mask |= np.abs(rows - 28 * k - 14 * np.sin(columns / (9 + 4 * k))) < 0.4 + 0.3 * k
    return mask


def test_masks_smeared_by_jpeg_or_by_resizing_are_cut_at_half(tmp_path):
    rows, columns = np.mgrid[:96, :128]
    disc = (np.hypot(rows - 50, columns - 60) < 30).astype(np.uint8)
    for mask, quality in itertools.product((disc, vessels()), (95, 75, 50)):
        Pillow.fromarray(mask * 255).save(tmp_path / "a.jpg", quality=quality)
        smeared = np.asarray(Pillow.open(tmp_path / "a.jpg"))
        Pillow.fromarray(smeared).save(tmp_path / "a.png")
        Pillow.fromarray(np.dstack([mask * 255] * 3)).save(tmp_path / "b.jpg", quality=quality)
        for name in ("a.jpg", "a.png", "b.jpg"):
            for labels in (LUNG, {"lung": 255}):
                read = read_label_map(tmp_path / name, labels).array[0]
                np.testing.assert_array_equal(read, smeared >= 128)
                assert (read != mask).mean() < 0.003
    small = np.asarray(Pillow.fromarray(disc * 255).resize((64, 48), Pillow.BICUBIC))
    Pillow.fromarray(small).save(tmp_path / "c.png")
    np.testing.assert_array_equal(read_label_map(tmp_path / "c.png", LUNG).array[0], small >= 128)


@pytest.mark.parametrize("values", [range(21), [*range(21), 255], [0, *range(1, 256)], [0, 40, 80, 120, 160, 200, 255]])
def test_many_labels_with_one_declared_are_not_a_smeared_mask(tmp_path, values):
    """As a map of organs or of single cells, mostly background."""
    array = np.zeros((200, 300), np.uint8)
    array.ravel()[:6000] = np.resize(list(values), 6000)
    for name in ("a.png", "a.tif"):
        Pillow.fromarray(array).save(tmp_path / name)
        with pytest.raises(ImageError, match="undeclared label values"):
            read_label_map(tmp_path / name, LUNG)
    Pillow.fromarray(np.repeat(np.repeat(array.clip(0, 20), 8, 0), 8, 1)).save(tmp_path / "a.jpg", quality=95)
    with pytest.raises(ImageError, match="undeclared label values"):
        read_label_map(tmp_path / "a.jpg", LUNG)


def test_a_photograph_is_not_a_smeared_mask(tmp_path):
    grey = (np.linspace(0, 255, 96)[:, None] + RNG.normal(0, 20, (96, 128))).clip(0, 255).astype(np.uint8)
    for name in ("a.jpg", "a.png"):
        Pillow.fromarray(grey).save(tmp_path / name)
        with pytest.raises(
            ImageError, match=r"undeclared label values .* and \d+ more; declared: background 0, lung 1"
        ):
            read_label_map(tmp_path / name, LUNG)


def test_several_labels_several_values_and_ignored_pixels(tmp_path):
    values = RNG.choice([0, 2, 3, 7, 255], (20, 30)).astype(np.uint8)
    labels = {"edema": 7, "tumour": [2, 3]}
    expected = np.select([values == 7, np.isin(values, [2, 3]), values == 255], [1, 2, IGNORE], 0)
    Pillow.fromarray(values).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", values.astype(np.int64))
    np.save(tmp_path / "b.npy", values.astype(np.float64))
    nibabel.save(nibabel.Nifti1Image(values.astype(np.int16)[..., None], np.eye(4)), tmp_path / "a.nii.gz")
    for name in ("a.png", "a.npy", "b.npy"):
        np.testing.assert_array_equal(read_label_map(tmp_path / name, labels, ignore_label=255).array[0], expected)
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.nii.gz", labels, 255).array[0, ..., 0], expected)


@pytest.mark.parametrize(
    ("values", "labels", "ignored", "message"),
    [
        ([0, 1, 2], {"a": 1}, None, r"undeclared label values 2 \(200 pixels\); declared: background 0, a 1$"),
        ([0, 128, 255], {"a": 1}, None, r"undeclared label values 128 \(200 pixels\), 255 \(200 pixels\)"),
        ([0, 1], {"tumour": 2}, None, r"undeclared label values 1 \(300 pixels\); declared: background 0, tumour 2"),
        ([0, 255], {"a": 1, "b": 2}, None, r"undeclared label values 255 \(300 pixels\)"),
        ([0, 255], {"a": [1, 2]}, None, r"255 \(300 pixels\); declared: background 0, a \[1, 2\]"),
        ([0, 5], {"a": 1}, 255, r"5 \(300 pixels\); declared: background 0, a 1, ignored 255"),
        ([0, 300, 70000], {"a": 1}, None, r"300 \(200 pixels\), 70000 \(200 pixels\)"),
        ([0, -1], {"a": 1}, None, r"-1 \(300 pixels\)"),
    ],
)
def test_undeclared_values_are_listed_with_their_counts(tmp_path, values, labels, ignored, message):
    array = np.resize(values, (20, 30))
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ImageError, match=message):
        read_label_map(tmp_path / "a.npy", labels, ignored)
    np.save(tmp_path / "a.npy", array.astype(np.float32))
    with pytest.raises(ImageError, match=message):
        read_label_map(tmp_path / "a.npy", labels, ignored)


def test_ignored_255_is_not_foreground(tmp_path):
    Pillow.fromarray(MASK * 255).save(tmp_path / "a.png")
    assert set(np.unique(read_label_map(tmp_path / "a.png", LUNG, ignore_label=255).array)) == {0, IGNORE}


def test_fractions_and_colours_are_not_a_label_map(tmp_path):
    np.save(tmp_path / "a.npy", MASK * 0.5)
    with pytest.raises(ImageError, match=r"label values are not integers, for example 0\.5"):
        read_label_map(tmp_path / "a.npy", LUNG)
    Pillow.fromarray(PICTURE).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="its 3 channels differ"):
        read_label_map(tmp_path / "a.png", LUNG)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".npy", ".nii", ".nii.gz", ".nrrd", ".mha"])
def test_all_255_values_come_back_from_every_format(tmp_path, suffix):
    labels = {f"label_{value}": value for value in range(1, 256)}
    indices = np.arange(256, dtype=np.uint8).reshape(16, 16)
    if suffix in (".png", ".tif", ".tiff", ".npy"):
        Pillow.fromarray(PICTURE).resize((16, 16)).save(tmp_path / "in.png")
        like = read_image(tmp_path / "in.png")
    else:
        indices = indices[..., None]
        like = read_image(save_nifti(tmp_path / "in.nii", np.zeros((16, 16, 1), np.int16)))
    path = tmp_path / f"out{suffix}"
    write_label_map(path, indices, like, labels)
    read = read_label_map(path, {k: v for k, v in labels.items() if v != 255}, ignore_label=255)
    np.testing.assert_array_equal(read.array[0], indices)


@pytest.mark.parametrize("values", [[0], [1], [0, 1], [5], [0, 5], [255], [0, 255], [0, 1, 2]])
def test_our_palette_pictures_read_back_whichever_labels_are_present(tmp_path, values):
    labels = {"a": 1, "b": 2, "c": 5, "d": 255}
    Pillow.fromarray(PICTURE).save(tmp_path / "in.png")
    like = read_image(tmp_path / "in.png")
    expected = np.resize([{0: 0, 1: 1, 2: 2, 5: 3, 255: 4}[v] for v in values], (20, 30)).astype(np.uint8)
    for name in ("a.png", "a.tif"):
        write_label_map(tmp_path / name, expected, like, labels)
        np.testing.assert_array_equal(read_label_map(tmp_path / name, labels).array[0], expected)
        picture = Pillow.open(tmp_path / name)
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.unique(picture), sorted(values))
        colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
        assert len(np.unique(colours, axis=0)) == len(values)
        if 0 not in values:
            assert colours.max(1).min() > 50, "labels are visible"


def test_the_first_colours_are_far_apart_also_without_red_or_green(tmp_path):
    Pillow.fromarray(PICTURE).resize((8, 1)).save(tmp_path / "in.png")
    labels = {f"l{i}": i for i in range(1, 8)}
    write_label_map(tmp_path / "a.png", np.arange(8, dtype=np.uint8)[None], read_image(tmp_path / "in.png"), labels)
    colours = np.asarray(Pillow.open(tmp_path / "a.png").convert("RGB"))[0].astype(float)
    blind = colours @ np.array([[0.367, 0.280, -0.012], [0.861, 0.673, 0.043], [-0.228, 0.047, 0.969]])  # deuteranopia
    for seen in (colours, blind):
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 40


def test_no_two_labels_share_a_colour_and_none_is_grey(tmp_path):
    Pillow.fromarray(PICTURE).resize((16, 16)).save(tmp_path / "in.png")
    indices = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_label_map(tmp_path / "a.png", indices, read_image(tmp_path / "in.png"), {f"l{i}": i for i in range(1, 256)})
    colours = np.asarray(Pillow.open(tmp_path / "a.png").convert("RGB")).reshape(-1, 3).astype(int)
    assert len(np.unique(colours, axis=0)) == 256
    assert (np.ptp(colours[1:255], axis=1) > 10).all()
    assert (colours[1:].max(1) > 60).all(), "visible on black"


# --- undeclared="background"


def jpeg_of(path, mask, quality=75):
    Pillow.fromarray(mask * 255).save(path, quality=quality)
    return np.asarray(Pillow.open(path))


@pytest.mark.parametrize("labels", [LUNG, {"lung": 255}])
def test_masks_are_recognised_before_undeclared_values_become_background(tmp_path, labels):
    paths = encodings(tmp_path)
    for name, path in paths.items():
        read = read_label_map(path, labels, undeclared="background")
        np.testing.assert_array_equal(read.array, MASK[None], err_msg=name)
        assert (read.num_undeclared, read.cut) == (0, False), name
    smeared = jpeg_of(tmp_path / "a.jpg", vessels())
    read = read_label_map(tmp_path / "a.jpg", labels, undeclared="background")
    np.testing.assert_array_equal(read.array[0], smeared >= 128)
    assert (read.num_undeclared, read.cut) == (0, True)
    assert read_label_map(tmp_path / "a.jpg", labels).cut


def test_undeclared_values_become_background_and_are_counted(tmp_path):
    values = RNG.choice([0, 1, 2, 7, 300, -4], (20, 30))
    np.save(tmp_path / "a.npy", values)
    read = read_label_map(tmp_path / "a.npy", {"a": 1, "b": 7}, undeclared="background")
    np.testing.assert_array_equal(read.array[0], np.select([values == 1, values == 7], [1, 2], 0))
    assert read.num_undeclared == np.isin(values, [2, 300, -4]).sum()


@pytest.mark.parametrize(
    ("values", "labels", "ignored"),
    [([0, 255], {"a": 1, "b": 2}, None), ([0, 3], {"a": 1}, None), ([0, 9, 255], {"a": 1}, 9)],
)
def test_undeclared_values_that_are_the_whole_foreground_are_an_error(tmp_path, values, labels, ignored):
    Pillow.fromarray(np.resize(values, (20, 30)).astype(np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=rf"a\.png: all its foreground is of undeclared label values: {values[-1]} \("):
        read_label_map(tmp_path / "a.png", labels, ignored, undeclared="background")


def test_undeclared_values_of_a_jpeg_are_an_error(tmp_path):
    """Its compression makes neighbours of 7 of 7: no value can be told to be undeclared."""
    jpeg_of(tmp_path / "a.jpg", MASK)
    with pytest.raises(ImageError, match=r"a\.jpg: holds undeclared .* save the label map as PNG"):
        read_label_map(tmp_path / "a.jpg", {"a": 255, "b": 7}, undeclared="background")


@pytest.mark.parametrize("values", [[0], [7], [255], [0, 255], [1, 3], [0, 1, 2, 255], range(256), range(1, 200, 9)])
def test_the_values_of_a_map_are_those_that_numpy_finds(values) -> None:
    indices = np.random.default_rng(0).choice(np.array(list(values), np.uint8), (40, 50))
    assert values_in(indices) == np.unique(indices).tolist()
    assert values_in(indices[::-1, ::2].T) == np.unique(indices[:, ::2]).tolist()
    assert values_in(indices[:0]) == []
