"""Pictures, TIFF and .npy against the libraries' own readers: channels, depths, alpha, what is refused."""

import gzip

import numpy as np
import pytest
import SimpleITK
import tifffile
from image_files import (
    LUNG,
    MASK,
    PICTURE,
    RNG,
)
from PIL import Image as Pillow

from r2seg.data.images import (
    ImageError,
    read_grid,
    read_image,
    read_label_map,
)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".bmp", ".ppm", ".gif", ".jpg"])
def test_colour_pictures_are_rows_by_columns_of_three_channels(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Pillow.fromarray(PICTURE).save(path)
    image = read_image(path)
    np.testing.assert_array_equal(image.array, np.moveaxis(np.asarray(Pillow.open(path).convert("RGB")), -1, 0))
    assert (image.affine, image.spacing_mm, image.shape) == (None, None, (20, 30))
    assert (read_grid(path).shape, read_grid(path).num_channels) == ((20, 30), 3)
    if suffix not in (".jpg", ".gif"):
        np.testing.assert_array_equal(image.array, np.moveaxis(PICTURE, -1, 0))


def test_gzipped_netpbm_is_read(tmp_path):
    Pillow.fromarray(PICTURE).save(tmp_path / "a.ppm")
    (tmp_path / "im0001.ppm.gz").write_bytes(gzip.compress((tmp_path / "a.ppm").read_bytes()))
    np.testing.assert_array_equal(read_image(tmp_path / "im0001.ppm.gz").array, np.moveaxis(PICTURE, -1, 0))


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "i4", "u4", "f4", "f8", "<u2", ">u2"])
def test_tiff_depths_are_kept(tmp_path, dtype):
    array = (RNG.random((20, 30)) * 200).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", array, byteorder=">" if dtype.startswith(">") else "<")
    read = read_image(tmp_path / "a.tif").array
    assert read.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(read[0], array)


def test_deep_colours_keep_their_sixteen_bits(tmp_path):
    deep = RNG.integers(0, 65536, (20, 30, 3)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", deep)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(deep, isVector=True), str(tmp_path / "a.png"))
    Pillow.fromarray(deep[..., 0]).save(tmp_path / "b.png")
    (tmp_path / "b.pgm").write_bytes(b"P5\n30 20\n65535\n" + deep[..., 0].astype(">u2").tobytes())
    for name in ("a.tif", "a.png"):
        np.testing.assert_array_equal(read_image(tmp_path / name).array, np.moveaxis(deep, -1, 0))
    for name in ("b.png", "b.pgm"):
        np.testing.assert_array_equal(read_image(tmp_path / name).array[0], deep[..., 0])
    (tmp_path / "c.ppm").write_bytes(b"P6\n30 20\n65535\n" + deep.astype(">u2").tobytes())
    with pytest.raises(ImageError, match=r"c\.ppm: has more than 8 bits per colour"):
        read_image(tmp_path / "c.ppm")


@pytest.mark.parametrize("maximum", [1, 100, 4095])
def test_netpbm_values_are_not_stretched_to_the_full_range(tmp_path, maximum):
    values = RNG.integers(0, maximum + 1, (20, 30)).astype(">u2" if maximum > 255 else "u1")
    (tmp_path / "a.pgm").write_bytes(b"P5\n30 20\n%d\n" % maximum + values.tobytes())
    (tmp_path / "b.pgm").write_text(f"P2\n30 20\n{maximum}\n" + " ".join(map(str, values.ravel())))
    for name in ("a.pgm", "b.pgm"):
        np.testing.assert_array_equal(read_image(tmp_path / name).array[0], values)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiffs_are_read(tmp_path, compression):
    Pillow.fromarray(PICTURE).save(tmp_path / "a.tif", compression=compression)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").array, np.moveaxis(PICTURE, -1, 0))
    Pillow.fromarray(MASK.astype(bool)).save(tmp_path / "b.tif", compression="group4")
    np.testing.assert_array_equal(read_label_map(tmp_path / "b.tif", LUNG).array[0], MASK)


def test_tiff_channels_are_found_whichever_axis_they_are_on(tmp_path):
    planes = np.moveaxis(PICTURE, -1, 0)
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate")
    tifffile.imwrite(tmp_path / "b.tif", planes, photometric="minisblack", metadata={"axes": "CYX"})
    for name in ("a.tif", "b.tif"):
        np.testing.assert_array_equal(read_image(tmp_path / name).array, planes)


def test_npy_is_mapped_and_holds_channels_last(tmp_path):
    np.save(tmp_path / "a.npy", PICTURE)
    np.save(tmp_path / "b.npy", PICTURE[..., 0].astype(">f4"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.npy").array, np.moveaxis(PICTURE, -1, 0))
    assert read_image(tmp_path / "b.npy").array.dtype == np.dtype("=f4")


def test_an_opaque_alpha_is_dropped_and_a_transparent_one_refused(tmp_path):
    for name in ("a.png", "a.tif"):
        rgba = np.dstack([PICTURE, np.full((20, 30), 255, np.uint8)])
        Pillow.fromarray(rgba).save(tmp_path / name)
        np.testing.assert_array_equal(read_image(tmp_path / name).array, np.moveaxis(PICTURE, -1, 0))
        assert read_grid(tmp_path / name).num_channels == 3
        rgba[3, 4, 3] = 0
        Pillow.fromarray(rgba).save(tmp_path / name)
        with pytest.raises(ImageError, match="transparent pixels"):
            read_image(tmp_path / name)


def test_a_photograph_that_asks_to_be_turned_is_refused(tmp_path):
    exif = Pillow.Exif()
    exif[274] = 6
    for name in ("a.jpg", "a.png", "a.tif"):
        Pillow.fromarray(PICTURE).save(tmp_path / name, exif=exif)
        with pytest.raises(ImageError, match="EXIF orientation 6 asks viewers to turn or mirror it"):
            read_image(tmp_path / name)
    exif[274] = 1
    Pillow.fromarray(PICTURE).save(tmp_path / "b.jpg", exif=exif)
    assert read_image(tmp_path / "b.jpg").num_channels == 3


def test_stacks_and_animations_are_refused(tmp_path):
    frames = [Pillow.fromarray(np.roll(PICTURE, k, 0)) for k in range(3)]
    for name in ("a.gif", "a.png", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with pytest.raises(ImageError, match=r"3 frames|3 pictures|axes .YXS \(3, 20, 30, 3\)"):
            read_image(tmp_path / name)
