"""What label maps hold, in the encodings of the wild, and the names that are found for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from r2seg.errors import UserError
from r2seg.planning.label_values import FoundLabels, exclusive, find_labels, is_label_map

MASK = np.zeros((40, 50), np.uint8)
MASK[10:30, 10:40] = 1


def saved(path: Path, array: np.ndarray, **options: object) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


def found(*paths: Path, word: str = "", known: dict | None = None) -> FoundLabels:
    return find_labels(paths, known, None, word)


def test_masks_of_0_1_and_0_255_have_one_label(tmp_path: Path) -> None:
    assert found(saved(tmp_path / "a.png", MASK), word="lungmask").labels == {"lung": 1}
    assert found(saved(tmp_path / "b.png", MASK * 255), word="mask").labels == {"label_1": 255}


def test_a_smeared_mask_is_one_label_of_255_and_told(tmp_path: Path) -> None:
    smeared = found(saved(tmp_path / "a.jpg", MASK * 255, quality=60))
    assert smeared.labels == {"label_1": 255}
    assert any("cut at 128" in text for text in smeared.doubts)


def test_a_photograph_is_no_label_map(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    path = saved(tmp_path / "a.png", noise)
    assert not is_label_map(path)
    with pytest.raises(UserError, match=r"a\.png: holds \d+ colours, too many for labels; is it an image\?"):
        found(path)
    assert is_label_map(saved(tmp_path / "b.png", MASK))
    assert is_label_map(saved(tmp_path / "c.jpg", MASK * 255))


def test_several_values_get_a_label_each_and_255_beside_them_is_undecided(tmp_path: Path) -> None:
    array = MASK.copy()
    array[0:5] = 7
    array[35:] = 255
    labels = found(saved(tmp_path / "a.png", array))
    assert labels.labels == {"label_1": 1, "label_2": 7} and labels.ignore_label == 255
    assert any("255 is taken for undecided" in text for text in labels.doubts)


def test_masks_of_16_bits_are_written_with_a_value_of_8(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", MASK.astype(np.uint16) * 65535)
    assert found(path).labels == {"label_1": [1, 65535]}


def test_the_values_of_all_files_count(tmp_path: Path) -> None:
    assert found(saved(tmp_path / "a.png", MASK), saved(tmp_path / "b.png", MASK * 2)).labels == {
        "label_1": 1,
        "label_2": 2,
    }


def test_values_that_the_data_set_does_not_document_are_told(tmp_path: Path) -> None:
    array = MASK.copy()
    array[0] = 9
    labels = found(saved(tmp_path / "a.png", array), known={"liver": 1})
    assert labels.labels == {"liver": 1}
    assert any("the files hold 9, which the data set does not document" in text for text in labels.doubts)


def test_names_come_from_the_header_of_3d_slicer(tmp_path: Path) -> None:
    header = "NRRD0004\ntype: unsigned char\ndimension: 2\nsizes: 4 3\nencoding: raw\nspace dimension: 2\n"
    segment = "Segment0_LabelValue:=1\nSegment0_Name:=left lung\nSegment1_LabelValue:=2\nSegment1_Name:=right lung\n"
    path = tmp_path / "a.seg.nrrd"
    path.write_bytes((header.replace("space dimension: 2\n", "") + segment + "\n").encode() + bytes([0, 1, 2, 0] * 3))
    assert found(path).labels == {"left lung": 1, "right lung": 2}


def test_regions_that_overlap_become_labels_that_do_not() -> None:
    labels, doubt = exclusive({"whole tumor": (1, 2, 3), "core": (2, 3), "enhancing": (3,)})
    assert labels == {"whole tumor": 1, "core": 2, "enhancing": 3}
    assert doubt is not None and "whole tumor [1, 2, 3]" in doubt
    assert exclusive({"liver": (1,), "tumor": (2, 3)}) == ({"liver": 1, "tumor": [2, 3]}, None)
