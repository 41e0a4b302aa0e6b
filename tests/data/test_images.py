"""Every format in and out against the libraries' own readers; geometry, encodings, damage."""

import gzip
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile
from PIL import Image as Pillow

from r2seg.data.images import (
    IGNORE,
    IMAGE_SUFFIXES,
    ImageError,
    check_same_grid,
    output_name,
    read_grid,
    read_image,
    read_label_map,
    read_probabilities,
    split_suffix,
    write_label_map,
    write_probabilities,
)

REAL = Path(__file__).parents[3] / "shared/data"
LUNG = {"lung": 1}
RNG = np.random.default_rng(0)
VOLUME = RNG.integers(-1000, 1000, (5, 6, 7)).astype(np.int16)
MASK = (RNG.random((20, 30)) < 0.3).astype(np.uint8)
PICTURE = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)

ORIENTATIONS = [
    np.array([[sign if column == axes[row] else 0 for column in range(3)] for row, sign in enumerate(signs)], float)
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def affine_of(rotation: np.ndarray, zooms=(0.7, 1.3, 2.9), origin=(-101.3, 55.5, -1203.25)) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = rotation * np.array(zooms)
    affine[:3, 3] = origin
    return affine


def oblique() -> np.ndarray:
    a, b = 0.3, -0.2
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return turn @ tilt


def save_nifti(path: Path, array=VOLUME, affine=None, kind=nibabel.Nifti1Image, **fields) -> Path:
    image = kind(array, affine_of(np.eye(3)) if affine is None else affine)
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, path)
    if fields:  # nibabel would mend them while saving
        whole = path.read_bytes()
        header = nibabel.Nifti1Header(whole[:348], check=False)
        for name, value in fields.items():
            header[name] = value
        path.write_bytes(header.binaryblock + whole[348:])
    return path


def indices_for(image) -> np.ndarray:
    return RNG.integers(0, 2, image.shape).astype(np.uint8)


def differing_fields(path: Path, other: Path) -> set[str]:
    first, second = nibabel.load(path).header, nibabel.load(other).header
    assert first.keys() == second.keys()
    return {name for name in first if first[name].tobytes() != second[name].tobytes()}


# Names


def test_a_suffix_is_split_off_whole_and_only_where_it_is_an_images():
    assert split_suffix("/a/ct.001.nii.gz") == ("ct.001", ".nii.gz")
    assert split_suffix("A.NII.GZ") == ("A", ".nii.gz")
    assert split_suffix("x.json") == ("x", "")
    assert split_suffix(".png")[1] == ""
    assert split_suffix("im0001.ppm.gz") == ("im0001", ".ppm.gz")


def test_outputs_keep_the_inputs_name_where_the_format_can_hold_labels():
    expected = {
        "a/ct.nii.gz": "ct.nii.gz",
        "CT.NII": "CT.NII",
        "x.mha": "x.mha",
        "scan_0000.nii.gz": "scan.nii.gz",
        "ID_0000_Z_0142.tif": "ID_0000_Z_0142.tif",
        "photo.JPG": "photo.png",
        "im0001.ppm.gz": "im0001.png",
        "a.gif": "a.png",
        "a.bmp": "a.png",
        "a.npy": "a.npy",
    }
    assert {name: output_name(name) for name in expected} == expected
    with pytest.raises(ImageError, match=r"x\.dcm: no image format .* known: \.nii\.gz \.nii"):
        output_name("x.dcm")


def test_importing_loads_neither_torch_nor_the_image_libraries():
    code = "import sys, r2seg.data.images; print(sorted({'torch', 'monai', 'nibabel', 'SimpleITK', 'PIL', 'tifffile'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# NIfTI


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.int32, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".img"])
def test_nifti_voxels_keep_dtype_axes_and_affine(tmp_path, suffix, dtype):
    array = VOLUME.astype(dtype)
    path = save_nifti(tmp_path / f"a{suffix}", array)
    image = read_image(path)
    assert image.array.dtype == dtype
    np.testing.assert_array_equal(image.array, array[None])
    np.testing.assert_array_equal(image.affine, nibabel.load(path).affine)
    np.testing.assert_allclose(image.spacing_mm, (0.7, 1.3, 2.9), rtol=1e-6)
    grid = read_grid(path)
    assert (grid.shape, grid.num_channels, grid.spatial_dims) == ((5, 6, 7), 1, 3)
    np.testing.assert_array_equal(grid.affine, image.affine)


