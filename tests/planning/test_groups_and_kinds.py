"""Patients from ids, and the kind of images from their values."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from r2seg.data.cases import Case, group_of
from r2seg.planning.groups import guess_groups
from r2seg.planning.looks import look_at, tell_kind


@pytest.mark.parametrize(
    ("ids", "patients", "sure"),
    [
        (["Image_01L", "Image_01R", "Image_02L", "Image_02R"], 2, True),
        (["7_left", "7_right", "9_left", "9_right"], 2, True),
        (["P3-OD", "P3-OS", "P4-OD"], 2, True),
        (["ID_0000_Z_0142", "ID_0000_Z_0143", "ID_0067_Z_0238"], 2, True),
        (["anna_slice_1", "anna_slice_2", "bert_slice_1"], 2, True),
        ([f"pat{p}_{i}" for p in range(4) for i in range(3)], 4, False),
    ],
)
def test_patients_are_found_in_ids(ids: list[str], patients: int, sure: bool) -> None:
    groups = guess_groups(ids)
    assert groups.pattern is not None and groups.sure is sure
    assert len({group_of(case_id, groups.pattern) for case_id in ids}) == patients
    assert f"{patients} patients with {len(ids)} cases" in groups.evidence


@pytest.mark.parametrize(
    "ids",
    [
        [f"ISIC_{n:07}" for n in range(20)],
        [f"LCTSC-{n}" for n in range(101, 105)],
        ["LCTSC-Train-S1-001", "LCTSC-Train-S2-004"],
        ["a", "b", "c"],
        ["scan"],
    ],
)
def test_ids_of_one_case_each_are_told_to_say_nothing(ids: list[str]) -> None:
    groups = guess_groups(ids)
    assert groups.pattern is None and not groups.sure
    assert "each case counts as a patient of its own" in groups.evidence


def test_slices_of_a_single_patient_are_warned_of() -> None:
    groups = guess_groups([f"anna_slice_{n}" for n in range(5)])
    assert groups.pattern is None and not groups.sure
    assert "of one patient, anna" in groups.evidence and "too good" in groups.evidence


def kind_of(path: Path, array: np.ndarray, names: str = "") -> tuple[str, bool]:
    if array.ndim == 3 and array.shape[-1] != 3:
        path = path.with_suffix(".nii.gz")
        nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    else:
        Image.fromarray(array).save(path)
    kind = tell_kind([look_at(Case("a", (path,)), {}, None)], None, names)
    return kind.name, kind.sure


def test_kinds_are_told_by_values_and_frames(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "a.png"
    hounsfield = rng.integers(-1024, 1500, (20, 20, 12)).astype(np.int16)
    assert kind_of(path, hounsfield) == ("ct", True)
    assert kind_of(path, (hounsfield + 1024).astype(np.int16)) == ("mr", False)  # told as unsure
    assert kind_of(path, (hounsfield + 1024).astype(np.int16), "brats_flair") == ("mr", True)
    y, x = np.mgrid[:90, :100]
    disc = (y - 45) ** 2 + (x - 50) ** 2 < 42**2
    fundus = np.where(disc[..., None], np.array([170, 90, 40]), 0).astype(np.uint8)
    assert kind_of(path, fundus) == ("fundus", True)
    skin = np.full((90, 100, 3), (190, 140, 120), np.uint8)
    assert kind_of(path, skin) == ("photograph", False)
    assert kind_of(path, skin, "isic_0001.jpg") == ("dermoscopy", True)
