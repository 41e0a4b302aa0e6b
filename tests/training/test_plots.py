"""Pictures of a run: the slice that is shown is upright and its masks lie on it."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image as Picture
from tiny import write_config

from r2seg.config import load_config
from r2seg.data.cache import CachedCase, cache_cases
from r2seg.data.layouts import find_cases
from r2seg.labels import Label
from r2seg.training.plots import Panel, _contour_styles, panel_of, plot_panels


def cached(tmp_path: Path, affine: np.ndarray, **changes) -> CachedCase:
    """A body with a bright front, and the label at its front right, in any orientation of the file."""
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    voxels = np.full((20, 16, 6), -900, np.int16)
    voxels[:, 12:, 3] = 0  # anterior
    label = np.zeros(voxels.shape, np.uint8)
    label[14:18, 12:15, 3] = 1  # right, anterior
    ras = nib.Nifti1Image(voxels, np.diag([2.0, 1.0, 4.0, 1.0]))
    turned = nib.orientations.ornt_transform(nib.io_orientation(ras.affine), nib.io_orientation(affine))
    nib.save(ras.as_reoriented(turned), tmp_path / "images/a.nii.gz")
    nib.save(nib.Nifti1Image(label, ras.affine).as_reoriented(turned), tmp_path / "labels/a.nii.gz")
    config = load_config(write_config(tmp_path / "c.yaml", tmp_path, **changes))
    return cache_cases(find_cases(config.data), config, tmp_path / "cache")[0]


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR"])
@pytest.mark.parametrize("spacing", [None, [1.0, 1.0, 2.0]])
def test_axial_panels_have_anterior_up_and_the_patients_right_on_the_left(codes, spacing, tmp_path: Path) -> None:
    affine = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(tuple(codes)), (20, 16, 6))
    case = cached(tmp_path, affine, preprocessing={"spacing_mm": spacing})
    panel = panel_of(case, np.asarray(case.reference), 0.5, "axial")
    assert panel.reference.shape == panel.picture.shape == (16, 20)
    rows, columns = np.nonzero(panel.reference)
    assert rows.max() < 4 and columns.max() < 7  # up, and left
    np.testing.assert_array_equal(panel.reference, panel.prediction)
    assert panel.picture[panel.reference > 0].min() > panel.picture[8:].max()  # the label lies on the bright front
    assert panel.aspect == pytest.approx(0.5)
    assert "Dice 0.500" in panel.title


def drawn(folder: Path, reference: np.ndarray, prediction: np.ndarray, labels: list[str]) -> np.ndarray:
    panel = Panel("a", 0.5, np.zeros(reference.shape), reference, prediction)
    plot_panels([panel], {name: index for index, name in enumerate(labels, start=1)}, folder / "p.png")
    return np.asarray(Picture.open(folder / "p.png").convert("RGB")).astype(int)


def test_a_wrong_class_shows_in_the_pictures(tmp_path: Path) -> None:
    reference = np.zeros((40, 40), np.uint8)
    reference[5:15, 5:15], reference[22:35, 20:35] = 1, 2
    swapped = np.choose(reference, [0, 2, 1]).astype(np.uint8)
    right, wrong = (drawn(tmp_path, reference, each, ["one", "two"]) for each in (reference, swapped))
    assert (np.abs(right - wrong).max(-1) > 60).sum() > 100


def test_each_label_has_a_contour_where_it_touches_another(tmp_path: Path) -> None:
    reference = np.zeros((40, 40), np.uint8)
    reference[5:35, 5:20], reference[5:35, 20:35] = 1, 2
    joined = np.where(reference > 0, 1, 0).astype(np.uint8)
    apart, merged = (drawn(tmp_path, each, each, ["one", "two"]) for each in (reference, joined))
    middle = np.abs(apart - merged).max(-1) > 60
    assert middle.sum() > 100


@pytest.mark.parametrize("number", [2, 7, 8, 100])
def test_labels_have_colours_of_their_own(number: int) -> None:
    reference, prediction = _contour_styles({f"l{index}": index for index in range(1, number + 1)})
    assert len({colour for colour, _ in reference}) == number
    assert [colour for colour, _ in prediction] == [colour for colour, _ in reference]


def test_contours_have_the_colours_that_labels_declare() -> None:
    lung, heart = Label((1,), color=(0x3B, 0x82, 0xF6)), Label((2,), rgb=[(128, 0, 0)])
    assert _contour_styles({"lung": lung, "heart": heart}) == (
        [("#3b82f6", "solid"), ("#800000", "solid")],
        [("#3b82f6", "dashed"), ("#800000", "dashed")],
    )
    assert _contour_styles({"lung": lung})[0] == [("#3b82f6", "solid")]


def test_a_run_holds_its_pictures(tiny_run: Path) -> None:
    for name in ("course", "validation", "test"):
        pixels = np.asarray(Picture.open(tiny_run / f"plots/{name}.png").convert("RGB"))
        assert min(pixels.shape[:2]) > 200
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20  # something is drawn