def test_big_endian_voxels_come_in_native_byte_order_and_the_header_goes_back_big_endian(tmp_path):
    image = nibabel.Nifti1Image(VOLUME, affine_of(oblique()))
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    header.set_data_shape(VOLUME.shape)
    header.set_sform(image.affine, 1)
    nibabel.Nifti1Image(VOLUME, image.affine, header).to_filename(tmp_path / "a.nii")
    assert nibabel.load(tmp_path / "a.nii").header.endianness == ">"
    read = read_image(tmp_path / "a.nii")
    assert read.array.dtype == np.dtype("=i2")
    np.testing.assert_array_equal(read.array[0], VOLUME)
    write_label_map(tmp_path / "b.nii", indices_for(read), read, LUNG)
    assert nibabel.load(tmp_path / "b.nii").header.endianness == ">"
    assert differing_fields(tmp_path / "a.nii", tmp_path / "b.nii") <= {"datatype", "bitpix", "scl_slope", "scl_inter"}


def test_stored_scaling_is_applied_in_float32(tmp_path):
    image = nibabel.Nifti1Image(VOLUME.astype(np.float32) * 0.5 - 1024, np.eye(4))
    image.header.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "a.nii.gz")
    read = read_image(tmp_path / "a.nii.gz")
    assert read.array.dtype == np.float32
    np.testing.assert_allclose(read.array[0], nibabel.load(tmp_path / "a.nii.gz").get_fdata(), rtol=1e-6, atol=1e-4)


def test_an_uncompressed_volume_is_mapped_not_copied(tmp_path):
    array = read_image(save_nifti(tmp_path / "a.nii")).array
    while not isinstance(array, np.memmap):
        assert array.base is not None
        array = array.base
    assert array.mode == "c"


def test_fourth_axis_is_channels_and_rgb_voxels_are_three(tmp_path):
    four = RNG.integers(0, 9, (3, 4, 5, 2)).astype(np.int16)
    image = read_image(save_nifti(tmp_path / "a.nii.gz", four))
    np.testing.assert_array_equal(image.array, np.moveaxis(four, -1, 0))
    colours = RNG.integers(0, 255, (3, 4, 5, 3), dtype=np.uint8)
    rgb = np.ascontiguousarray(colours).view(np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))[..., 0]
    path = save_nifti(tmp_path / "b.nii.gz", rgb)
    np.testing.assert_array_equal(read_image(path).array, np.moveaxis(colours, -1, 0))
    assert read_grid(path).num_channels == 3


def test_two_axes_are_a_picture_with_an_affine(tmp_path):
    path = save_nifti(tmp_path / "a.nii", VOLUME[..., 0])
    image = read_image(path)
    assert (image.shape, image.spatial_dims) == ((5, 6), 2)
    np.testing.assert_allclose(image.spacing_mm, (0.7, 1.3), rtol=1e-6)
    indices = indices_for(image)
    write_label_map(tmp_path / "b.nii", indices, image, LUNG)
    np.testing.assert_array_equal(np.asarray(nibabel.load(tmp_path / "b.nii").dataobj), indices)
    assert differing_fields(path, tmp_path / "b.nii") <= {"datatype", "bitpix", "scl_slope", "scl_inter"}


@pytest.mark.parametrize(("unit", "factor"), [(1, 1000.0), (2, 1.0), (3, 0.001), (0, 1.0)])
def test_affines_are_in_millimetres_whatever_the_files_unit(tmp_path, unit, factor):
    path = save_nifti(tmp_path / "a.nii", xyzt_units=unit)
    np.testing.assert_allclose(read_grid(path).affine[:3], nibabel.load(path).affine[:3] * factor, rtol=1e-6)
    np.testing.assert_allclose(read_grid(path).spacing_mm, np.array([0.7, 1.3, 2.9]) * factor, rtol=1e-6)


CODES = [(1, 1), (1, 0), (0, 1), (0, 0), (2, 1), (1, 4), (3, 2)]


