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
from r2seg.training.plots import panel_of


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
    assert panel.picture[panel.reference].min() > panel.picture[8:].max()  # the label lies on the bright front
    assert panel.aspect == pytest.approx(0.5)
    assert "Dice 0.500" in panel.title


def test_a_run_holds_its_pictures(tiny_run: Path) -> None:
    for name in ("course", "validation", "test"):
        pixels = np.asarray(Picture.open(tiny_run / f"plots/{name}.png").convert("RGB"))
        assert min(pixels.shape[:2]) > 200
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20  # something is drawn
