"""MONAI's users see what ``r2seg-train`` sees, on their own pipelines, and get their predictions back on the file's grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, Dataset, PersistentDataset, decollate_batch
from monai.data.meta_tensor import MetaTensor
from monai.transforms import Compose, Invertd, RandCropByPosNegLabeld, RandFlipd, SpatialPadd
from PIL import Image as Pillow

from r2seg.config import Config, Preprocessing
from r2seg.data.cases import Case, as_dictionary
from r2seg.data.dictionary_transforms import (
    AdjustPictured,
    MeasureIntensityd,
    NormalizeCased,
    ToWorkingGridd,
    config_transforms,
)
from r2seg.data.geometry import WorkingGrid, unresample
from r2seg.data.images import read_image
from r2seg.data.load_cased import LoadCased
from r2seg.data.preprocessing import prepare_image
from r2seg.data.transforms import case_transforms

LABELS = {"ball": 1}


def item(root: Path, index: int = 1) -> dict[str, Any]:
    return {
        "image": str(root / f"images/case_{index}.nii.gz"),
        "label": str(root / f"labels/case_{index}.nii.gz"),
        "mask": None,
    }


@pytest.mark.parametrize("spacing_mm", [None, (3.0, 2.0, 4.0)])
@pytest.mark.parametrize(
    "intensity",
    [
        {"kind": "zscore"},
        {"kind": "percentile", "low": 5.0, "high": 90.0},
        {"kind": "hu_window", "low": -500.0, "high": -20.0},
        {"kind": "unit"},
    ],
)
def test_the_network_of_a_monai_pipeline_sees_what_inference_shows_it(
    tiny_volumes: Path, spacing_mm: tuple[float, ...] | None, intensity: dict[str, Any]
) -> None:
    chain = Compose(
        [
            LoadCased(labels=LABELS),
            MeasureIntensityd(**intensity),
            ToWorkingGridd(spacing_mm=spacing_mm),
            NormalizeCased(),
        ]
    )
    preprocessing = Preprocessing.model_validate({"intensity": intensity, "spacing_mm": spacing_mm})
    for index in (0, 1):  # one RAS, one LPS
        expected = prepare_image(read_image(item(tiny_volumes, index)["image"]), preprocessing)
        image = chain(item(tiny_volumes, index))["image"]
        assert isinstance(image, MetaTensor)
        assert torch.equal(image.as_tensor(), expected[:])


def test_measuring_and_applying_at_once_is_the_same_where_nothing_is_resampled(tiny_volumes: Path) -> None:
    at_once = Compose([LoadCased("image"), ToWorkingGridd("image"), NormalizeCased("image", "percentile", low=1)])
    apart = Compose(
        [LoadCased("image"), MeasureIntensityd("image", "percentile", low=1), ToWorkingGridd("image"), NormalizeCased()]
    )
    assert torch.equal(at_once(item(tiny_volumes))["image"].as_tensor(), apart(item(tiny_volumes))["image"].as_tensor())


def test_a_point_keeps_its_place_in_millimetres(tmp_path: Path) -> None:
    # An LPS volume of 2 x 2 x 6 mm with one bright voxel, at file index (5, 2, 1).
    affine = np.array([[-2.0, 0, 0, 30], [0, -2.0, 0, 40], [0, 0, 6.0, -10], [0, 0, 0, 1]])
    voxels = np.zeros((12, 10, 4), np.int16)
    voxels[5, 2, 1] = 100
    nib.save(nib.Nifti1Image(voxels, affine), tmp_path / "a.nii.gz")
    loaded = LoadCased("image")({"image": str(tmp_path / "a.nii.gz")})
    image = ToWorkingGridd("image", spacing_mm=(1, 1, 2))(loaded)["image"]
    assert image.shape == (1, 24, 20, 12)
    weights = image.as_tensor()[0].double()
    index = [(weights.sum([a for a in range(3) if a != axis]) * torch.arange(size)).sum() / weights.sum()
             for axis, size in enumerate(weights.shape)]  # fmt: skip
    centre = image.affine @ torch.tensor([*index, 1.0], dtype=torch.float64)
    assert torch.allclose(centre[:3], torch.tensor([20.0, 36.0, -4.0], dtype=torch.float64), atol=1e-4)
    assert torch.allclose(image.pixdim.double(), torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64))


def assert_same_ball(found: np.ndarray, expected: np.ndarray, *, exactly: bool = False) -> None:
    """Equal, or after resampling there and back: a voxel's corner rounded off at most, and nothing moved."""
    if exactly:
        assert np.array_equal(found, expected)
    assert 2 * (found & expected).sum() / (found.sum() + expected.sum()) > 0.97
    centres = [np.argwhere(ball).mean(axis=0) for ball in (found, expected)]
    np.testing.assert_allclose(*centres, atol=0.1)