@pytest.mark.parametrize("index", range(48))
def test_a_label_map_has_the_inputs_header_field_by_field(tmp_path, index):
    """All 48 orientations, with data types, codes and NIfTI versions taking turns."""
    kind = nibabel.Nifti2Image if index % 5 == 4 else nibabel.Nifti1Image
    dtype = (np.int16, np.uint8, np.float32)[index % 3]
    qform, sform = CODES[index % len(CODES)]
    suffix = ".nii" if index % 4 == 1 else ".nii.gz"
    image = kind(VOLUME.astype(dtype), affine_of(ORIENTATIONS[index]))
    header = image.header
    image.set_qform(image.affine, qform)
    image.set_sform(image.affine, sform)
    header.set_xyzt_units("mm", "sec")
    header["descrip"], header["aux_file"], header["intent_name"] = b"chest", b"none", b"CT"
    header["cal_max"], header["toffset"], header["dim_info"], header["slice_duration"] = 400, 2.5, 0x39, 0.25
    source = tmp_path / f"in{suffix}"
    nibabel.save(image, source)
    read = read_image(source)
    np.testing.assert_array_equal(read.affine, nibabel.load(source).affine)
    indices = indices_for(read)
    write_label_map(tmp_path / f"out{suffix}", indices, read, {"lung": 3})
    written = nibabel.load(tmp_path / f"out{suffix}")
    assert differing_fields(source, tmp_path / f"out{suffix}") <= {
        *("datatype", "bitpix", "scl_slope", "scl_inter", "cal_min", "cal_max")
    }
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(written.dataobj), indices * 3)
    np.testing.assert_array_equal(read_label_map(tmp_path / f"out{suffix}", {"lung": 3}).array[0], indices)


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("sheared", [False, True])
def test_oblique_and_sheared_affines_and_differing_forms_come_back_exactly(tmp_path, codes, sheared):
    affine = affine_of(oblique() @ (np.array([[1, 0.2, 0], [0, 1, -0.1], [0, 0, 1]]) if sheared else np.eye(3)))
    image = nibabel.Nifti1Image(VOLUME, affine)
    image.set_sform(affine, codes[1])
    image.set_qform(affine_of(ORIENTATIONS[7], origin=(1, 2, 3)), codes[0])  # another grid than the sform's
    nibabel.save(image, tmp_path / "in.nii.gz")
    read = read_image(tmp_path / "in.nii.gz")
    np.testing.assert_array_equal(read.affine, nibabel.load(tmp_path / "in.nii.gz").affine)
    write_label_map(tmp_path / "out.nii.gz", indices_for(read), read, LUNG)
    assert differing_fields(tmp_path / "in.nii.gz", tmp_path / "out.nii.gz") <= {
        "datatype",
        "bitpix",
        "scl_slope",
        "scl_inter",
    }


def test_a_fourth_axis_of_one_comes_back_and_one_of_channels_does_not(tmp_path):
    for channels, shape in ((1, (5, 6, 7, 1)), (3, (5, 6, 7))):
        source = save_nifti(tmp_path / f"in{channels}.nii.gz", np.repeat(VOLUME[..., None], channels, -1))
        read = read_image(source)
        assert read.shape == (5, 6, 7)
        indices = indices_for(read)
        write_label_map(tmp_path / "out.nii.gz", indices, read, LUNG)
        written = nibabel.load(tmp_path / "out.nii.gz")
        assert written.shape == shape
        np.testing.assert_array_equal(np.asarray(written.dataobj).reshape(5, 6, 7), indices)
        np.testing.assert_array_equal(read_label_map(tmp_path / "out.nii.gz", LUNG).array[0], indices)


def test_header_extensions_stay_with_the_label_map(tmp_path):
    image = nibabel.Nifti1Image(VOLUME, np.eye(4))
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"acquired at the old site"))
    nibabel.save(image, tmp_path / "in.nii.gz")
    read = read_image(tmp_path / "in.nii.gz")
    write_label_map(tmp_path / "out.nii.gz", indices_for(read), read, LUNG)
    written = nibabel.load(tmp_path / "out.nii.gz")
    assert [bytes(e.get_content()) for e in written.header.extensions] == [b"acquired at the old site"]
    assert "vox_offset" not in differing_fields(tmp_path / "in.nii.gz", tmp_path / "out.nii.gz")


