"""Labels that may overlap: read and written, resampled, trained, predicted and scored, each label by itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from image_files import affine_of, oblique, save_itk, save_nifti, slicer
from PIL import Image as Picture
from tiny import settings

from r2seg.case_sets import cases_of
from r2seg.config import Config, ConfigError, FillHoles, LargestComponents, load_config
from r2seg.data.cases import Case
from r2seg.data.geometry import WorkingGrid, resample_indices
from r2seg.data.images import IGNORE, ImageError, read_image, read_labels, write_overlapping
from r2seg.errors import UserError
from r2seg.evaluation.evaluate import evaluate
from r2seg.evaluation.options import EvaluationOptions
from r2seg.inference.postprocessing import postprocess
from r2seg.inference.prediction import to_indices
from r2seg.inference.segmenter import Segmenter
from r2seg.metrics import count_overlapping, label_mask
from r2seg.metrics.catalogue import FAMILIES, Pair
from r2seg.training.losses import SegmentationLoss
from r2seg.training.train import train

LABELS = {"disc": 1, "cup": 2}
rows, columns = np.mgrid[:20, :30]
DISC = np.hypot(rows - 10, columns - 15) < 8
CUP = np.hypot(rows - 10, columns - 18) < 6  # beyond the disc on one side
BITS = (DISC + 2 * CUP).astype(np.uint8)


def masks_of(folder: Path, suffix: str = ".png") -> tuple[Path, Path]:
    paths = (folder / f"disc{suffix}", folder / f"cup{suffix}")
    for path, mask in zip(paths, (DISC, CUP), strict=True):
        Picture.fromarray(mask.astype(np.uint8) * 255).save(path)
    return paths


def test_one_file_per_label_or_one_channel_per_label_or_layers_read_the_same(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_labels(masks_of(tmp_path), LABELS, overlapping=True).array[0], BITS)
    np.save(tmp_path / "a.npy", np.stack([DISC, CUP * 2], axis=-1).astype(np.uint8))
    np.testing.assert_array_equal(read_labels([tmp_path / "a.npy"], LABELS, overlapping=True).array[0], BITS)
    volumes = np.stack([np.dstack([DISC] * 3), np.dstack([CUP] * 3)], axis=-1).astype(np.uint8)
    expected = np.dstack([BITS] * 3)
    nifti = save_nifti(tmp_path / "a.nii.gz", volumes)
    nrrd = save_itk(tmp_path / "a.nrrd", volumes.transpose(2, 1, 0, 3), components=True)
    segments = [
        {"ID": "b", "Name": "Cup", "LabelValue": 1, "Layer": 1},
        {"ID": "a", "Name": "Disc", "LabelValue": 1, "Layer": 0},
    ]
    layered = slicer(tmp_path / "a.seg.nrrd", volumes.transpose(2, 1, 0, 3), segments)
    for path in (nifti, nrrd, layered):
        np.testing.assert_array_equal(read_labels([path], LABELS, overlapping=True).array[0], expected)


def test_a_pixel_that_one_file_ignores_is_ignored_for_all_labels(tmp_path: Path) -> None:
    channels = np.stack([DISC, CUP], axis=-1).astype(np.uint8)
    channels[0, 0, 1] = 9
    np.save(tmp_path / "a.npy", channels)
    read = read_labels([tmp_path / "a.npy"], LABELS, 9, overlapping=True).array[0]
    assert read[0, 0] == IGNORE and (read.ravel()[1:] == BITS.ravel()[1:]).all()


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.npy", "a.nii.gz", "a.nrrd", "a.mha"])
def test_what_is_written_is_read_back_also_with_other_orders_of_pictures(tmp_path: Path, name: str) -> None:
    bits = BITS
    if name.endswith((".gz", "d", ".mha")):
        bits = np.dstack([BITS, BITS * 0, BITS])
        like = read_image(save_nifti(tmp_path / "in.nii", np.zeros(bits.shape, np.int16), affine_of(oblique())))
    else:
        Picture.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "in.png")
        like = read_image(tmp_path / "in.png")
    write_overlapping(tmp_path / name, bits, like, LABELS)
    np.testing.assert_array_equal(read_labels([tmp_path / name], LABELS, overlapping=True, like=like).array[0], bits)
    if name == "a.nii.gz":
        assert read_image(tmp_path / name).array[1].tolist() == np.dstack([CUP, CUP * 0, CUP]).astype(int).tolist()
    if name in ("a.png", "a.tif"):
        turned = read_labels([tmp_path / name], {"cup": 1, "disc": 2}, overlapping=True).array[0]
        np.testing.assert_array_equal(turned, CUP + 2 * DISC)
        assert sorted(np.unique(Picture.open(tmp_path / name))) == [0, 1, 2, 3]


def test_wrong_overlapping_labels_are_told_in_one_line(tmp_path: Path) -> None:
    disc, cup = masks_of(tmp_path)
    three = {**LABELS, "vessel": 3}
    np.save(tmp_path / "a.npy", np.stack([DISC, CUP * 7], axis=-1).astype(np.uint8))
    Picture.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "small.png")
    for paths, labels, overlapping, message in (
        ((disc, cup), LABELS, False, r"2 label maps \(.*disc\.png, .*cup\.png\): give one; .*set data\.overlapping: true and network\.output: sigmoid"),
        ((disc, cup), three, True, r"disc\.png, .*cup\.png: 2 files for 3 labels \(disc, cup, vessel\)"),
        ((disc,), LABELS, True, r"disc\.png: has 1 channel for 2 labels \(disc, cup\)"),
        ((tmp_path / "a.npy",), LABELS, True, r"a\.npy: holds undeclared label values 7 \(\d+ pixels\); declared: background 0, cup 2"),
        ((disc, tmp_path / "small.png"), LABELS, True, r"small\.png: grid \(9, 9\) differs from grid \(20, 30\)"),
        ((disc,), {f"l{i}": i for i in range(1, 9)}, True, "there are 8 labels: at most 7 can overlap"),
    ):  # fmt: skip
        with pytest.raises((ImageError, UserError), match=message) as caught:
            read_labels(paths, labels, overlapping=overlapping)
        assert "\n" not in str(caught.value)


def test_the_config_says_what_overlapping_labels_need(tmp_path: Path) -> None:
    for data, network, message in (
        ({"overlapping": True}, {}, "data.overlapping: labels that overlap need network.output: sigmoid, and it is softmax"),
        ({"overlapping": True, "labels": {"cup": 2, "disc": 1}}, {"output": "sigmoid"}, "data.overlapping: the channels are in the order of labels, cup, disc, but their values are 2, 1"),
        ({"overlapping": True, "labels": {f"l{i}": i for i in range(1, 9)}}, {"output": "sigmoid"}, "data.overlapping: there are 8 labels: at most 7 can overlap"),
    ):  # fmt: skip
        document = settings(tmp_path)
        document["data"] |= data
        document["network"] |= network
        (tmp_path / "c.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
        with pytest.raises(ConfigError, match=message):
            load_config(tmp_path / "c.yaml")


def test_several_label_maps_without_the_declaration_are_an_error(tmp_path: Path) -> None:
    from r2seg.data.transforms import ReadCase

    disc, cup = masks_of(tmp_path)
    config = Config.model_validate({**settings(tmp_path), "data": {"root": tmp_path, "labels": LABELS}})
    Picture.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "in.png")
    with pytest.raises(UserError, match=r"2 label maps .*set data\.overlapping: true"):
        ReadCase(config.data)(Case("a", (tmp_path / "in.png",), (disc, cup)))


def test_counts_are_those_of_each_label_by_hand() -> None:
    reference = torch.tensor([[0, 1, 3, 2], [IGNORE, 3, 1, 0]], dtype=torch.uint8)
    prediction = torch.tensor([[1, 1, 2, 2], [3, 3, 0, 0]], dtype=torch.uint8)
    counts = count_overlapping(prediction, reference, 2)
    # Of the first label: found in (0, 1) and (1, 1), false in (0, 0), missed in (0, 2) and (1, 2); (1, 0) is not counted.
    assert [value.tolist() for value in (counts.tp, counts.fp, counts.fn, counts.tn)] == [
        [2, 3],
        [1, 0],
        [2, 0],
        [2, 4],
    ]
    pair = Pair(prediction.masked_fill(reference == IGNORE, 0), reference, 2, overlapping=True)
    assert FAMILIES["counts"].evidence(pair).tolist() == [[2, 1, 2, 2], [3, 0, 0, 4]]


def test_the_loss_is_torchs_binary_cross_entropy_of_each_label() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 2, 4, 5)
    label = torch.randint(0, 4, (2, 4, 5))
    target = torch.stack([label % 2, label // 2], dim=1).float()
    expected = F.binary_cross_entropy_with_logits(logits, target)
    loss = SegmentationLoss("ce", "sigmoid", overlapping=True)
    torch.testing.assert_close(loss(logits, label), expected)
    label[0] = IGNORE
    torch.testing.assert_close(loss(logits, label), F.binary_cross_entropy_with_logits(logits[1], target[1]))
    smooth, p = 1.0, logits.sigmoid()[1]
    dice = (2 * (p * target[1]).sum((1, 2)) + smooth) / (p.sum((1, 2)) + target[1].sum((1, 2)) + smooth)
    torch.testing.assert_close(SegmentationLoss("dice", "sigmoid", overlapping=True)(logits, label), (1 - dice).mean())
    with pytest.raises(UserError, match=r"labels that overlap need network\.output: sigmoid, and it is softmax"):
        SegmentationLoss("ce", "softmax", overlapping=True)


def test_every_label_above_its_threshold_is_predicted() -> None:
    scores = torch.tensor([[0.9, 0.9, 0.1, 0.5], [0.8, 0.2, 0.7, 0.4]])
    assert to_indices(scores, "sigmoid", 0.5, overlapping=True).tolist() == [3, 1, 2, 0]
    assert to_indices(scores, "sigmoid", 0.5).tolist() == [1, 1, 2, 0]


def test_each_label_is_resampled_and_postprocessed_by_itself() -> None:
    bits = np.zeros((8, 8, 4), np.uint8)
    bits[:, :4] |= 1
    bits[2:6, 2:6] |= 2
    grid = WorkingGrid((0, 1, 2), (False,) * 3, (8, 8, 4), (4, 4, 4))
    fine = resample_indices(bits, grid, overlapping=True)
    for label in (1, 2):
        alone = resample_indices(label_mask(bits, label, True).astype(np.uint8), grid)
        np.testing.assert_array_equal(label_mask(fine, label, True), alone == 1)
    assert set(np.unique(fine)) == {0, 1, 2, 3}
    bits[0] = bits[1] = IGNORE
    assert (resample_indices(bits, grid, overlapping=True)[0] == IGNORE).all()

    ring = np.zeros((9, 9), np.uint8)
    ring[1:8, 1:8] = 1
    ring[3:6, 3:6] = 2  # a hole of the first label, which only the second one fills
    ring[0, 8] = 2
    steps = [FillHoles(step="fill_holes", label="disc"), LargestComponents(step="largest_components", label="cup")]
    done = postprocess(ring, steps, LABELS, overlapping=True)
    assert (label_mask(done, 1, True)[1:8, 1:8]).all() and label_mask(done, 1, True).sum() == 49
    assert label_mask(done, 2, True).sum() == 9


def write_discs(root: Path, count: int = 4) -> Path:
    """Pictures of a bright disc with a brighter cup in it, and label maps of two channels."""
    rng = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    rows, columns = np.mgrid[:32, :32]
    for index in range(count):
        y, x = rng.uniform(13, 19, 2)
        disc, cup = (np.hypot(rows - y, columns - x) < radius for radius in (10, 5))
        grey = (40 + 90 * disc + 90 * cup + rng.normal(0, 5, disc.shape)).clip(0, 255).astype(np.uint8)
        Picture.fromarray(np.dstack([grey] * 3)).save(root / f"images/case_{index}.png")
        np.save(root / f"labels/case_{index}.npy", np.stack([disc, cup], axis=-1).astype(np.uint8))
    return root


def test_nested_discs_are_learned_and_inference_scores_as_validation(tmp_path: Path) -> None:
    """The cup is a part of the disc: a network with one label for each pixel could not have both."""
    root = write_discs(tmp_path / "data")
    document = settings(
        root,
        data={"labels": LABELS, "overlapping": True},
        preprocessing={"intensity": {"kind": "unit"}},
        window={"size": [32, 32], "plane": None},
        network={"name": "PlainUNet", "channels": [8, 16], "output": "sigmoid"},
        sampling={"windows_per_epoch": 32},
        augmentation={"rotate_degrees": 20},
        training={"max_epochs": 8, "learning_rate": 0.02},
    )
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    run = train(load_config(tmp_path / "c.yaml"), tmp_path / "run", device="cpu")
    validation = run.manifest["results"]["validation"]
    assert min(validation[label]["dice"] for label in LABELS) > 0.9
    thresholds = json.loads((run.path / "thresholds.json").read_text())
    assert set(thresholds["values"]) == set(LABELS)
    assert (run.path / "plots/validation.png").is_file()

    segmentation = Segmenter.from_run(run.path, "cpu").segment(root / "images/case_2.png")
    both = segmentation.mask("disc") & segmentation.mask("cup")
    assert both.sum() > 30 and segmentation.found["cup"].voxels == segmentation.mask("cup").sum()
    (tmp_path / "out").mkdir()
    segmentation.write(tmp_path / "out/case_2.png")
    chosen = cases_of(run.path, "validation")
    data = chosen.config.data
    options = EvaluationOptions(labels=data.labels, overlapping=True, measures=["counts", "surfaces"])
    report = evaluate(tmp_path / "out", chosen.cases, options)
    assert len(report.rows) == 2
    for row in report.rows:
        assert row.scores["dice"] == pytest.approx(validation[row.label]["dice"], abs=1e-6)
        assert all(np.isfinite(score) for score in row.scores.values())
