"""The sample data: small, of several orientations, labels on the images' grids, and exactly what its script makes."""

import importlib.util
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from r2seg.data.images import check_same_grid, read_image, read_label_map

SAMPLES = Path(__file__).parents[1] / "sample_data"


@pytest.fixture(scope="module")
def make_samples():
    spec = importlib.util.spec_from_file_location("make_samples", SAMPLES / "make_samples.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def lung_pairs() -> list[tuple[nibabel.Nifti1Image, nibabel.Nifti1Image]]:
    images = sorted((SAMPLES / "lung/images").glob("*.nii.gz"))
    labels = sorted((SAMPLES / "lung/labels").glob("*.nii.gz"))
    assert len(images) >= 8
    assert [p.name for p in images] == [p.name for p in labels]
    return [(nibabel.load(image), nibabel.load(label)) for image, label in zip(images, labels, strict=True)]


def test_all_files_together_are_below_8_megabytes():
    files = [path for path in SAMPLES.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert len(files) > 40
    assert sum(path.stat().st_size for path in files) < 8_000_000


def test_lung_labels_lie_on_their_images_grids():
    for image, label in lung_pairs():
        assert image.shape == label.shape
        assert (image.get_data_dtype(), label.get_data_dtype()) == (np.int16, np.uint8)
        for field in (
            "dim",
            "pixdim",
            "qform_code",
            "sform_code",
            "srow_x",
            "srow_y",
            "srow_z",
            "quatern_b",
            "qoffset_x",
        ):
            np.testing.assert_array_equal(image.header[field], label.header[field])


def test_lung_volumes_are_anisotropic_not_square_and_of_several_orientations():
    pairs = lung_pairs()
    codes = {"".join(nibabel.aff2axcodes(image.affine)) for image, _ in pairs}
    assert {"RAS", "LPS", "LAS", "PIR"} <= codes
    for image, _ in pairs:
        assert len(set(image.shape)) == 3
        zooms = np.array(image.header.get_zooms())
        assert zooms.max() > 2 * zooms.min()
    rotations = [image.affine[:3, :3] / np.linalg.norm(image.affine[:3, :3], axis=0) for image, _ in pairs]
    assert sum(np.abs(np.abs(rotation).max(axis=0) - 1).max() > 1e-3 for rotation in rotations) == 1, "one is oblique"


def test_lungs_lie_inside_the_body_heart_on_the_left_and_look_like_ct():
    for image, label in lung_pairs()[:4]:
        hu, lung = np.asanyarray(image.dataobj), np.asanyarray(label.dataobj).astype(bool)
        assert set(np.unique(label.dataobj)) == {0, 1}
        assert hu.min() == -1000
        assert 0.05 < lung.mean() < 0.2
        assert -900 < np.median(hu[lung]) < -750
        assert (hu[lung] > -300).mean() > 0.008, "vessels belong to the lung"
        assert (hu[~lung] < -900).mean() > 0.2, "air outside is not lung"
        parts, _ = ndimage.label(lung)
        sizes = np.bincount(parts.ravel())[1:]
        assert (sizes > 0.2 * lung.sum()).sum() == 2, "two lungs"
        # World coordinates: the lung nearer to +x (right) is the larger one, for the heart lies on the left.
        points = np.argwhere(lung) @ image.affine[:3, :3].T + image.affine[:3, 3]
        bone = np.argwhere(hu > 200) @ image.affine[:3, :3].T + image.affine[:3, 3]
        assert (points[:, 0] > 0).sum() > (points[:, 0] < 0).sum()
        assert np.median(bone[:, 1]) < np.median(points[:, 1]), "spine behind the lungs"


def test_each_picture_has_a_label_of_the_same_size():
    for name, columns, rows in (("retina", 160, 150), ("skin", 128, 96)):
        images = sorted((SAMPLES / name / "images").iterdir())
        assert len(images) == 6
        for path in images:
            label = SAMPLES / name / "labels" / f"{path.stem}.png"
            with Image.open(path) as picture, Image.open(label) as mask:
                assert (picture.mode, picture.size, mask.size) == ("RGB", (columns, rows), (columns, rows))
                assert 0.03 < (np.asarray(mask) > 0).mean() < 0.4
    assert len(list((SAMPLES / "retina/masks").iterdir())) == 6


def test_our_reader_reads_every_case():
    for name, label_name in (("lung", "lung"), ("retina", "vessel"), ("skin", "lesion")):
        images = sorted((SAMPLES / name / "images").iterdir())
        labels = sorted((SAMPLES / name / "labels").iterdir())
        assert len(images) == len(labels) >= 6
        for image, label in zip(images, labels, strict=True):
            read = read_label_map(label, {label_name: 1})
            check_same_grid(read_image(image), read)
            assert set(np.unique(read.array)) == {0, 1}


def test_the_script_makes_exactly_these_pixels(make_samples):
    index = 3
    hu, label, header = make_samples.make_lung(index)
    for kind, array in (("images", hu), ("labels", label)):
        stored = nibabel.load(SAMPLES / f"lung/{kind}/case_{index + 1:02d}.nii.gz")
        np.testing.assert_array_equal(stored.get_fdata(), array)
        np.testing.assert_array_equal(stored.affine, header.get_best_affine())
    picture, vessels, fov = make_samples.make_retina(0)
    for kind, array in (("images", picture), ("labels", vessels), ("masks", fov)):
        np.testing.assert_array_equal(np.asarray(Image.open(SAMPLES / f"retina/{kind}/eye_01L.png")), array)
    _, lesion = make_samples.make_skin(1)
    np.testing.assert_array_equal(np.asarray(Image.open(SAMPLES / "skin/labels/lesion_02.png")) > 0, lesion)