@pytest.mark.parametrize("spacing_mm", [None, (1.0, 1.5, 2.5)])
def test_invertd_gives_class_indices_back_on_the_grid_of_the_file(tiny_volumes: Path, spacing_mm: Any) -> None:
    chain = Compose([LoadCased(labels=LABELS), ToWorkingGridd(spacing_mm=spacing_mm), NormalizeCased(kind="zscore")])
    sample = chain(item(tiny_volumes))
    sample["pred"] = MetaTensor(sample["label"].as_tensor())  # a perfect network
    back = Invertd("pred", chain, orig_keys="image")(sample)["pred"]
    file = nib.load(item(tiny_volumes)["label"])
    native = np.asarray(file.dataobj)
    assert back.shape == (1, *native.shape)
    np.testing.assert_allclose(back.affine.numpy(), file.affine)
    assert_same_ball(back.numpy()[0], native, exactly=spacing_mm is None)
    assert not back.applied_operations


def test_invertd_gives_probabilities_back_as_inference_does(tiny_volumes: Path) -> None:
    chain = Compose([LoadCased("image"), ToWorkingGridd("image", spacing_mm=(3, 2, 4)), NormalizeCased(kind="zscore")])
    sample = chain(item(tiny_volumes))
    probabilities = torch.rand(2, *sample["image"].shape[1:], generator=torch.Generator().manual_seed(0))
    sample["pred"] = MetaTensor(probabilities)
    back = Invertd("pred", chain, orig_keys="image", nearest_interp=False)(sample)["pred"]
    image = read_image(item(tiny_volumes)["image"])
    grid = WorkingGrid.of(image.shape, image.affine, (3, 2, 4))
    whole = torch.cat([part for _, part in unresample([(slice(0, grid.shape[2]), probabilities)], grid, 2)], dim=3)
    np.testing.assert_allclose(back.numpy(), grid.restore_orientation(whole.numpy()), atol=1e-6)


def test_the_chain_composes_with_monais_data_sets_loaders_and_random_crops(tiny_volumes: Path, tmp_path: Path) -> None:
    fixed = [LoadCased(labels=LABELS), ToWorkingGridd(), NormalizeCased(kind="hu_window", low=-1000, high=200)]
    crop = RandCropByPosNegLabeld(["image", "label"], "label", (8, 8, 4), num_samples=2)
    items = [item(tiny_volumes, index) for index in range(4)]
    for index in range(4):
        del items[index]["mask"]
    chain = Compose([*fixed, crop, RandFlipd(["image", "label"], 0.5)])
    for dataset in (
        Dataset(items, chain),
        CacheDataset(items, chain, progress=False),
        PersistentDataset(items, chain, cache_dir=tmp_path / "cache"),
    ):
        batch = next(iter(DataLoader(dataset, batch_size=2, num_workers=2)))
        assert batch["image"].shape == batch["label"].shape == (4, 1, 8, 8, 4)
        assert batch["image"].dtype == torch.float32
        assert set(batch["label"].unique().tolist()) <= {0, 1}


