"""Facts of cases: hand-counted voxels, known geometry, and every mistake of a case at once."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image as Picture

from r2seg.data.cases import Case
from r2seg.data.fingerprint import CaseFacts, facts_of, read_case

LABELS = {"lung": (1,), "tumour": (2, 5)}
# Axes run left, posterior, superior with 2, 3 and 5 mm; stored as (A-P, S-I, R-L).
AFFINE = np.array([[0, 0, -2.0, 10], [-3.0, 0, 0, 20], [0, 5.0, 0, 30], [0, 0, 0, 1]])


def measure_case(case: Case, labels: dict, ignore_label: int | None = None) -> CaseFacts:
    return facts_of(case, read_case(case, labels, ignore_label), labels)


def volume(folder: Path, name: str, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path = folder / name
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def picture(folder: Path, name: str, array: np.ndarray) -> Path:
    Picture.fromarray(array).save(folder / name)
    return folder / name


@pytest.fixture
def case(tmp_path: Path) -> Case:
    values = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6) - 100
    label = np.zeros((4, 5, 6), np.uint8)
    label[0, 0, :4], label[1, 0, :3], label[2, 0, 0] = 1, 2, 5
    return Case("a", (volume(tmp_path, "a.nii.gz", values),), (volume(tmp_path, "l.nii.gz", label),), group="p1")


def test_facts_of_a_volume_are_those_of_its_file(case: Case) -> None:
    facts = measure_case(case, LABELS)
    assert (facts.id, facts.group, facts.shape, facts.num_channels, facts.dtype) == ("a", "p1", (4, 5, 6), 1, "int16")
    assert facts.spacing_mm == pytest.approx((2, 3, 5)), "in R, A, S order"
    assert facts.orientation == "PSL"
    values = np.arange(-100, 20)
    expected = (-100, *np.percentile(values, (0.5, 50, 99.5)), 19)
    assert facts.intensity == (pytest.approx(expected),)
    assert facts.foreground == {"lung": 4, "tumour": 4}
    assert (facts.num_voxels, facts.num_counted, facts.problems, facts.warnings) == (120, 120, (), ())


def test_voxels_outside_the_field_of_view_and_ignored_ones_are_not_counted(case: Case, tmp_path: Path) -> None:
    mask = np.ones((4, 5, 6), np.uint8)
    mask[0] = 0
    facts = measure_case(
        Case("a", case.images, case.labels, mask=volume(tmp_path, "m.nii.gz", mask)), {"t": (2,), "l": (1,)}, 5
    )
    assert facts.foreground == {"t": 3, "l": 0}
    assert facts.num_counted == 120 - 30 - 1


def test_facts_of_a_picture(tmp_path: Path) -> None:
    image = np.zeros((3, 7, 3), np.uint8)
    image[..., 1] = 200
    facts = measure_case(Case("p", (picture(tmp_path, "p.png", image),)), {})
    assert (facts.shape, facts.num_channels, facts.spacing_mm, facts.orientation) == ((3, 7), 3, None, None)
    assert facts.intensity[1] == (200,) * 5
    assert facts.foreground == {}


def test_everything_wrong_with_a_case_is_listed_with_file_and_remedy(case: Case, tmp_path: Path) -> None:
    label = volume(tmp_path, "moved.nii.gz", np.zeros((4, 5, 6), np.uint8), AFFINE + np.eye(4, k=3) * 7)
    mask = volume(tmp_path, "small.nii.gz", np.ones((4, 5, 5), np.uint8))
    facts = measure_case(Case("a", case.images, (label,), mask=mask), LABELS)
    assert len(facts.problems) == 2
    assert str(label) in facts.problems[0] and "export the label on the grid of its image" in facts.problems[0]
    assert str(mask) in facts.problems[1] and "(4, 5, 5)" in facts.problems[1]
    assert facts.shape == (4, 5, 6), "what can be read is still measured"


def test_an_empty_field_of_view_is_a_mistake_as_in_training(case: Case, tmp_path: Path) -> None:
    mask = volume(tmp_path, "none.nii.gz", np.zeros((4, 5, 6), np.uint8))
    facts = measure_case(Case("a", case.images, case.labels, mask=mask), LABELS)
    assert facts.problems == (f"{mask}: the field of view is empty; export it again, or remove the case",)


def test_an_unreadable_image_hides_nothing_else(case: Case, tmp_path: Path) -> None:
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(case.images[0].read_bytes()[:60])
    other = volume(tmp_path, "nine.nii.gz", np.full((4, 5, 6), 9, np.uint8))
    facts = measure_case(Case("a", (broken,), (other,)), LABELS)
    assert [str(path) in line for path, line in zip((broken, other), facts.problems, strict=True)] == [True, True]
    assert "9 (120 pixels)" in facts.problems[1]
    assert facts.shape == () and facts.foreground == {}


def test_a_smeared_mask_is_told(tmp_path: Path) -> None:
    label = np.zeros((40, 40), np.uint8)
    label[10:30, 10:30] = 255
    files = picture(tmp_path, "i.png", label), picture(tmp_path, "l.jpg", label)
    facts = measure_case(Case("a", files[:1], files[1:]), {"lung": (1,)})
    assert facts.problems == ()
    assert facts.warnings == (
        f"{files[1]}: the label is blurred by JPEG or resizing, and was cut (0/255 at 128, colours to the nearest)",
    )
    assert facts.foreground["lung"] == pytest.approx(400, abs=20)
