"""RTSTRUCT and DICOM-SEG as label maps: contours against analytic circles, segments against what highdicom wrote."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
from dicom_files import OBLIQUE, stored_values, write_rtstruct, write_series
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from r2seg.config import Config
from r2seg.data.formats import open_file
from r2seg.data.images import ImageError, check_same_grid, read_image, read_label_map
from r2seg.data.layouts import find_cases
from r2seg.data.transforms import ReadCase
from r2seg.labels import Label

VALUES = stored_values((5, 24, 20))
LUNG, BOTH = {"lung": 1}, {"lung": 1, "heart": 2}
LPS_FROM_RAS = np.diag([-1.0, -1, 1, 1])


@pytest.fixture(scope="module")
def oblique(tmp_path_factory) -> Path:
    return write_series(tmp_path_factory.mktemp("dicom") / "oblique", VALUES, orientation=OBLIQUE)


@pytest.fixture(scope="module")
def axial(tmp_path_factory) -> Path:
    return write_series(tmp_path_factory.mktemp("dicom") / "axial", VALUES)


def placed(folder: Path, columns_rows_slice: np.ndarray) -> np.ndarray:
    """Voxel indices (N, 3) -> LPS+ millimetres, by the series' affine (which other tests hold against the headers)."""
    affine = LPS_FROM_RAS @ read_image(folder).affine
    return columns_rows_slice @ affine[:3, :3].T + affine[:3, 3]


def circle(folder: Path, centre_mm, radius_mm: float, k: float, points: int = 720, kinds=(0.7, 0.8)) -> np.ndarray:
    """A circle in slice k around a place in its plane, in millimetres from the first pixel."""
    angles = np.linspace(0, 2 * np.pi, points, endpoint=False)
    plane = np.column_stack([np.cos(angles), np.sin(angles)]) * radius_mm + centre_mm
    return placed(folder, np.column_stack([plane / kinds, np.full(points, k)]))


def polygon(folder: Path, corners, k: float) -> np.ndarray:
    return placed(folder, np.column_stack([np.array(corners, float), np.full(len(corners), k)]))


def square(folder: Path, low: float, high: float, k: float) -> np.ndarray:
    return polygon(folder, [(low, low), (high, low), (high, high), (low, high)], k)


def distance_mm(centre_mm) -> np.ndarray:
    """Of each pixel (column, row) from a place in the plane."""
    columns, rows = np.ogrid[:20, :24]
    return np.hypot(columns * 0.7 - centre_mm[0], rows * 0.8 - centre_mm[1])


@pytest.mark.parametrize("series", ["axial", "oblique"])
def test_a_circle_holds_the_voxels_whose_centres_it_holds(tmp_path, request, series):
    folder = request.getfixturevalue(series)
    centre, radius = (6.63, 9.21), 5.17
    away = distance_mm(centre)
    # The polygon of 720 points lies within 5e-5 mm of the circle: no centre is that near.
    assert np.abs(away - radius).min() > 1e-3
    path = write_rtstruct(tmp_path / "rt.dcm", {"Lung": [circle(folder, centre, radius, k) for k in (1, 2)]})
    label = read_label_map(path, LUNG, like=open_file(folder))
    expected = np.zeros((20, 24, 5), np.uint8)
    expected[:, :, 1:3] = (away < radius)[..., None]
    np.testing.assert_array_equal(label.array[0], expected)
    # A pixel is counted wrongly only if the circle passes through it.
    area, half_diagonal = label.array[0, :, :, 1].sum() * 0.7 * 0.8, np.hypot(0.7, 0.8) / 2
    assert np.pi * (radius - half_diagonal) ** 2 < area < np.pi * (radius + half_diagonal) ** 2
    check_same_grid(read_image(folder), label)


def test_on_a_tilted_series_contours_fill_the_slices_they_lie_in(tmp_path):
    folder = write_series(tmp_path / "tilted", VALUES, step=(0, 0.625, 2.5))
    path = write_rtstruct(tmp_path / "rt.dcm", {"lung": [circle(folder, (6.63, 9.21), 5.17, 4)]})
    label = read_label_map(path, LUNG, like=open_file(folder)).array[0]
    np.testing.assert_array_equal(label[:, :, 4], distance_mm((6.63, 9.21)) < 5.17)
    assert not label[:, :, :4].any()


