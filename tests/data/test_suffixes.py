"""Suffixes in any case: what is written is what lies on the disk, under the name that was asked for."""

import gzip
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from dicom_files import write_series
from image_files import LUNG, PICTURE, VOLUME, save_itk, save_nifti
from PIL import Image as Pillow

from r2seg.data.formats import FORMATS, WRITABLE
from r2seg.data.images import (
    output_name,
    read_image,
    read_label_map,
    read_probabilities,
    write_label_map,
    write_probabilities,
)


def cases_of(suffix: str) -> list[str]:
    return [suffix, suffix.upper(), suffix.title()]


def make(path: Path) -> Path:
    """An image whose file has exactly this name; its second file, if the format has one, in the same case."""
    lower = path.with_name(path.name.lower())
    suffix = lower.name.removeprefix("scan")
    if suffix in (".nii", ".nii.gz", ".img"):
        save_nifti(lower)
    elif suffix == ".dcm":
        write_series(path.parent, PICTURE[None, ..., 0].astype(np.uint16), name=lambda _: lower.name)
    elif FORMATS[suffix].has_geometry:
        save_itk(lower)
    elif suffix == ".npy":
        np.save(lower, PICTURE)
    else:
        plain = lower.with_name(lower.name.removesuffix(".gz"))
        Pillow.fromarray(PICTURE[..., 0] > 9 if ".pbm" in suffix else PICTURE[..., 0]).save(plain)
        if suffix.endswith(".gz"):
            lower.write_bytes(gzip.compress(plain.read_bytes()))
            plain.unlink()
    lower.rename(path)
    header = lower.with_suffix(".hdr")
    if suffix == ".img" and path.suffix.isupper():
        header.rename(path.with_suffix(".HDR"))
    return path


@pytest.mark.parametrize("name", [f"scan{case}" for suffix in FORMATS for case in cases_of(suffix)])
def test_any_case_of_any_suffix_is_read_and_written_where_it_was_asked_for(tmp_path, name):
    (tmp_path / "in").mkdir()
    image = read_image(make(tmp_path / "in" / name))
    indices = np.random.default_rng(0).integers(0, 2, image.shape).astype(np.uint8)
    out = tmp_path / "out" / output_name(name)
    write_label_map(out, indices, image, LUNG)
    assert out.stat().st_size > 0
    assert out.name in [path.name for path in out.parent.iterdir()]
    assert not [path for path in out.parent.iterdir() if path.suffix == ".tmp"]
    np.testing.assert_array_equal(read_label_map(out, LUNG).array[0], indices)
    probabilities = np.stack([1 - indices, indices]).astype(np.float32)
    written = write_probabilities(tmp_path / "probabilities" / output_name(name), probabilities, image)
    assert written.stat().st_size > 0
    np.testing.assert_array_equal(read_probabilities(written).array, probabilities)


@pytest.mark.parametrize("suffix", [".MHA", ".MHD", ".NRRD", ".IMG", ".NII", ".NII.GZ"])
def test_others_read_what_was_written(tmp_path, suffix):
    image = read_image(save_nifti(tmp_path / "a.nii"))
    indices = (VOLUME > 0).astype(np.uint8)
    path = tmp_path / "out" / f"SCAN{suffix}"
    write_label_map(path, indices, image, LUNG)
    if suffix in (".IMG", ".NII", ".NII.GZ"):
        found = np.asarray(nibabel.load(path).dataobj)
    else:
        reader = SimpleITK.ImageFileReader()
        reader.SetFileName(str(path))
        reader.SetImageIO("NrrdImageIO" if suffix == ".NRRD" else "MetaImageIO")  # it recognises lower case only
        found = SimpleITK.GetArrayFromImage(reader.Execute()).T
    np.testing.assert_array_equal(found, indices)


def test_names_that_differ_only_in_case_share_no_data_file(tmp_path):
    image = read_image(save_nifti(tmp_path / "a.nii"))
    for suffixes in ((".mhd", ".MHD", ".Mhd"), (".img", ".IMG")):
        for number, suffix in enumerate(suffixes):
            write_label_map(tmp_path / f"out{suffix}", np.full(image.shape, number % 2, np.uint8), image, LUNG)
        for number, suffix in enumerate(suffixes):
            assert (read_label_map(tmp_path / f"out{suffix}", LUNG).array == number % 2).all()


@pytest.mark.parametrize("suffix", [s for s in WRITABLE if s not in (".mha", ".mhd", ".nrrd", ".seg.nrrd", ".img")])
def test_names_that_are_not_utf_8_are_read_and_written(tmp_path, suffix):
    image = read_image(make(tmp_path / f"scan{suffix}").rename(tmp_path / (os.fsdecode(b"sc\xffan") + suffix)))
    out = tmp_path / "out" / image.path.name
    write_label_map(out, np.zeros(image.shape, np.uint8), image, LUNG)
    assert out.stat().st_size > 0 and not read_label_map(out, LUNG).array.any()


def test_every_writable_suffix_is_tried():
    assert len(WRITABLE) >= 9