def test_a_batch_comes_back_from_a_loader_through_monais_own_transforms(tiny_volumes: Path) -> None:
    chain = Compose(
        [
            LoadCased(labels=LABELS),
            ToWorkingGridd(spacing_mm=(1, 1.5, 2.5)),
            NormalizeCased(kind="zscore"),
            SpatialPadd(["image", "label"], (64, 64, 32)),
        ]
    )
    items = [{**item(tiny_volumes, index), "mask": "none"} for index in range(2)]
    batch = next(iter(DataLoader(Dataset(items, chain), batch_size=2, num_workers=2)))
    batch["pred"] = batch["label"].clone()
    for index, sample in enumerate(decollate_batch(batch)):
        back = Invertd("pred", chain, orig_keys="image")(sample)["pred"]
        assert_same_ball(back.numpy()[0], np.asarray(nib.load(items[index]["label"]).dataobj))


def test_the_field_of_view_is_read_and_what_lies_outside_is_unknown(tmp_path: Path) -> None:
    mask = np.zeros((6, 8), np.uint8)
    mask[1:5, 2:7] = 255
    Pillow.fromarray(np.full((6, 8, 3), 50, np.uint8)).save(tmp_path / "image.png")
    Pillow.fromarray(np.full((6, 8), 255, np.uint8)).save(tmp_path / "label.png")
    Pillow.fromarray(mask).save(tmp_path / "mask.gif")
    paths = {name.split(".")[0]: str(tmp_path / name) for name in ("image.png", "label.png", "mask.gif")}
    keys = ("image", "label", "mask")
    sample = ToWorkingGridd(keys)(LoadCased(keys, {"vessel": 255})(paths))
    assert sample["image"].shape == (3, 6, 8)
    assert sample["image"].dtype == torch.uint8
    assert np.array_equal(sample["mask"].numpy()[0], mask // 255)
    assert np.array_equal(sample["label"].numpy()[0], np.where(mask, 1, 255))
    whole = LoadCased(keys, {"vessel": 255})({**paths, "mask": None})
    assert whole["mask"].min() == 1
    assert whole["mask"].shape == (1, 6, 8)
    assert whole["label"].max() == 1


def test_unit_means_the_number_type_of_the_file(tmp_path: Path) -> None:
    voxels = np.arange(0, 60000, 500, dtype=np.uint16).reshape(4, 5, 6)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "a.nii.gz")
    chain = Compose([LoadCased("image"), ToWorkingGridd("image"), NormalizeCased("image", "unit")])
    image = chain({"image": str(tmp_path / "a.nii.gz")})["image"]
    np.testing.assert_allclose(image.numpy()[0], voxels / 65535, atol=1e-6)


def test_mistakes_are_told_when_the_chain_is_made(tiny_volumes: Path) -> None:
    with pytest.raises(ValueError, match=r"give labels, such as \{'lung': 1\}"):
        LoadCased(("image", "label"))
    with pytest.raises(ValueError, match="NormalizeCased has low and no kind"):
        NormalizeCased(low=3)
    with pytest.raises(ValueError, match="'image' has no measured intensity"):
        NormalizeCased()({"image": MetaTensor(torch.zeros(1, 4, 4))})
    with pytest.raises(ValueError, match="hu_window"):
        NormalizeCased(kind="hu")