def test_a_contour_in_another_is_a_hole_and_one_in_the_hole_is_not(tmp_path, axial):
    rings = [circle(axial, (6.63, 9.21), radius, 2) for radius in (5.17, 3.33, 1.61)]
    label = read_label_map(write_rtstruct(tmp_path / "rt.dcm", {"lung": rings}), LUNG, like=open_file(axial)).array[
        0, :, :, 2
    ]
    away = distance_mm((6.63, 9.21))
    np.testing.assert_array_equal(label, ((away < 5.17) & ~(away < 3.33)) | (away < 1.61))


def test_a_centre_on_the_contour_is_inside(tmp_path, axial):
    path = write_rtstruct(tmp_path / "rt.dcm", {"lung": [square(axial, 3, 6, 0)]})
    expected = np.zeros((20, 24), np.uint8)
    expected[3:7, 3:7] = 1
    np.testing.assert_array_equal(read_label_map(path, LUNG, like=open_file(axial)).array[0, :, :, 0], expected)


def test_structures_are_matched_by_name_and_the_rest_is_told(tmp_path, axial, caplog):
    rois = {" LUNG ": [square(axial, 2.5, 6.5, 0)], "Cord": [square(axial, 8.5, 9.5, 0)], "Couch": []}
    path = write_rtstruct(tmp_path / "rt.dcm", rois)
    label = read_label_map(path, BOTH, like=open_file(axial))
    assert np.unique(label.array).tolist() == [0, 1] and label.array.sum() == 16
    assert "rt.dcm: holds no heart; it holds Cord, LUNG" in caplog.text
    assert "rt.dcm: not declared in data.labels and left out: Cord" in caplog.text
    with pytest.raises(
        ImageError, match=r"rt\.dcm: holds none of the labels liver; it holds Cord, LUNG: name them in data"
    ):
        read_label_map(path, {"liver": 1}, like=open_file(axial))


def test_a_voxel_that_two_structures_claim_goes_to_the_label_declared_last(tmp_path, axial, caplog):
    rois = {"heart": [square(axial, 4.5, 7.5, 0)], "lung": [square(axial, 2.5, 6.5, 0)]}
    path = write_rtstruct(tmp_path / "rt.dcm", rois)
    label = read_label_map(path, BOTH, like=open_file(axial)).array[0, :, :, 0]
    assert (label == 1).sum() == 16 - 4 and (label == 2).sum() == 9
    assert "4 voxels claimed by both lung and heart: given to heart, which is declared later" in caplog.text
    caplog.clear()
    label = read_label_map(path, {"heart": 1, "lung": 2}, like=open_file(axial)).array[0, :, :, 0]
    assert (label == 2).sum() == 16 and "given to lung" in caplog.text


def test_contours_that_do_not_fit_are_told_or_refused(tmp_path, axial, caplog):
    good = [square(axial, 2.5, 6.5, k) for k in (0, 1, 3)]
    odd = [square(axial, 2.5, 6.5, 1.5), polygon(axial, [(1, 1), (2, 2)], 0)]
    path = write_rtstruct(tmp_path / "some.dcm", {"lung": [*good, *odd, good[0]]})
    label = read_label_map(path, LUNG, like=open_file(axial)).array[0]
    assert label.sum(axis=(0, 1)).tolist() == [16, 16, 0, 16, 0]
    for said in (
        "structure 'lung': 1 contour between slices (at slices 1.5, counted from 0) left out",
        "structure 'lung': 1 contour left out that enclose no area",
        "structure 'lung' has no contour on 1 slice between its first and last one (2, counted from 0)",
        "structure 'lung' holds a contour of slice 0 twice: used once",
    ):
        assert f"some.dcm: {said}" in caplog.text
    path = write_rtstruct(
        tmp_path / "other.dcm", {"lung": [good[0], *(square(axial, 2, 6, k + 0.5) for k in range(4))]}
    )
    with pytest.raises(
        ImageError, match=r"'lung' does not fit the slices .*4 contours between slices .* of 5; was it drawn"
    ):
        read_label_map(path, LUNG, like=open_file(axial))
    path = write_rtstruct(tmp_path / "away.dcm", {"lung": [square(axial, 200, 210, 1), square(axial, 2, 6, 9)]})
    with pytest.raises(ImageError, match=r"2 contours outside the image of 2"):
        read_label_map(path, LUNG, like=open_file(axial))
    upright = placed(axial, np.array([(2.0, 5, 0), (6, 5, 0), (6, 5, 3), (2, 5, 3)]))
    path = write_rtstruct(tmp_path / "upright.dcm", {"lung": [upright]})
    with pytest.raises(ImageError, match=r"does not lie in a slice of .*: it reaches from slice 0 to 3"):
        read_label_map(path, LUNG, like=open_file(axial))