@pytest.mark.parametrize(
    "names", [("a.nii.gz", "b.nii"), ("a.nii", "b.img"), ("a.img", "b.nii.gz"), ("a.img", "b.img")]
)
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_a_label_map_may_change_between_one_and_two_files(tmp_path, names, kind):
    pair = {nibabel.Nifti1Image: nibabel.Nifti1Pair, nibabel.Nifti2Image: nibabel.Nifti2Pair}[kind]
    source = save_nifti(tmp_path / names[0], kind=pair if names[0].endswith(".img") else kind)
    read = read_image(source)
    indices = indices_for(read)
    write_label_map(tmp_path / names[1], indices, read, LUNG)
    written = nibabel.load(tmp_path / names[1])
    np.testing.assert_array_equal(np.asarray(written.dataobj), indices)
    np.testing.assert_array_equal(written.affine, nibabel.load(source).affine)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("b")) == sorted(
        {names[1], names[1].replace(".img", ".hdr")}
    )


def test_several_gzip_members_and_padding_are_one_file(tmp_path):
    whole = save_nifti(tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(whole[:400]) + gzip.compress(whole[400:]) + bytes(100))
    np.testing.assert_array_equal(read_image(tmp_path / "b.nii.gz").array[0], VOLUME)


# NRRD and MetaImage


def save_itk(path: Path, array=VOLUME, components=False) -> Path:
    image = SimpleITK.GetImageFromArray(array, isVector=components)
    dims = image.GetDimension()
    image.SetSpacing([0.123456789012, 1.3, 2.9, 1.0][:dims])
    image.SetOrigin([-101.3, 1 / 3, 12.0, 0.0][:dims])
    direction = np.eye(dims)
    direction[: min(dims, 3), : min(dims, 3)] = oblique()[: min(dims, 3), : min(dims, 3)] if dims > 2 else np.eye(2)
    image.SetDirection(direction.ravel().tolist())
    SimpleITK.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".mhd"])