@pytest.fixture(scope="module")
def eye(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A fundus photograph with a dark border, a field of view, and maps of two labels that overlap."""
    folder = tmp_path_factory.mktemp("eye")
    rows, columns = np.mgrid[:60, :80]
    inside = (rows - 30) ** 2 + (columns - 40) ** 2 < 26**2
    rng = np.random.default_rng(0)
    colours = np.where(inside[..., None], rng.integers(60, 250, (60, 80, 3)), 2).astype(np.uint8)
    Pillow.fromarray(colours).save(folder / "image.png")
    for name, mask in (("mask", inside), ("disc", rows > 20), ("cup", (rows > 20) & (columns > 30))):
        Pillow.fromarray((mask * 255).astype(np.uint8)).save(folder / f"{name}.png")
    return Case("eye", (folder / "image.png",), (folder / "disc.png",), folder / "mask.png")


@pytest.mark.parametrize(
    ("preprocessing", "has_mask"),
    [
        ({"intensity": {"kind": "zscore"}}, True),
        ({"color": "green", "clahe": {"clip": 3.0}, "gamma": 1.2, "intensity": {"kind": "unit"}}, True),
        ({"color": "grey", "resize": {"size": [32, 40]}, "intensity": {"kind": "percentile"}}, True),
        ({"resize": {"longest_side": 48}, "intensity": {"kind": "zscore", "region": "field_of_view"}}, True),
        ({"field_of_view": "find", "intensity": {"kind": "zscore", "region": "field_of_view"}}, False),
        ({"intensity": {"kind": "zscore", "region": "nonzero"}}, False),
    ],
)
def test_the_transforms_of_a_config_give_what_its_training_sees(
    eye: Case, preprocessing: dict[str, Any], has_mask: bool
) -> None:
    case = eye if has_mask else Case("eye", eye.images, eye.labels)
    config = Config.model_validate(
        {
            "name": "eye",
            "data": {"root": ".", "labels": {"disc": {"value": 255, "color": "#ff0000"}}},
            "preprocessing": preprocessing,
            "window": {"size": [32, 32]},
        }
    )
    trained = case_transforms(config.data, config.preprocessing)(case)
    found = config_transforms(config)(as_dictionary(case))
    expected = trained["intensity"](torch.from_numpy(np.array(trained["voxels"])))
    assert torch.equal(found["image"].as_tensor(), expected)
    assert np.array_equal(found["label"].numpy()[0], trained["label"])
    if not has_mask and preprocessing.get("field_of_view") != "find":
        assert found["mask"].min() == 1


def test_labels_that_overlap_have_a_channel_each(eye: Case) -> None:
    files = {"image": str(eye.images[0]), "label": [str(eye.labels[0]), str(eye.labels[0].with_name("cup.png"))]}
    labels = {"disc": 1, "cup": 2}
    label = LoadCased(labels=labels, overlapping=True)(files)["label"]
    rows, columns = np.mgrid[:60, :80]
    assert np.array_equal(label.numpy(), np.stack([rows > 20, (rows > 20) & (columns > 30)]))
    masked = LoadCased(("image", "label", "mask"), labels, overlapping=True)({**files, "mask": str(eye.mask)})["label"]
    assert masked[:, 0, 0].tolist() == [255, 255]


def test_pictures_are_adjusted_and_volumes_refuse_it(eye: Case, tiny_volumes: Path) -> None:
    chain = Compose([LoadCased("image"), AdjustPictured(color="green", gamma=1.0)])
    picture = chain({"image": str(eye.images[0])})["image"]
    assert np.array_equal(picture.numpy()[0], np.asarray(Pillow.open(eye.images[0]))[..., 1])
    with pytest.raises(RuntimeError) as caught:
        Compose([LoadCased("image"), AdjustPictured(gamma=1.2)])(item(tiny_volumes))
    assert "preprocessing.gamma is for pictures" in str(caught.value.__cause__)
    with pytest.raises(ValueError, match="AdjustPictured has no 'contrast': give color, clahe or gamma"):
        AdjustPictured(contrast=2)


def test_a_field_of_view_that_is_needed_and_not_there_is_asked_for(eye: Case) -> None:
    keys = ("image", "label", "mask")
    sample = LoadCased(keys, {"disc": 255})(as_dictionary(Case("eye", eye.images, eye.labels)))
    with pytest.raises(ValueError, match="region is field_of_view, and the item has no field of view 'mask'"):
        MeasureIntensityd(region="field_of_view")(sample)
    with pytest.raises(ValueError, match="LoadCased reads image, label, mask, not 'img'"):
        LoadCased("img")
