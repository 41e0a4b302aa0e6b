"""One label map in every encoding gives the same labels; masks that cannot be understood are told in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import tifffile
from image_files import MASK, PICTURE, save_nifti, slicer
from PIL import Image as Pillow

from r2seg.config import Config
from r2seg.data.images import IGNORE, ImageError, read_image, read_label_map, write_label_map
from r2seg.labels import Label
from r2seg.palette import PALETTE, drawn_colors, label_colors

RED, GREEN, WHITE = (128, 0, 0), (0, 128, 0), (224, 224, 192)


def declared(labels: dict, ignore_label=None):
    """Labels and ignored pixels as a config holds them."""
    data = {"root": ".", "labels": labels, "ignore_label": ignore_label}
    section = Config.model_validate({"name": "x", "data": {**data, "root": Path()}, "window": {"size": [16, 16]}}).data
    return section.labels, section.ignore_label


# Two organs, background and an ignored border.
rows, columns = np.mgrid[:48, :64]
TRUTH = np.zeros((48, 64), np.uint8)
TRUTH[np.hypot(rows - 24, columns - 20) < 14] = 1
TRUTH[np.hypot(rows - 24, columns - 48) < 12] = 2
TRUTH[0] = IGNORE
COLORS = {"liver": list(RED), "spleen": {"rgb": list(GREEN)}}
VALUES = {"liver": 1, "spleen": 2}


def recolored(colors: dict[int, tuple[int, ...]]) -> np.ndarray:
    table = np.zeros((256, len(next(iter(colors.values())))), np.uint8)
    for index, color in colors.items():
        table[index] = color
    return table[TRUTH]


def in_palette(path: Path, colors: dict[int, tuple[int, int, int]], indices: np.ndarray = TRUTH) -> None:
    picture = Pillow.fromarray(indices)
    table = np.zeros((256, 3), np.uint8)
    for index, color in colors.items():
        table[index] = color
    picture.putpalette(table.tobytes())
    picture.save(path)


RGB = recolored({0: (0, 0, 0), 1: RED, 2: GREEN, IGNORE: WHITE})
VOC = {1: RED, 2: GREEN, IGNORE: WHITE}
SHUFFLED = np.select([TRUTH == 1, TRUTH == 2, TRUTH == IGNORE], [9, 4, 7], 3).astype(np.uint8)


# Name of the file -> how it is written, and how labels and ignored pixels are declared.
ENCODINGS: dict[str, tuple[Callable[[Path], object], dict, object]] = {
    "index.png": (lambda p: Pillow.fromarray(TRUTH).save(p), VALUES, 255),
    "deep.png": (lambda p: Pillow.fromarray(TRUTH.astype(np.uint16) * 257).save(p), {"liver": [1, 257], "spleen": [2, 514]}, 65535),
    "voc_palette.png": (lambda p: in_palette(p, VOC), VALUES, 255),
    "voc_palette_by_color.png": (lambda p: in_palette(p, VOC), COLORS, list(WHITE)),
    "shuffled_palette.png": (lambda p: in_palette(p, {9: RED, 4: GREEN, 7: WHITE}, SHUFFLED), COLORS, list(WHITE)),
    "palette.gif": (lambda p: in_palette(p, VOC), COLORS, list(WHITE)),
    "rgb.png": (lambda p: Pillow.fromarray(RGB).save(p), COLORS, list(WHITE)),
    "rgb_hexadecimal.bmp": (lambda p: Pillow.fromarray(RGB).save(p), {"liver": {"rgb": "#800000"}, "spleen": {"rgb": "#008000"}}, "#e0e0c0"),
    "rgb_with_values.png": (lambda p: Pillow.fromarray(RGB).save(p), {"liver": {"value": 7, "rgb": list(RED)}, "spleen": list(GREEN)}, list(WHITE)),
    "rgba.png": (lambda p: Pillow.fromarray(np.dstack([RGB, np.full_like(TRUTH, 255)])).save(p), COLORS, list(WHITE)),
    "rgb.tif": (lambda p: tifffile.imwrite(p, RGB, photometric="rgb"), COLORS, list(WHITE)),
    "rgb_deep.tif": (lambda p: tifffile.imwrite(p, RGB.astype(np.uint16) * 257, photometric="rgb"), COLORS, list(WHITE)),
    "rgb.npy": (lambda p: np.save(p, RGB), COLORS, list(WHITE)),
    "rgb.ppm": (lambda p: Pillow.fromarray(RGB).save(p), COLORS, list(WHITE)),
    "copies.png": (lambda p: Pillow.fromarray(np.dstack([TRUTH] * 3)).save(p), VALUES, 255),
    "copies_with_colors.png": (lambda p: Pillow.fromarray(np.dstack([TRUTH] * 3)).save(p), COLORS, 255),
    "float.npy": (lambda p: np.save(p, TRUTH.astype(np.float64)), VALUES, 255),
    "two_colors_of_one_label.png": (
        lambda p: Pillow.fromarray(np.where((columns < 20)[..., None] & (TRUTH == 1)[..., None], (0, 0, 200), RGB).astype(np.uint8)).save(p),
        {"liver": {"rgb": [list(RED), [0, 0, 200]]}, "spleen": list(GREEN)},
        list(WHITE),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ENCODINGS)
def test_one_label_map_reads_the_same_in_every_encoding(tmp_path, name):
    assert len(ENCODINGS) >= 12
    write, labels, ignored = ENCODINGS[name]
    write(tmp_path / name)
    read = read_label_map(tmp_path / name, *declared(labels, ignored))
    np.testing.assert_array_equal(read.array, TRUTH[None])
    assert (read.cut, read.num_undeclared) == (False, 0)


@pytest.mark.parametrize("labels", [{"lung": 1}, {"lung": 255}, {"lung": [255, 65535]}, {"lung": [1, 65535]}])
@pytest.mark.parametrize("white", [1, 255, 65535])
def test_the_mask_of_one_label_is_1_or_255_or_65535(tmp_path, labels, white):
    for name, array in (("a.png", MASK.astype(np.uint16) * white), ("a.npy", MASK.astype(np.float32) * white)):
        if name == "a.npy":
            np.save(tmp_path / name, array)
        else:
            Pillow.fromarray(array).save(tmp_path / name)
        np.testing.assert_array_equal(read_label_map(tmp_path / name, labels).array[0], MASK)


def test_jpeg_takes_the_nearest_declared_colour_and_says_so(tmp_path):
    picture, labels = RGB.copy(), declared({"liver": [255, 0, 0], "spleen": [0, 0, 255]}, [255, 255, 0])
    picture[TRUTH == 1], picture[TRUTH == 2], picture[TRUTH == IGNORE] = (255, 0, 0), (0, 0, 255), (255, 255, 0)
    large = np.repeat(np.repeat(picture, 6, 0), 6, 1)
    truth = np.repeat(np.repeat(TRUTH, 6, 0), 6, 1)
    Pillow.fromarray(large).save(tmp_path / "a.jpg", quality=75)
    Pillow.open(tmp_path / "a.jpg").save(tmp_path / "copy_of_the_jpeg.png")
    for name in ("a.jpg", "copy_of_the_jpeg.png"):
        read = read_label_map(tmp_path / name, *labels)
        assert read.cut
        assert (read.array[0] != truth).mean() < 0.01


def test_a_grey_mask_in_a_colour_jpeg_is_cut_although_its_channels_differ_by_rounding(tmp_path):
    disc = np.repeat(np.repeat((TRUTH == 1) * np.uint8(255), 3, 0), 3, 1)
    Pillow.fromarray(np.dstack([disc] * 3)).save(tmp_path / "a.jpg", quality=75)
    smeared = np.asarray(Pillow.open(tmp_path / "a.jpg")).astype(int)
    smeared[..., 2] += np.where(smeared[..., 2] < 250, 2, -2)
    Pillow.fromarray(smeared.astype(np.uint8)).save(tmp_path / "a.png")
    read = read_label_map(tmp_path / "a.png", {"disc": 1})
    assert read.cut
    assert (read.array[0] != (disc > 0)).mean() < 0.005


def test_a_border_of_smeared_colours_is_never_taken_for_a_third_label(tmp_path):
    """In VOC's colours, the middle between background and an aeroplane is a cat."""
    labels = declared({"aeroplane": [128, 0, 0], "cat": [64, 0, 0]})
    disc = np.repeat(np.repeat(TRUTH == 1, 6, 0), 6, 1)
    other = np.repeat(np.repeat(TRUTH == 2, 6, 0), 6, 1)
    picture = np.zeros((*disc.shape, 3), np.uint8)
    picture[disc] = (128, 0, 0)
    Pillow.fromarray(picture).save(tmp_path / "one.jpg", quality=75)
    read = read_label_map(tmp_path / "one.jpg", *labels)
    assert set(np.unique(read.array)) == {0, 1}
    picture[other] = (64, 0, 0)
    Pillow.fromarray(picture).save(tmp_path / "both.jpg", quality=75)
    with pytest.raises(
        ImageError,
        match=r"both\.jpg: holds undeclared colours .*; if JPEG made these, save the mask as PNG$",
    ):
        read_label_map(tmp_path / "both.jpg", *labels)


