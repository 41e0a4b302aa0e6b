"""NIfTI against nibabel: voxels, affines in every orientation, and headers field by field."""

import gzip

import nibabel
import numpy as np
import pytest
from image_files import (
    LUNG,
    ORIENTATIONS,
    RNG,
    VOLUME,
    affine_of,
    differing_fields,
    indices_for,
    oblique,
    save_nifti,
)

from r2seg.data.images import (
    read_grid,
    read_image,
    read_label_map,
    write_label_map,
)


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
