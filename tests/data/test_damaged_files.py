"""Files that are missing, cut, damaged or not an image: one clear line each."""

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile
from dicom_files import write_series
from image_files import (
    PICTURE,
    RNG,
    VOLUME,
    save_itk,
    save_nifti,
)
from PIL import Image as Pillow

from r2seg.data.images import (
    IMAGE_SUFFIXES,
    ImageError,
    read_grid,
    read_image,
)


def cut(path: Path, share: float) -> Path:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    return path


@pytest.mark.parametrize("suffix", [s for s in IMAGE_SUFFIXES if s not in (".pnm", ".pnm.gz", ".jpeg", ".tiff")])
def test_missing_empty_and_truncated_files_are_one_line(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix in (".nii", ".nii.gz", ".img"):
        save_nifti(path, RNG.integers(0, 999, (20, 20, 20)).astype(np.int16))
    elif suffix in (".nrrd", ".seg.nrrd", ".mha", ".mhd"):
        save_itk(path, RNG.integers(0, 999, (20, 20, 20)).astype(np.int16))
    elif suffix == ".npy":
        np.save(path, PICTURE)
    elif suffix == ".dcm":
        write_series(tmp_path, PICTURE[None, ..., 0].astype(np.uint16), name=lambda _: path.name)
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
def test_arrays_that_are_not_images_are_refused(tmp_path, array, message):
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
def test_npy_that_is_not_a_picture_is_refused(tmp_path, array, message):
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