def test_nrrd_and_metaimage_agree_with_simpleitk_and_keep_their_geometry(tmp_path, suffix):
    source = save_itk(tmp_path / f"a{suffix}")
    image = read_image(source)
    assert (image.shape, image.array.dtype) == ((7, 6, 5), np.int16)
    np.testing.assert_array_equal(image.array[0], VOLUME.T)
    itk = SimpleITK.ReadImage(str(source))
    for index in [(0, 0, 0), (6, 0, 0), (2, 5, 4)]:
        lps = np.array(itk.TransformIndexToPhysicalPoint(index))
        np.testing.assert_allclose((image.affine @ [*index, 1])[:3], lps * [-1, -1, 1], atol=1e-9)
    indices = indices_for(image)
    write_label_map(tmp_path / f"b{suffix}", indices, image, {"lung": 4})
    written = SimpleITK.ReadImage(str(tmp_path / f"b{suffix}"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(written), indices.T * 4)
    assert written.GetPixelID() == SimpleITK.sitkUInt8
    for geometry in ("GetOrigin", "GetSpacing", "GetSize"):
        assert getattr(written, geometry)() == getattr(itk, geometry)()
    np.testing.assert_allclose(written.GetDirection(), itk.GetDirection(), atol=1e-15)
    np.testing.assert_array_equal(read_label_map(tmp_path / f"b{suffix}", {"lung": 4}).array[0], indices)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_components_and_a_fourth_axis_are_channels(tmp_path, suffix):
    vector = RNG.integers(0, 99, (4, 5, 6, 2)).astype(np.int16)  # (Z, Y, X, C)
    image = read_image(save_itk(tmp_path / f"a{suffix}", vector, components=True))
    np.testing.assert_array_equal(image.array, vector.transpose(3, 2, 1, 0))
    four = RNG.integers(0, 99, (1, 4, 5, 6)).astype(np.int16)  # (1, Z, Y, X)
    image = read_image(save_itk(tmp_path / f"b{suffix}", four))
    np.testing.assert_array_equal(image.array, four.transpose(0, 3, 2, 1))
    write_label_map(tmp_path / f"c{suffix}", indices_for(image), image, LUNG)
    assert SimpleITK.ReadImage(str(tmp_path / f"c{suffix}")).GetSize() == (6, 5, 4, 1)


def test_a_nifti_and_an_nrrd_of_one_volume_lie_on_one_grid(tmp_path):
    nifti = save_nifti(tmp_path / "a.nii.gz", affine=affine_of(oblique()))
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(nifti)), str(tmp_path / "a.nrrd"))
    first, second = read_image(nifti), read_image(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(first.array, second.array)
    np.testing.assert_allclose(first.affine, second.affine, atol=1e-4)
    check_same_grid(first, second)
    for source, name in ((first, "x.mha"), (second, "x.nii.gz")):
        write_label_map(tmp_path / name, indices_for(source), source, LUNG)
        check_same_grid(first, read_grid(tmp_path / name))


# Pictures


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


# Several files


def test_files_of_one_case_become_channels(tmp_path):
    first = save_nifti(tmp_path / "a_0000.nii.gz")
    second = save_nifti(tmp_path / "a_0001.nii.gz", VOLUME + 1)
    image = read_image([first, second])
    assert image.num_channels == 2
    np.testing.assert_array_equal(image.array, [VOLUME, VOLUME + 1])
    assert image.path == first


@pytest.mark.parametrize(
    ("array", "affine", "message"),
    [
        (VOLUME[:-1], None, r"b\.nii: grid \(4, 6, 7\) differs from grid \(5, 6, 7\) of .*a\.nii"),
        (
            VOLUME,
            affine_of(np.eye(3), origin=(0, 0, 0)),
            r"b\.nii: grid differs from that of .*a\.nii by up to 1209 mm",
        ),
        (VOLUME, affine_of(ORIENTATIONS[1]), r"b\.nii: grid differs"),
        (
            VOLUME,
            affine_of(np.eye(3), zooms=(0.8, 1.3, 2.9)),
            r"spacing \(0\.8, 1\.3, 2\.9\) against \(0\.7, 1\.3, 2\.9\) mm",
        ),
    ],
)
def test_grids_that_differ_are_named(tmp_path, array, affine, message):
    first, second = save_nifti(tmp_path / "a.nii"), save_nifti(tmp_path / "b.nii", array, affine)
    with pytest.raises(ImageError, match=message):
        read_image([first, second])


def test_rounding_in_a_header_is_no_other_grid(tmp_path):
    first = save_nifti(tmp_path / "a.nii", affine=affine_of(oblique()))
    second = save_nifti(tmp_path / "b.nii", affine=affine_of(oblique(), origin=(-101.35, 55.5, -1203.25)))
    check_same_grid(read_grid(first), read_grid(second))


# Masks


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
def test_many_labels_of_which_one_is_declared_are_no_smeared_mask(tmp_path, values):
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


def test_a_photograph_is_no_smeared_mask(tmp_path):
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


def test_fractions_and_colours_are_no_label_map(tmp_path):
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


# Writing


def test_labels_above_255_and_arrays_off_the_grid_are_refused(tmp_path):
    like = read_image(save_nifti(tmp_path / "a.nii"))
    with pytest.raises(
        ImageError, match=r"out\.nii: label 'bone' has value 300; label maps are written as uint8, 0 to 255"
    ):
        write_label_map(tmp_path / "out.nii", indices_for(like), like, {"bone": 300})
    with pytest.raises(ValueError, match=r"indices \(5, 6\) are not on the grid \(5, 6, 7\)"):
        write_label_map(tmp_path / "out.nii", np.zeros((5, 6), np.uint8), like, LUNG)
    with pytest.raises(ValueError, match="class indices from 0 to 9, but there are 1 labels"):
        write_label_map(tmp_path / "out.nii", np.full((5, 6, 7), 9, np.uint8) * (VOLUME > 0), like, LUNG)
    assert not (tmp_path / "out.nii").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("out.jpg", r"out\.jpg: \.jpg cannot hold label values faithfully; give a \.png name"),
        ("out.nii.gz", r"out\.nii\.gz: a picture has no geometry for \.nii\.gz; give a \.png name"),
        ("out.txt", r"out\.txt: no image format is known by this suffix"),
    ],
)
def test_formats_that_cannot_hold_a_pictures_labels_are_refused(tmp_path, name, message):
    Pillow.fromarray(PICTURE).save(tmp_path / "in.png")
    with pytest.raises(ImageError, match=message):
        write_label_map(tmp_path / name, MASK, read_image(tmp_path / "in.png"), LUNG)


def test_a_volume_is_not_written_as_a_picture(tmp_path):
    like = read_image(save_nifti(tmp_path / "a.nii"))
    with pytest.raises(ImageError, match=r"out\.png: a volume \(5, 6, 7\) does not fit into a picture"):
        write_label_map(tmp_path / "out.png", indices_for(like), like, LUNG)


