"""Data sets for MONAI's loaders: windows and slices that follow from their index, and known data sets by name."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.transforms import Compose, RandFlipd, RandGaussianNoised

from r2seg.config import Preprocessing
from r2seg.data.datasets import SliceDataset
from r2seg.data.images import read_image
from r2seg.data.preprocessing import prepare_image

LABELS = {"ball": 1}
HU = {"intensity": {"kind": "hu_window", "low": -1000, "high": 200}}


def items(root: Path, count: int = 4) -> list[dict[str, Any]]:
    images = sorted((root / "images").iterdir())[:count]
    assert images
    return [{"id": path.name, "image": str(path), "label": str(root / "labels" / path.name)} for path in images]


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def windows(root: Path, cache_dir: Path, **options: Any) -> SliceDataset:
    given = {"size": (12, 10), "num_windows": 40, "preprocessing": HU, **options}
    return SliceDataset(items(root), LABELS, cache_dir=cache_dir, **given)


def equal(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return all(torch.equal(first[key], second[key]) for key in ("image", "label")) and first["case"] == second["case"]


def test_an_item_follows_from_seed_and_index_in_any_order_and_process(tiny_volumes: Path, cache_dir: Path) -> None:
    change = Compose([RandFlipd(["image", "label"], 0.5), RandGaussianNoised("image", 0.5)])
    options = {"transform": change, "augmentation": {"rotate_degrees": 20.0, "contrast": 0.2}}
    dataset, again = (windows(tiny_volumes, cache_dir, **options) for _ in range(2))
    forward = [dataset[index] for index in range(len(dataset))]
    assert len(forward) == 40
    for index in (39, 0, 17):
        assert equal(forward[index], again[index])
    loaded = list(DataLoader(dataset, batch_size=4, num_workers=2))
    assert len(loaded) == 10
    for number, batch in enumerate(loaded):
        for place in range(4):
            expected = forward[4 * number + place]
            assert torch.equal(torch.as_tensor(batch["image"][place]), torch.as_tensor(expected["image"]))
    assert not equal(dataset[0], windows(tiny_volumes, cache_dir, **options, seed=1)[0])
    again.set_epoch(1)
    assert not equal(dataset[0], again[0])


def test_a_data_set_survives_pickling_without_its_voxels(tiny_volumes: Path, cache_dir: Path) -> None:
    dataset = windows(tiny_volumes, cache_dir)
    text = pickle.dumps(dataset)
    assert len(text) < 5000  # four volumes would be 22 kB
    assert equal(pickle.loads(text)[3], dataset[3])


@pytest.mark.parametrize(("foreground", "least", "most"), [(1.0, 40, 40), (0.5, 20, 40), (0.0, 5, 36)])
def test_the_share_of_windows_that_hold_a_label_is_at_least_the_given_one(
    tiny_volumes: Path, cache_dir: Path, foreground: float, least: int, most: int
) -> None:
    dataset = windows(tiny_volumes, cache_dir, size=(4, 4), foreground=foreground)
    held = sum(bool((dataset[index]["label"] == 1).any()) for index in range(len(dataset)))
    assert least <= held <= most


def test_every_slice_comes_once_in_order_and_as_inference_sees_it(tiny_volumes: Path, cache_dir: Path) -> None:
    preprocessing = {**HU, "spacing_mm": (2.0, 2.5, 2.5)}
    for plane, axis in (("axial", 3), ("coronal", 2)):
        dataset = SliceDataset(
            items(tiny_volumes, 2), LABELS, cache_dir=cache_dir, plane=plane, preprocessing=preprocessing
        )
        whole = [
            prepare_image(read_image(item["image"]), Preprocessing.model_validate({**preprocessing}))[:]
            for item in items(tiny_volumes, 2)
        ]
        assert len(dataset) == sum(volume.shape[axis] for volume in whole)
        expected = [part for volume in whole for part in volume.unbind(axis)]
        for index in (0, 5, len(dataset) - 1):
            assert torch.equal(dataset[index]["image"], expected[index])
        assert dataset[-1]["slice"] == whole[1].shape[axis] - 1
        with pytest.raises(IndexError):
            dataset[len(dataset)]


def test_slices_carry_the_labels_of_their_file(tiny_volumes: Path, cache_dir: Path) -> None:
    first = items(tiny_volumes, 1)  # RAS: the file's own order
    label = np.asarray(nib.load(first[0]["label"]).dataobj)
    dataset = SliceDataset(first, LABELS, cache_dir=cache_dir)
    assert len(dataset) == label.shape[2]
    stacked = np.stack([dataset[index]["label"][0].numpy() for index in range(len(dataset))], axis=-1)
    assert np.array_equal(stacked, label)


def test_pictures_and_boxes_are_drawn_too(tiny_pictures: Path, tiny_volumes: Path, cache_dir: Path) -> None:
    pictures = SliceDataset(items(tiny_pictures), {"ball": 255}, cache_dir=cache_dir)
    assert len(pictures) == 4
    assert pictures[0]["image"].shape == (3, 21, 26)
    assert pictures[0]["label"].unique().tolist() == [0, 1]
    drawn = windows(tiny_volumes, cache_dir, size=(8, 8, 4))[0]
    assert drawn["image"].shape == drawn["label"].shape == (1, 8, 8, 4)


def test_wrong_settings_are_refused(tiny_volumes: Path, cache_dir: Path) -> None:
    with pytest.raises(ValueError, match="give both size and num_windows for windows, or none of them for every slice"):
        SliceDataset(items(tiny_volumes), LABELS, cache_dir=cache_dir, size=(8, 8))
    with pytest.raises(ValueError, match="augmentation is for windows"):
        SliceDataset(items(tiny_volumes), LABELS, cache_dir=cache_dir, augmentation={"scale": 0.1})
    with pytest.raises(ValueError, match="foreground"):
        windows(tiny_volumes, cache_dir, foreground=1.5)
    with pytest.raises(ValueError, match="an item has no 'image': it has img, label"):
        SliceDataset([{"img": "a", "label": "b"}], LABELS, cache_dir=cache_dir)
