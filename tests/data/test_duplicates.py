"""Copies of one image under two names: found by their content, and never on both sides of a split."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from tiny import write_pictures

from r2seg.config import Data, Split
from r2seg.data.cases import Case
from r2seg.data.duplicates import identical_images
from r2seg.data.layouts import find_cases
from r2seg.data.splits import draw_folds, draw_split
from r2seg.errors import UserError


def cases_with_copies(tmp_path: Path) -> list[Case]:
    root = write_pictures(tmp_path / "data", count=12)
    for name in ("a_copy", "z_copy"):
        shutil.copy(root / "images/case_3.png", root / f"images/{name}.png")
        shutil.copy(root / "labels/case_3.png", root / f"labels/{name}.png")
    return find_cases(Data(root=root, labels={"ball": 255}))


def test_copies_are_found_under_any_name(tmp_path: Path) -> None:
    assert identical_images(cases_with_copies(tmp_path)) == [("a_copy", "case_3", "z_copy")]


def test_files_of_one_size_that_differ_at_their_end_are_no_copies(tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(300_000)
    for name, end in (("a", b"x"), ("b", b"y"), ("c", b"x")):
        (tmp_path / f"{name}.npy").write_bytes(content + end)
    cases = [Case(name, (tmp_path / f"{name}.npy",)) for name in "abc"]
    assert identical_images(cases) == [("a", "c")]


def test_a_shared_header_makes_no_copy_and_shared_voxels_do(tmp_path: Path) -> None:
    for name, value in (("a", 1), ("b", 2), ("c", 1)):
        image = SimpleITK.GetImageFromArray(np.full((4, 5, 6), value, np.int16))
        SimpleITK.WriteImage(image, str(tmp_path / f"{name}.mhd"))
    cases = [Case(name, (tmp_path / f"{name}.mhd",)) for name in "abc"]
    assert (tmp_path / "a.raw").exists()
    assert identical_images(cases) == [("a", "c")]


@pytest.mark.parametrize("seed", range(8))
def test_copies_fall_on_one_side_of_any_split(seed: int, tmp_path: Path) -> None:
    split = draw_split(cases_with_copies(tmp_path), Split(validation=0.3, test=0.3), seed)
    sides = {
        part
        for part, members in split.parts.items()
        for case in members
        if case.id.endswith("copy") or case.id == "case_3"
    }
    assert len(sides) == 1
    assert sum(split.num_groups.values()) == 12
    assert split.warnings == [
        "the images of the cases a_copy and case_3 and z_copy are identical; they are kept in one part of the split"
    ]


def test_copies_that_the_config_puts_on_two_sides_are_refused(tmp_path: Path) -> None:
    cases = cases_with_copies(tmp_path)
    with pytest.raises(UserError) as caught:
        draw_split(cases, Split(validation=("case_3",), by="case"), 0)
    assert str(caught.value).startswith(
        "data.split puts the case 'a_copy' into train and the case 'case_3' into validation, but their images are identical"
    )


def test_a_split_by_case_keeps_copies_together_too(tmp_path: Path) -> None:
    cases = cases_with_copies(tmp_path)
    for seed in range(8):
        split = draw_split(cases, Split(validation=0.4, by="case"), seed)
        sides = {part for part, members in split.parts.items() for case in members if case.id in ("a_copy", "z_copy")}
        assert len(sides) == 1


def test_copies_beyond_the_parts_in_use_are_not_reported(tmp_path: Path) -> None:
    split = draw_split(cases_with_copies(tmp_path), Split(train=("case_1",), validation=("case_2",)), 0)
    assert split.identical == []


def test_copies_validate_in_one_fold(tmp_path: Path) -> None:
    folds = list(draw_folds(cases_with_copies(tmp_path), Split(folds=6, by="case"), 0))
    together = [{case.id for case in fold.parts["validation"]} & {"a_copy", "case_3", "z_copy"} for fold in folds]
    assert sorted(map(len, together)) == [0, 0, 0, 0, 0, 3]