def test_the_same_map_gives_the_same_bytes_and_a_folder_is_made(tmp_path):
    like = read_image(save_nifti(tmp_path / "a.nii"))
    indices = indices_for(like)
    write_label_map(tmp_path / "x/y/one.nii.gz", indices, like, LUNG)
    write_label_map(tmp_path / "x/two.nii.gz", np.asfortranarray(indices), like, LUNG)
    assert (tmp_path / "x/y/one.nii.gz").read_bytes() == (tmp_path / "x/two.nii.gz").read_bytes()


@pytest.mark.parametrize("name", ["out.nii.gz", "out.nii", "out.img", "out.nrrd", "out.mha"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, name):
    """A limit on file sizes stands for the disk: in a process of its own, for it cannot be lifted again."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / name).write_bytes(b"old")
    big = save_nifti(tmp_path / "in.nii", RNG.integers(0, 9, (40, 40, 40)).astype(np.int16))
    code = f"""
import resource, signal, numpy as np
from r2seg.data.images import read_image, write_label_map
from r2seg.errors import UserError
import SimpleITK
image = read_image({str(big)!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
try:
    write_label_map({str(folder / name)!r}, np.random.default_rng(0).integers(0, 256, image.shape).astype(np.uint8), image,
                    {{str(i): i for i in range(1, 256)}})
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"{name}: cannot be written: " in done.stdout, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert [p.name for p in folder.iterdir()] == [name]
    assert (folder / name).read_bytes() == b"old"


def test_a_failure_while_writing_removes_what_was_begun(tmp_path, monkeypatch):
    like = read_image(save_nifti(tmp_path / "a.nii"))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for name in ("out.nii.gz", "out.mhd"):
        with pytest.raises(ImageError, match=rf"{name}: cannot be written: No space left on device"):
            write_label_map(tmp_path / name, indices_for(like), like, LUNG)
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii"]


def test_a_folder_that_may_not_be_written_is_one_line(tmp_path, monkeypatch):
    like = read_image(save_nifti(tmp_path / "a.nii"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ImageError, match=r"out\.nii: cannot be written: (Not a directory|File exists)"):
        write_label_map(tmp_path / "file/out.nii", indices_for(like), like, LUNG)

    def locked(*_, **__):  # root may write everywhere, so that a folder's mode would prove nothing
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", locked)
    with pytest.raises(ImageError, match=r"out\.nii: cannot be written: Permission denied"):
        write_label_map(tmp_path / "locked/out.nii", indices_for(like), like, LUNG)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
@pytest.mark.parametrize("classes", [1, 2, 3])
def test_probabilities_come_back_within_half_a_step(tmp_path, suffix, classes):
    source = save_nifti(tmp_path / "a.nii", affine=affine_of(oblique()))
    like = read_image(source)
    probabilities = RNG.random((classes, *like.shape)).astype(np.float32)
    probabilities[0, 0, 0, :2] = 0, 1
    path = write_probabilities(tmp_path / f"p{suffix}", probabilities, like)
    read = read_probabilities(path)
    assert read.array.shape == probabilities.shape
    np.testing.assert_allclose(read.array, probabilities, atol=0.5 / 65535 + 1e-7)
    check_same_grid(like, read)
    if suffix.startswith(".nii"):
        image = nibabel.load(path)
        assert image.shape == (*like.shape, classes)
        assert image.get_data_dtype() == np.uint16
        np.testing.assert_allclose(np.moveaxis(image.get_fdata(), -1, 0), probabilities, atol=0.5 / 65535 + 1e-7)
        allowed = {"dim", "pixdim", "datatype", "bitpix", "scl_slope", "scl_inter", "cal_min", "cal_max"}
        assert differing_fields(source, path) <= allowed


def test_a_pictures_probabilities_are_npy(tmp_path):
    Pillow.fromarray(PICTURE).save(tmp_path / "in.png")
    probabilities = RNG.random((2, 20, 30))
    path = write_probabilities(tmp_path / "p/in.png", probabilities, read_image(tmp_path / "in.png"))
    assert path == tmp_path / "p/in.npy"
    stored = np.load(path)
    assert (stored.dtype, stored.shape) == (np.uint16, (20, 30, 2))
    np.testing.assert_allclose(read_probabilities(path).array, probabilities, atol=0.5 / 65535 + 1e-7)


# Damage


def cut(path: Path, share: float) -> Path:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    return path


@pytest.mark.parametrize("suffix", [s for s in IMAGE_SUFFIXES if s not in (".pnm", ".pnm.gz", ".jpeg", ".tiff")])
def test_missing_empty_and_truncated_files_are_one_line(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix in (".nii", ".nii.gz", ".img"):
        save_nifti(path, RNG.integers(0, 999, (20, 20, 20)).astype(np.int16))
    elif suffix in (".nrrd", ".mha", ".mhd"):
        save_itk(path, RNG.integers(0, 999, (20, 20, 20)).astype(np.int16))
    elif suffix == ".npy":
        np.save(path, PICTURE)
    else:
        plain = tmp_path / f"plain{suffix.removesuffix('.gz')}"
        Pillow.fromarray(PICTURE[..., 0] > 9 if ".pbm" in suffix else PICTURE).save(plain)
        path.write_bytes(gzip.compress(plain.read_bytes()) if suffix.endswith(".gz") else plain.read_bytes())
    read_image(path)
    data = next(iter(tmp_path.glob("a*raw")), path)  # .mhd keeps its voxels elsewhere
    for share in (0.9, 0.5, 0.02):
        cut(data, share)
        with pytest.raises(ImageError) as caught:
            read_image(path)
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(f"{path}: ")
    path.write_bytes(b"")
    with pytest.raises(ImageError, match=r"the file is empty \(0 bytes\)"):
        read_image(path)
    path.write_bytes(RNG.bytes(3000))
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(ImageError, match=rf"a{suffix}: does not exist"):
        read_image(path)
    path.mkdir()
    with pytest.raises(ImageError, match="is a folder, expected an image file"):
        read_image(path)


def test_damage_within_gzip_data_is_noticed(tmp_path):
    path = save_nifti(tmp_path / "a.nii.gz", RNG.integers(0, 999, (20, 20, 20)).astype(np.int16))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"compressed data are damaged|truncated"):
        read_image(path)
    path.write_bytes(save_nifti(tmp_path / "b.nii").read_bytes())
    with pytest.raises(ImageError, match=r"a\.nii\.gz: cannot be read: "):
        read_image(path)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".npy", ".tif"])
def test_nan_and_infinite_voxels_are_counted_and_the_first_one_located(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    array = np.zeros((4, 5), np.float32)
    array[1, 2], array[3, 4] = np.nan, np.inf
    where = r"\(1, 2\)"
    if suffix.startswith(".nii"):
        save_nifti(path, np.repeat(array[..., None], 2, -1))
        count, where = 4, r"\(1, 2, 0\)"
    elif suffix == ".nrrd":
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.stack([array.T] * 2)), str(path))
        count, where = 4, r"\(1, 2, 0\)"
    else:
        count = 2
        np.save(path, array) if suffix == ".npy" else tifffile.imwrite(path, array)
    with pytest.raises(ImageError, match=rf"{count} voxels are NaN or infinite, the first \(nan\) at index {where}"):
        read_image(path)


def test_values_near_the_largest_float_are_finite(tmp_path):
    np.save(tmp_path / "a.npy", np.full((20, 30), 1e308))
    assert read_image(tmp_path / "a.npy").array.dtype == np.float64


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.zeros((2, 3, 4, 1, 3), np.int16),
            r"has 5 axes \(2, 3, 4, 1, 3\); expected 2, 3, or 4 whose last is channels",
        ),
        (np.zeros((2, 3, 4), np.complex64), r"holds complex numbers \(complex64\)"),
        (np.zeros((2, 0, 4), np.int16), r"has no pixels: shape \(2, 0, 4\)"),
        (np.zeros(9, np.int16), r"has 1 axes \(9,\)"),
    ],
)
def test_arrays_that_are_no_image_are_refused(tmp_path, array, message):
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(ImageError, match=message):
        read_image(tmp_path / "a.nii.gz")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((9, 9, 40)), r"has shape \(9, 9, 40\); expected \(rows, columns\) or .* at most 16 channels"),
        (np.zeros((0, 9)), r"has no pixels: shape \(0, 9\)"),
        (np.zeros((9, 9), complex), "holds values of type complex128"),
        (np.array([["a", "b"]]), "holds values of type <U1"),
        (np.array([[{}]], object), "cannot be read: .*(allow_pickle|Python objects)"),
    ],
)
def test_npy_that_is_no_picture_is_refused(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(ImageError, match=message):
        read_image(tmp_path / "a.npy")


def test_an_affine_that_cannot_be_inverted_is_refused(tmp_path):
    path = save_nifti(tmp_path / "a.nii", sform_code=1, srow_z=[0, 0, 0, 5])
    with pytest.raises(ImageError, match=r"its affine \[.*; 0 0 0 5\] is singular or not finite; repair the header"):
        read_grid(path)
    path = save_nifti(tmp_path / "a.nii", sform_code=1, srow_z=[0, np.nan, 1, 5])
    with pytest.raises(ImageError, match="singular or not finite"):
        read_grid(path)


def test_analyze_states_no_orientation_and_is_refused(tmp_path):
    nibabel.save(nibabel.AnalyzeImage(VOLUME, np.eye(4)), tmp_path / "a.img")
    with pytest.raises(ImageError, match=r"a\.img: is \w+, which states no orientation; convert it to NIfTI"):
        read_image(tmp_path / "a.img")
    (tmp_path / "a.hdr").unlink()
    with pytest.raises(ImageError, match=r"a\.img: its header a\.hdr is missing"):
        read_image(tmp_path / "a.img")


def test_a_header_that_promises_more_than_memory_is_one_line(tmp_path):
    path = save_nifti(tmp_path / "a.nii", dim=[3, 30000, 30000, 30000, 1, 1, 1, 1])
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(path.read_bytes()))
    for name in ("a.nii", "b.nii.gz"):
        with pytest.raises(ImageError, match=rf"{name}: (is truncated|cannot be read: it does not fit into memory)"):
            read_image(tmp_path / name)


