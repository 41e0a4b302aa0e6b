"""Which labels occur in which case, and the stratified split of a config."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import write_config

from r2seg.case_sets import folds_of, split_of
from r2seg.config import Config, load_config
from r2seg.data.label_presence import labels_present
from r2seg.data.layouts import find_cases
from r2seg.errors import UserError


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Ten pictures with label 1; the first five also with label 2, and number 7 with ignored pixels only."""
    for folder in ("images", "labels"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(10):
        label = np.zeros((4, 4), np.uint8)
        label[0, 0], label[1, 1] = (9, 9) if index == 7 else (1, 2 if index < 5 else 0)
        Image.fromarray(label).save(tmp_path / f"data/labels/{index}.png")
        Image.fromarray(rng.integers(0, 255, (4, 4), dtype=np.uint8)).save(tmp_path / f"data/images/{index}.png")
    data = {"labels": {"organ": 1, "lesion": 2}, "ignore_label": 9, "split": {"folds": 5, "stratify": True}}
    return load_config(write_config(tmp_path / "c.yaml", tmp_path / "data", data=data))


def test_the_labels_of_every_case_are_found_and_reading_is_told(config: Config) -> None:
    told: list[tuple[int, int]] = []
    found = labels_present(find_cases(config.data), config.data, lambda done, total: told.append((done, total)))
    assert found == {
        str(index): {"organ", "lesion"} if index < 5 else set() if index == 7 else {"organ"} for index in range(10)
    }
    assert told == [(done, 10) for done in range(1, 11)]


def test_every_fold_has_its_share_of_a_label(config: Config) -> None:
    folds = list(folds_of(config))
    assert [sum(int(case.id) < 5 for case in fold.parts["validation"]) for fold in folds] == [1] * 5
    assert split_of(config).parts == folds[0].parts


def test_every_label_map_that_cannot_be_read_is_told(config: Config) -> None:
    for name in ("3", "6"):
        (config.data.root / f"labels/{name}.png").write_bytes(b"no picture")
    with pytest.raises(UserError) as caught:
        split_of(config)
    assert [line.split(": ")[0] for line in str(caught.value).split("\n")] == [
        str(config.data.root / f"labels/{name}.png") for name in ("3", "6")
    ]
