"""Folders with DICOM series as inputs of r2seg-infer: one case for each, label maps as NIfTI on the series' grid."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from dicom_files import OBLIQUE, stored_values, write_rtstruct, write_series
from tiny import settings

from r2seg.config import Config
from r2seg.data.images import ImageError
from r2seg.errors import UserError
from r2seg.inference.batch import infer, plan_jobs
from r2seg.inference.segmenter import Segmenter

VALUES = stored_values((4, 18, 22))


class Bright(torch.nn.Module):
    """Finds values above 0 HU in the window from -1000 to 1000."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([0.5 - image, image - 0.5], 1)


def segmenter() -> Segmenter:
    config = Config.model_validate(
        settings(Path("unused"), preprocessing={"intensity": {"kind": "hu_window", "low": -1000, "high": 1000}})
    )
    return Segmenter(Bright(), config, in_channels=1, image_dims=3, device=torch.device("cpu"))


def test_a_series_gives_a_label_map_on_its_own_grid(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "1.2.840.113", VALUES, orientation=OBLIQUE, reverse=True)
    (job,) = plan_jobs([folder], tmp_path / "out", 1)
    assert job.output == tmp_path / "out/1.2.840.113.nii.gz"
    assert [outcome.error for outcome in infer(segmenter(), [job])] == [None]
    written = nibabel.load(job.output)
    np.testing.assert_array_equal(np.asarray(written.dataobj).T, VALUES > 0)
    row, column = OBLIQUE[:3] * 0.7, OBLIQUE[3:] * 0.8  # LPS+; pixel spacing 0.8 between rows, 0.7 between columns
    lps = np.column_stack([row, column, 2.5 * np.cross(OBLIQUE[:3], OBLIQUE[3:]), (-100.25, 40.5, -300.75)])
    np.testing.assert_allclose(written.affine[:3], np.diag([-1, -1, 1]) @ lps, atol=1e-4)
    (single,) = plan_jobs([folder], tmp_path / "mask.nii.gz", 1)
    assert single.output == tmp_path / "mask.nii.gz"


def test_every_folder_with_slices_below_an_input_is_a_case(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for patient in ("p1/study/2.16.1", "p1/study/2.16.2", "p2/CT"):
        write_series(tmp_path / "in" / patient, VALUES, name="{}.dcm".format)
    write_rtstruct(tmp_path / "in/p2/RT/1-1.dcm", {"Lung": []})
    write_rtstruct(tmp_path / "in/p2/CT/struct.dcm", {"Lung": []})
    jobs = plan_jobs([tmp_path / "in"], tmp_path / "out", 1)
    names = [job.output.relative_to(tmp_path / "out").as_posix() for job in jobs]
    assert names == ["p1/study/2.16.1.nii.gz", "p1/study/2.16.2.nii.gz", "p2/CT.nii.gz"]
    assert "1 input left out, which hold labels (RTSTRUCT, DICOM-SEG): " in caplog.text and "p2/RT" in caplog.text
    assert plan_jobs([tmp_path / "in/p1", tmp_path / "in/p1/study/2.16.1"], tmp_path / "out", 1)


def test_a_series_is_chosen_for_inference(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "both", VALUES, name="a{}".format)
    write_series(folder, VALUES[:2], name="b{}".format, SeriesNumber=7)
    (undecided,) = infer(segmenter(), plan_jobs([folder], tmp_path / "out", 1))
    assert "holds 2 series" in str(undecided.error) and "--series of r2seg-infer" in str(undecided.error)
    (chosen,) = infer(segmenter(), plan_jobs([folder], tmp_path / "out", 1, series=(7,)))
    assert chosen.error is None and nibabel.load(chosen.job.output).shape == (22, 18, 2)
    with pytest.raises(ImageError, match="holds no series that 5 chooses"):
        segmenter().segment(folder, series=(5,))


def test_an_empty_folder_still_says_what_is_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no image; known formats: .*\.dcm"):
        plan_jobs([tmp_path], tmp_path / "out", 1)