def test_random_bytes_changed_in_a_header_never_escape_as_another_error(tmp_path):
    rng = np.random.default_rng(5)
    nifti = save_nifti(tmp_path / "a.nii").read_bytes()
    Pillow.fromarray(PICTURE[:4, :4]).save(tmp_path / "a.png")
    Pillow.fromarray(PICTURE[:4, :4]).save(tmp_path / "a.tif")
    seeds = {"a.nii": nifti, "a.png": (tmp_path / "a.png").read_bytes(), "a.tif": (tmp_path / "a.tif").read_bytes()}
    for name, whole in seeds.items():
        for _ in range(60):
            changed = bytearray(whole)
            for position in rng.integers(0, min(len(whole), 348), 4):
                changed[position] = rng.integers(256)
            (tmp_path / name).write_bytes(changed)
            try:
                read_image(tmp_path / name)
            except ImageError as error:
                assert "\n" not in str(error)


# Real files


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason=f"needs {REAL}")
def test_real_masks_read_as_their_threshold_and_come_back(tmp_path):
    masks = [
        *sorted((REAL / "chase_db1").glob("*HO.png"))[:2],
        *sorted((REAL / "chase_db1/fov_mask").glob("*.gif"))[:2],
        *sorted((REAL / "isic2018").rglob("*_segmentation.png"))[:2],
    ]
    assert len(masks) == 6
    for path in masks:
        read = read_label_map(path, LUNG)
        np.testing.assert_array_equal(read.array[0], np.asarray(Pillow.open(path).convert("L")) > 127)
        write_label_map(tmp_path / "a.png", read.array[0], read_image(path), LUNG)
        np.testing.assert_array_equal(read_label_map(tmp_path / "a.png", LUNG).array, read.array)


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason=f"needs {REAL}")
def test_reading_a_ct_costs_little_more_than_inflating_it():
    path = REAL / "lctsc/images/LCTSC-104.nii.gz"

    def seconds(task) -> float:
        times = []
        for _ in range(3):
            start = time.process_time()
            task()
            times.append(time.process_time() - start)
        return min(times)

    inflate = seconds(lambda: gzip.decompress(path.read_bytes()))
    assert seconds(lambda: read_image(path)) < 1.4 * inflate + 0.02
    assert read_image(path).array.dtype == np.int16
    assert seconds(lambda: read_grid(path)) < 0.02
