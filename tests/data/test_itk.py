"""NRRD and MetaImage against SimpleITK."""

import numpy as np
import pytest
import SimpleITK
from image_files import LUNG, RNG, VOLUME, affine_of, indices_for, oblique, save_itk, save_nifti

from r2seg.data.images import (
    ImageError,
    check_same_grid,
    read_grid,
    read_image,
    read_label_map,
    write_label_map,
)


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


@pytest.mark.parametrize("suffix", [".mhd", ".mha", ".nrrd"])
def test_a_percent_sign_in_a_name_is_not_a_pattern(tmp_path, suffix):
    """ITK gives the name of a data file to printf: %s ended the process."""
    image = read_image(save_nifti(tmp_path / "a.nii"))
    indices = indices_for(image)
    for path in (tmp_path / f"100%s %d ü{suffix}", tmp_path / f"50%s/a{suffix}"):
        write_label_map(path, indices, image, LUNG)
        np.testing.assert_array_equal(read_label_map(path, LUNG).array[0], indices)


@pytest.mark.parametrize("pattern", ["a%s.raw", "a%n.raw 1 2 1", "a%d%s.raw 1 7 1", "%99999999d.raw 1 7 1"])
def test_patterns_that_printf_must_not_see_are_refused(tmp_path, pattern):
    save_itk(tmp_path / "a.mhd")
    text = (tmp_path / "a.mhd").read_text()
    (tmp_path / "a.mhd").write_text(text.replace("a.raw", pattern))
    with pytest.raises(ImageError, match=r"a\.mhd: names its data .*, which is not a pattern such as slice_%03d\.raw"):
        read_grid(tmp_path / "a.mhd")


def test_one_file_per_slice_is_read(tmp_path):
    save_itk(tmp_path / "a.mhd")
    text, voxels = (tmp_path / "a.mhd").read_text(), (tmp_path / "a.raw").read_bytes()
    size = len(voxels) // 5
    for index in range(5):
        (tmp_path / f"s{index + 1:02}.raw").write_bytes(voxels[index * size : (index + 1) * size])
    (tmp_path / "a.mhd").write_text(text.replace("a.raw", "s%02d.raw 1 5 1"))
    (tmp_path / "a.raw").unlink()
    np.testing.assert_array_equal(read_image(tmp_path / "a.mhd").array[0], VOLUME.T)
    (tmp_path / "s03.raw").unlink()
    with pytest.raises(ImageError, match=r"a\.mhd: "):
        read_image(tmp_path / "a.mhd")


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
