"""Data sets for MONAI's loaders: windows and slices that follow from their index, and known data sets by name."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.transforms import Compose, RandFlipd, RandGaussianNoised
from PIL import Image

import r2seg.data
from r2seg.config import Preprocessing, load_config
from r2seg.data.datasets import CHASEDB1, DRIVE, LCTSC, CaseDataset, FolderDataset, SliceDataset
from r2seg.data.images import read_image
from r2seg.data.layouts import LAYOUTS, find_cases
from r2seg.data.load_cased import LoadCased
from r2seg.data.preprocessing import prepare_image
from r2seg.data.splits import draw_split
from r2seg.errors import UserError

ROOT = Path(__file__).parents[2]

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


def test_neighbouring_slices_come_as_channels(tiny_volumes: Path, cache_dir: Path) -> None:
    alone, stacked = (
        SliceDataset(items(tiny_volumes, 1), LABELS, cache_dir=cache_dir, neighbours=neighbours)
        for neighbours in (0, 1)
    )
    assert torch.equal(stacked[3]["image"], torch.cat([alone[index]["image"] for index in (2, 3, 4)]))
    assert torch.equal(stacked[0]["image"], torch.cat([alone[index]["image"] for index in (0, 0, 1)]))
    assert windows(tiny_volumes, cache_dir, neighbours=2)[0]["image"].shape == (5, 12, 10)


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


# known data sets


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DRIVE as unpacked, with ten small pictures for training and two for test."""
    root = tmp_path_factory.mktemp("DRIVE")
    rng = np.random.default_rng(0)
    for part, numbers in (("training", range(21, 31)), ("test", range(1, 3))):
        for folder in ("images", "1st_manual", "mask"):
            (root / part / folder).mkdir(parents=True)
        for number in numbers:
            name = f"{root}/{part}/{{}}/{number:02}_{{}}"
            mask = np.zeros((12, 14), np.uint8)
            mask[2:10, 2:12] = 255
            vessel = np.where(rng.random(mask.shape) < 0.2, 255, 0).astype(np.uint8)
            Image.fromarray(rng.integers(0, 255, (12, 14, 3), np.uint8)).save(name.format("images", f"{part}.tif"))
            Image.fromarray(vessel).save(name.format("1st_manual", "x").replace("_x", "_manual1.gif"))
            Image.fromarray(mask).save(name.format("mask", f"{part}_mask.gif"))
    return root


def test_drive_gives_its_official_test_cases_and_divides_the_training_images(drive: Path) -> None:
    sections = {name: DRIVE(drive, name, cache_rate=0.0) for name in ("training", "validation", "test")}
    assert {name: len(dataset) for name, dataset in sections.items()} == {"training": 8, "validation": 2, "test": 2}
    assert all(item["id"].startswith("0") for item in sections["test"].items)
    ids = [item["id"] for dataset in sections.values() for item in dataset.items]
    assert len(set(ids)) == 12
    sample = sections["test"][0]
    assert sample["image"].shape == (3, 12, 14)
    assert sample["label"].unique().tolist() == [0, 1]
    assert sections["test"].labels == {"vessel": 255}


def test_a_data_set_takes_transforms_and_goes_through_a_loader(drive: Path) -> None:
    change = LoadCased(("image", "label", "mask"), {"vessel": 255})
    dataset = DRIVE(drive, "training", change, validation=0.5, seed=3)
    batch = next(iter(DataLoader(dataset, batch_size=5, num_workers=2)))
    assert batch["label"].shape == (5, 1, 12, 14)
    assert torch.equal(batch["label"].as_tensor() == 255, batch["mask"].as_tensor() == 0)


def test_the_sections_of_a_data_set_are_the_parts_that_a_training_would_have() -> None:
    config = load_config(ROOT / "configs/lung_r2unet.yaml")
    parts = draw_split(find_cases(config.data), config.data.split, config.seed).parts
    for section, part in (("training", "train"), ("validation", "validation"), ("test", "test")):
        dataset = FolderDataset(
            config.data.root, section, labels={"lung": 1}, validation=0.25, test=0.25, cache_rate=0.0
        )
        assert [item["id"] for item in dataset.items] == [case.id for case in parts[part]]


def test_both_eyes_of_a_child_are_in_one_section(tmp_path: Path) -> None:
    for child in range(1, 6):
        for eye in "LR":
            name = f"{tmp_path}/Image_{child:02}{eye}"
            Image.fromarray(np.full((4, 4, 3), 20 * child + (eye == "L"), np.uint8)).save(f"{name}.jpg")
            Image.fromarray(np.eye(4, dtype=np.uint8) * 255).save(f"{name}_1stHO.png")
    sections = [CHASEDB1(tmp_path, name, validation=0.4, cache_rate=0.0) for name in ("training", "validation")]
    children = [{item["group"] for item in dataset.items} for dataset in sections]
    assert [len(dataset) for dataset in sections] == [6, 4]
    assert not children[0] & children[1]


def test_mistakes_name_what_to_do(drive: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="section is 'train', which is unknown: give one of training, validation, test"):
        DRIVE(drive, "train")
    with pytest.raises(UserError, match="LCTSC has no fixed labels: give labels"):
        LCTSC(tmp_path, "training")
    with pytest.raises(UserError, match=r"has no test cases \(training 8, validation 4, test 0\): give test=0.2"):
        FolderDataset(ROOT / "sample_data/lung", "test", labels={"lung": 1}, validation=0.33)


def test_every_layout_of_a_data_set_has_its_class() -> None:
    def below(kind: type) -> list[type]:
        return [kind, *(each for one in kind.__subclasses__() for each in below(one))]

    classes = below(CaseDataset)[1:]
    assert sorted(kind.layout for kind in classes) == sorted(set(LAYOUTS) - {"files"})
    assert {kind.__name__ for kind in classes} <= set(r2seg.data.__all__)
    assert all(getattr(r2seg.data, name).__name__ == name for name in r2seg.data.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Drive'"):
        r2seg.data.Drive  # noqa: B018


def test_importing_the_package_loads_no_heavy_library() -> None:
    code = "import r2seg.data, sys; print([name for name in ('torch', 'monai', 'numpy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