def written(folder: Path, name: str, content) -> Path:
    path = folder / name
    content(path)
    return path


UNDECLARED = RGB.copy()
UNDECLARED[10:20, 10:20] = (0, 0, 128)
ALPHA = (TRUTH == 1).astype(np.uint8) * 255

# What is wrong -> name of the file, how it is written, labels, and the message, which begins with the file's name.
WRONG: dict[str, tuple[str, Callable[[Path], object], dict, str]] = {
    "an undeclared colour": ("a.png", lambda p: Pillow.fromarray(UNDECLARED).save(p), COLORS, r"holds undeclared colours \[0, 0, 128\] \(100 pixels\).*; declared: background 0, liver \[1\] or \[128, 0, 0\], spleen"),
    "colours, and only values declared": ("a.png", lambda p: Pillow.fromarray(RGB).save(p), VALUES, r"its 3 channels differ; .* it holds .*\[128, 0, 0\] \(\d+ pixels\).*such as liver: \{rgb: \["),
    "a colour declared as three values": ("a.png", lambda p: Pillow.fromarray(np.where(RGB == RED, np.uint8([128, 64, 32]), RGB)).save(p), {"liver": [128, 64, 32]}, r"data\.labels\.liver lists three values: if they are one colour, write liver: \{rgb: \[128, 64, 32\]\}"),
    "a photograph": ("a.png", lambda p: Pillow.fromarray(PICTURE).save(p), {"lung": 1}, r"its 3 channels differ; expected one label value per pixel, or declared colours"),
    "a photograph, and colours declared": ("a.jpg", lambda p: Pillow.fromarray(np.repeat(np.repeat(PICTURE, 4, 0), 4, 1)).save(p), COLORS, r"holds undeclared colours .*JPEG|holds undeclared colours"),
    "the mask is in the alpha channel": ("a.png", lambda p: Pillow.fromarray(np.dstack([np.zeros_like(TRUTH)] * 3 + [ALPHA])).save(p), {"lung": 1}, r"all its pixels have one colour, and only the alpha channel differs"),
    "alpha hides something": ("a.png", lambda p: Pillow.fromarray(np.dstack([RGB, ALPHA])).save(p), COLORS, r"has transparent pixels \(alpha channel\)"),
    "an undeclared colour of a palette": ("a.png", lambda p: in_palette(p, {1: RED, 2: (0, 0, 128)}), COLORS, r"holds undeclared colours \[0, 0, 128\]"),
    "another value": ("a.png", lambda p: Pillow.fromarray(TRUTH).save(p), {"liver": 1}, r"holds undeclared label values 2 \(\d+ pixels\), 255 \(64 pixels\); declared: background 0, liver \[1\]"),
    "a bit mask for two labels": ("a.png", lambda p: Pillow.fromarray(TRUTH == 1).convert("L").save(p), VALUES, r"holds undeclared label values 255"),
    "probabilities": ("a.npy", lambda p: np.save(p, TRUTH / 300), VALUES, r"label values are not integers"),
    "negative values": ("a.npy", lambda p: np.save(p, -TRUTH.astype(int)), VALUES, r"holds undeclared label values -255"),
    "16 bits that are not declared": ("a.npy", lambda p: np.save(p, TRUTH.astype(int) * 1000), VALUES, r"holds undeclared label values 1000 .* 255000"),
    "not a number": ("a.npy", lambda p: np.save(p, np.where(TRUTH, np.nan, 0)), VALUES, r"voxels are NaN or infinite"),
    "an empty file": ("a.png", lambda p: p.write_bytes(b""), VALUES, r"the file is empty \(0 bytes\)"),
    "a truncated file": ("a.png", lambda p: (Pillow.fromarray(TRUTH).save(p), p.write_bytes(p.read_bytes()[:60])), VALUES, r"cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_mask_is_told_in_one_line(tmp_path, name):
    file, write, labels, message = WRONG[name]
    write(tmp_path / file)
    with pytest.raises(ImageError, match=message) as caught:
        read_label_map(tmp_path / file, *declared(labels))
    assert str(caught.value).startswith(str(tmp_path / file)) and "\n" not in str(caught.value)


def test_undeclared_colours_become_background_if_asked_and_are_counted(tmp_path):
    Pillow.fromarray(UNDECLARED).save(tmp_path / "a.png")
    read = read_label_map(tmp_path / "a.png", *declared(COLORS, list(WHITE)), undeclared="background")
    expected = TRUTH.copy()
    expected[10:20, 10:20] = 0
    np.testing.assert_array_equal(read.array[0], expected)
    assert read.num_undeclared == 100


# --- palettes that are written


def test_pictures_are_written_in_the_colours_of_the_labels_and_read_back(tmp_path):
    labels, _ = declared(
        {"a": {"value": 1, "color": "#3b82f6"}, "b": [200, 100, 100], "c": 3, "grey": {"value": 9, "color": "#808080"}}
    )
    Pillow.fromarray(PICTURE).save(tmp_path / "in.png")
    like = read_image(tmp_path / "in.png")
    indices = np.resize(np.arange(5, dtype=np.uint8), like.shape)
    for name in ("a.png", "a.tif"):
        write_label_map(tmp_path / name, indices, like, labels)
        picture = Pillow.open(tmp_path / name)
        np.testing.assert_array_equal(np.unique(picture), [0, 1, 2, 3, 9])
        found = np.asarray(picture.convert("RGB"))[0, :5].tolist()
        # A palette of greys would be read by its grey levels: a grey is moved by one step of blue.
        assert found == [[0, 0, 0], [0x3B, 0x82, 0xF6], [200, 100, 100], list(PALETTE[3]), [128, 128, 127]]
        np.testing.assert_array_equal(read_label_map(tmp_path / name, labels).array[0], indices)
        only = np.where(indices == 4, np.uint8(4), np.uint8(0))
        write_label_map(tmp_path / name, only, like, labels)
        np.testing.assert_array_equal(read_label_map(tmp_path / name, labels).array[0], only)


def test_a_default_colour_gives_way_to_a_declared_one(tmp_path):
    from r2seg.palette import label_colors

    labels, _ = declared({"a": 1, "b": {"value": 2, "color": "#009e73"}, "c": {"value": 5, "rgb": [230, 159, 0]}})
    assert PALETTE[1] == (0, 158, 115)
    assert label_colors(labels) == {"a": PALETTE[3], "b": PALETTE[1], "c": PALETTE[2]}
    assert label_colors({"x": 300}) == {"x": PALETTE[1]}


# --- segmentations of 3D Slicer

VOLUME = np.zeros((6, 10, 12), np.uint8)  # slices, rows, columns
VOLUME[1:4, 2:6, 3:7] = 1
VOLUME[3:5, 7:9, 8:11] = 2
SEGMENTS = [
    {"ID": "Segment_2", "Name": "Spleen", "LabelValue": 2, "Layer": 0},
    {"ID": "Segment_1", "Name": "liver", "LabelValue": 1, "Layer": 0},
]
ORGANS = {"spleen": 1, "liver": 7}  # the order and the values of the config, not of Slicer
EXPECTED = np.array([0, 2, 1], np.uint8)[VOLUME.T]


def test_segments_of_slicer_are_found_by_name_and_renumbered(tmp_path):
    path = slicer(tmp_path / "a.seg.nrrd", VOLUME, SEGMENTS)
    np.testing.assert_array_equal(read_label_map(path, ORGANS).array[0], EXPECTED)
    layers = np.stack([VOLUME == 2, VOLUME == 1], axis=-1).astype(np.uint8)
    modern = [{**one, "LabelValue": 1, "Layer": number} for number, one in enumerate(SEGMENTS)]
    old = [{"ID": one["ID"], "Name": one["Name"]} for one in SEGMENTS]
    for segments in (modern, old):
        path = slicer(tmp_path / "layers.seg.nrrd", layers, segments)
        np.testing.assert_array_equal(read_label_map(path, ORGANS).array[0], EXPECTED)


def test_a_cropped_segmentation_is_placed_on_its_image(tmp_path):
    from image_files import affine_of, oblique

    affine = affine_of(oblique())
    image = read_image(save_nifti(tmp_path / "image.nii.gz", np.zeros((12, 10, 6), np.int16), affine))
    offset = np.array([3, 2, 1])
    cropped = VOLUME[1:5, 2:9, 3:11]
    path = slicer(tmp_path / "a.seg.nrrd", cropped, SEGMENTS)
    stored = SimpleITK.ReadImage(str(path))
    lps = np.diag([-1, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    stored.SetSpacing(spacing.tolist())
    stored.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    stored.SetOrigin((lps[:3, :3] @ offset + lps[:3, 3]).tolist())
    SimpleITK.WriteImage(stored, str(path))
    read = read_label_map(path, ORGANS, like=image)
    np.testing.assert_array_equal(read.array[0], EXPECTED)
    np.testing.assert_array_equal(read.affine, image.affine)
    with pytest.raises(
        ImageError, match=r"grid \(8, 7, 4\) differs from grid"
    ):  # other formats do not say that they are cropped
        nifti = save_nifti(tmp_path / "b.nii.gz", np.ascontiguousarray(cropped.T), read_label_map(path, ORGANS).affine)
        read_label_map(nifti, {"a": [1, 2]}, like=image)
    stored.SetOrigin((lps[:3, :3] @ (offset + 0.5) + lps[:3, 3]).tolist())
    SimpleITK.WriteImage(stored, str(path))
    with pytest.raises(ImageError, match=r"grid \(8, 7, 4\) differs from grid"):
        read_label_map(path, ORGANS, like=image)
    stored.SetOrigin((lps[:3, :3] @ (offset + 4) + lps[:3, 3]).tolist())
    SimpleITK.WriteImage(stored, str(path))
    with pytest.raises(
        ImageError, match=r"its segments reach beyond the image .*image\.nii\.gz: voxels \[7, 6, 5\] to \[15, 13, 9\]"
    ):
        read_label_map(path, ORGANS, like=image)


def test_wrong_segmentations_of_slicer_are_told_in_one_line(tmp_path):
    unnamed = [{"Name": "Segment_1", "LabelValue": 1, "Layer": 0}, {"Name": "Lung", "LabelValue": 2, "Layer": 0}]
    overlapping = np.stack([VOLUME > 0, VOLUME == 1], axis=-1).astype(np.uint8)
    layered = [{**one, "LabelValue": 1, "Layer": number} for number, one in enumerate(SEGMENTS)]
    for array, segments, message in (
        (VOLUME, unnamed, r"holds segments that are not labels: 'Segment_1' \(48 voxels\), 'Lung' \(12 voxels\); declared: spleen, liver"),
        (VOLUME, SEGMENTS[:1], r"holds the values 1, which no segment of its header has"),
        (overlapping, layered, r"its segments spleen and liver overlap in 48 voxels"),
        (VOLUME, [{**SEGMENTS[0], "Layer": 3}], r"segment 'Spleen' is in layer 3, but the file has 1"),
        (VOLUME, [{**SEGMENTS[0], "LabelValue": "x"}], r"its segments cannot be read"),
    ):  # fmt: skip
        path = slicer(tmp_path / "a.seg.nrrd", array, segments)
        with pytest.raises(ImageError, match=message) as caught:
            read_label_map(path, ORGANS)
        assert str(caught.value).startswith(str(path))


def test_a_label_map_named_seg_nrrd_is_a_segmentation_of_slicer(tmp_path):
    image = read_image(save_nifti(tmp_path / "image.nii.gz", np.zeros((12, 10, 6), np.int16)))
    labels, _ = declared({"spleen": {"value": 3, "color": "#ff0000"}, "liver": 9})
    write_label_map(tmp_path / "a.seg.nrrd", EXPECTED, image, labels)
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(tmp_path / "a.seg.nrrd"))
    reader.ReadImageInformation()
    stated = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
    assert (stated["Segment0_Name"], stated["Segment0_LabelValue"], stated["Segment1_LabelValue"]) == (
        "spleen",
        "3",
        "9",
    )
    assert stated["Segment0_Color"] == "1.000000 0.000000 0.000000"
    # Other numbers in the config that reads it: the names decide.
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.seg.nrrd", ORGANS, like=image).array[0], EXPECTED)
    write_label_map(tmp_path / "a.nrrd", EXPECTED, image, labels)
    assert b"Segment0" not in (tmp_path / "a.nrrd").read_bytes()[:2000]


def test_a_label_that_is_written_white_is_drawn_in_a_colour():
    assert label_colors({"a": 255}) == {"a": (255, 255, 255)}
    assert drawn_colors({"a": 255, "b": 1}) == {"a": PALETTE[2], "b": PALETTE[1]}
    assert drawn_colors({"a": Label((255,), color=(255, 255, 255))}) == {"a": (255, 255, 255)}, "declared"