def test_several_structures_can_be_one_label(tmp_path, axial, caplog):
    path = write_rtstruct(
        tmp_path / "rt.dcm", {"Lung_L": [square(axial, 2, 6, 0)], "Lung_R": [square(axial, 10, 14, 0)], "Heart": []}
    )
    labels = {"lung": Label((1,), structures=("lung_l", "Lung_R", "Lung_M"))}
    label = read_label_map(path, labels, like=open_file(axial)).array[0, :, :, 0]
    each = [read_label_map(path, {name: 1}, like=open_file(axial)).array[0, :, :, 0] for name in ("Lung_L", "Lung_R")]
    assert each[0].any() and each[1].any()
    np.testing.assert_array_equal(label, each[0] | each[1])
    assert "holds no Lung_M" in caplog.text


def test_two_structures_of_one_name_are_refused(tmp_path, axial):
    path = write_rtstruct(tmp_path / "rt.dcm", {"Lung": [square(axial, 2, 6, 0)], "lung": [square(axial, 2, 6, 1)]})
    with pytest.raises(ImageError, match=r"2 structures are named 'Lung': rename or remove one"):
        read_label_map(path, LUNG, like=open_file(axial))


def test_a_label_of_another_image_is_refused(tmp_path, axial):
    path = write_rtstruct(tmp_path / "rt.dcm", {"lung": [square(axial, 2, 6, 0)]})
    other = write_series(tmp_path / "other", VALUES, FrameOfReferenceUID="1.2.3.4")
    with pytest.raises(
        ImageError, match=r"drawn in the frame of reference .* has 1\.2\.3\.4: it belongs to another image"
    ):
        read_label_map(path, LUNG, like=open_file(other))
    with pytest.raises(ImageError, match=r"rt\.dcm: is drawn in millimetres and needs the grid of its image"):
        read_label_map(path, LUNG)
    with pytest.raises(ImageError, match=r"rt\.dcm: is of the kind RTSTRUCT: a label, not an image"):
        read_image(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=r"rt\.dcm: ") as caught:
        read_label_map(path, LUNG, like=open_file(axial))
    assert "\n" not in str(caught.value)


def test_an_rtstruct_fills_a_nifti_copy_of_its_series_too(tmp_path, axial):
    image = read_image(axial)
    nibabel.save(nibabel.Nifti1Image(image.array[0], image.affine), tmp_path / "ct.nii.gz")
    path = write_rtstruct(tmp_path / "rt.dcm", {"lung": [circle(axial, (6.63, 9.21), 5.17, 2)]})
    copied = read_label_map(path, LUNG, like=open_file(tmp_path / "ct.nii.gz"))
    np.testing.assert_array_equal(copied.array, read_label_map(path, LUNG, like=open_file(axial)).array)


def write_seg(path: Path, folder: Path, masks: np.ndarray, names: list[str], kind: str = "BINARY", rows=None) -> Path:
    """A DICOM-SEG of masks (slices, rows, columns, segments) in the order of the files of a series."""
    slices = [pydicom.dcmread(file) for file in sorted(folder.iterdir())]
    for one in slices if rows is None else ():
        one.PatientName = "P1"
    described = [
        highdicom.seg.SegmentDescription(
            number, name, codes.SCT.Organ, codes.SCT.Lung, highdicom.seg.SegmentAlgorithmTypeValues.MANUAL
        )
        for number, name in enumerate(names, start=1)
    ]
    pixels = masks.astype(float) if kind == "FRACTIONAL" else masks.astype(np.uint8)
    written = highdicom.seg.Segmentation(
        slices, pixels, kind, described, generate_uid(), 9, generate_uid(), 1, "maker", "model", "1", "0"
    )
    written.save_as(path)
    return path


