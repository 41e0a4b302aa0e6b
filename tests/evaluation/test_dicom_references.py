"""References drawn as RTSTRUCT are scored on the grid of their image."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from dicom_files import stored_values, write_rtstruct, write_series

from r2seg.data.cases import Case
from r2seg.data.images import read_image
from r2seg.errors import UserError
from r2seg.evaluation.evaluate import evaluate
from r2seg.evaluation.options import EvaluationOptions
from r2seg.evaluation.viewer import show


def test_an_rtstruct_is_scored_on_the_grid_of_its_series(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "images/a", stored_values((3, 24, 20)))
    write_series(folder, stored_values((3, 24, 20)), name="x{}".format, SeriesNumber=9)
    affine = np.diag([-1.0, -1, 1, 1]) @ read_image(folder, series=(3,)).affine
    corners = np.array([(4.5, 4.5, 1), (9.5, 4.5, 1), (9.5, 8.5, 1), (4.5, 8.5, 1)])  # 5 x 4 centres
    square = corners @ affine[:3, :3].T + affine[:3, 3]
    reference = write_rtstruct(tmp_path / "labels/a.dcm", {"Lung": [square]})
    predicted = np.zeros((20, 24, 3), np.uint8)
    predicted[5:10, 5:7, 1] = 1  # 5 x 2 of them
    (tmp_path / "out").mkdir()
    written = nibabel.Nifti1Image(predicted, read_image(folder, series=(3,)).affine)
    nibabel.save(written, tmp_path / "out/a.nii.gz")
    options = EvaluationOptions(labels={"lung": 1}, series=(3,), workers=1)
    report = evaluate(tmp_path / "out", [Case("a", (folder,), (reference,))], options)
    assert report.rows[0].counts[:3] == (10, 0, 10)
    assert show(report, "worst", "a", "lung", "dice").slices[0].image is not None
    by_folder = EvaluationOptions(labels={"lung": 1}, images=tmp_path / "images", series=(3,), workers=1)
    assert evaluate(tmp_path / "out", tmp_path / "labels", by_folder).rows[0].counts[:3] == (10, 0, 10)
    with pytest.raises(
        UserError, match=r"a\.dcm: is drawn in millimetres and needs the grid of its image: .* --images"
    ):
        evaluate(tmp_path / "out", tmp_path / "labels", EvaluationOptions(labels={"lung": 1}, workers=1))
