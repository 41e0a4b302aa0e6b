"""Label maps and probabilities: what each format can hold, and whole files or none."""

import os
import subprocess
import sys

import nibabel
import numpy as np
import pytest
from image_files import LUNG, MASK, PICTURE, RNG, VOLUME, affine_of, differing_fields, indices_for, oblique, save_nifti
from PIL import Image as Pillow

from r2seg.data.images import (
    ImageError,
    check_same_grid,
    read_image,
    read_probabilities,
    write_label_map,
    write_probabilities,
)


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