MASKS = np.random.default_rng(1).random((5, 24, 20, 1)) < 0.3
MASKS = np.concatenate([MASKS, ~MASKS & (np.random.default_rng(2).random(MASKS.shape) < 0.4)], axis=-1)
MASKS[1, ..., 0] = False  # a slice without lung is not in the file


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("series", ["axial", "oblique"])
def test_segments_come_back_as_they_were_written(tmp_path, request, series, kind):
    folder = request.getfixturevalue(series)
    path = write_seg(tmp_path / "seg.dcm", folder, MASKS, ["Heart", "Lung"], kind)
    label = read_label_map(path, BOTH, like=open_file(folder))
    np.testing.assert_array_equal(label.array[0].T, np.where(MASKS[..., 1], 1, np.where(MASKS[..., 0], 2, 0)))
    check_same_grid(read_image(folder), label)


def test_segments_of_other_names_are_matched_by_number(tmp_path, axial, caplog):
    path = write_seg(tmp_path / "seg.dcm", axial, MASKS, ["Segment_1", "Segment_2"])
    label = read_label_map(path, {"lung": 2}, like=open_file(axial))
    np.testing.assert_array_equal(label.array[0].T, MASKS[..., 1])
    assert "matched by number: lung is segment 2 'Segment_2'" in caplog.text
    assert "left out: Segment_1" in caplog.text
    with pytest.raises(ImageError, match=r"holds none of the labels lung; it holds Segment_1, Segment_2"):
        read_label_map(path, {"lung": 7}, like=open_file(axial))


def test_a_segmentation_of_another_grid_is_refused(tmp_path, axial):
    path = write_seg(tmp_path / "seg.dcm", axial, MASKS, ["Heart", "Lung"])
    moved = write_series(tmp_path / "moved", VALUES, origin=(-100.25 + 0.35, 40.5, -300.75))
    with pytest.raises(
        ImageError, match=r"seg\.dcm: frame 5 does not lie on the voxels of .* first pixel is at voxel \(-0\.5, "
    ):
        read_label_map(path, BOTH, like=open_file(moved))
    shorter = write_series(tmp_path / "shorter", VALUES[:3])
    with pytest.raises(ImageError, match=r"marks .*, some of them outside the image"):
        read_label_map(path, BOTH, like=open_file(shorter))
    fractional = write_seg(tmp_path / "fractional.dcm", axial, MASKS * 0.5, ["Heart", "Lung"], "FRACTIONAL")
    with pytest.raises(
        ImageError, match=r"fractional\.dcm: is a fractional segmentation, whose threshold nobody has chosen"
    ):
        read_label_map(fractional, BOTH, like=open_file(axial))


def test_a_tree_of_series_and_structures_trains_as_it_is(tmp_path, axial, caplog):
    for name in ("1.2.826.10", "1.2.826.11"):
        shutil.copytree(axial, tmp_path / "images" / name)
    write_rtstruct(tmp_path / "labels/1.2.826.10.dcm", {"lung": [circle(axial, (6.63, 9.21), 5.17, 2)]})
    write_seg(tmp_path / "seg.dcm", axial, MASKS, ["Heart", "Lung"])
    (tmp_path / "labels/1.2.826.11").mkdir()
    (tmp_path / "seg.dcm").rename(tmp_path / "labels/1.2.826.11/1-1.dcm")
    config = Config.model_validate(
        {
            "name": "x",
            "data": {"root": tmp_path, "labels": BOTH, "series": 3},
            "window": {"size": [16, 16]},
        }
    )
    assert config.data.series == (3,)
    with caplog.at_level(logging.WARNING):
        samples = [ReadCase(config.data)(case) for case in find_cases(config.data)]
    assert [sample["case"].id for sample in samples] == ["1.2.826.10", "1.2.826.11"]
    np.testing.assert_array_equal(samples[0]["indices"][:, :, 2], distance_mm((6.63, 9.21)) < 5.17)
    np.testing.assert_array_equal(samples[1]["indices"].T == 1, MASKS[..., 1])
    np.testing.assert_array_equal(samples[1]["image"].array[0].T, VALUES)
