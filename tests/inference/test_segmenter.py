"""Inference: the label map lies where the image lies, whatever the file's axes; and a run needs nothing but itself.

A network that compares each voxel with a threshold makes the right answer known for any image.
"""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image as Picture
from tiny import settings, write_config, write_volumes
from torch import nn

from r2seg.config import Config, load_config
from r2seg.data.geometry import WorkingGrid
from r2seg.data.images import read_probabilities
from r2seg.errors import UserError
from r2seg.inference.prediction import _check_finite
from r2seg.inference.segmenter import Found, Segmenter
from r2seg.run import Run
from r2seg.training.train import train

SHAPE = (9, 7, 5)


class Threshold(nn.Module):
    """Logits that favour label 1 where the first channel is above a value."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        score = 20 * (image[:, :1] - self.value)
        return torch.cat([-score, score], dim=1)


def segmenter(value: float = 0.5, *, in_channels: int = 1, image_dims: int = 3, **changes) -> Segmenter:
    window = {"size": [6, 6], "plane": "axial" if image_dims == 3 else None, "batch_size": 3}
    config = Config.model_validate(settings(Path("unused"), **{"window": window, **changes}))
    return Segmenter(
        Threshold(value), config, in_channels=in_channels, image_dims=image_dims, device=torch.device("cpu")
    )


def volume(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 200, shape).astype(np.int16)


def orientations() -> list[np.ndarray]:
    """The 48 axis orders and directions as affines with unequal voxel sizes."""
    affines = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            affine = np.zeros((4, 4))
            for axis, (target, sign, size) in enumerate(zip(order, signs, (0.7, 1.3, 2.9), strict=True)):
                affine[target, axis] = sign * size
            affine[:, 3] = (10, -20, 30, 1)
            affines.append(affine)
    assert len(affines) == 48
    return affines


def oblique() -> np.ndarray:
    angle = np.deg2rad(25)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-0.8, 1.1, 2.5])
    affine[:3, 3] = (5, 6, 7)
    return affine


def sheared() -> np.ndarray:
    affine = np.diag([1.0, -1.2, 3.0, 1.0])
    affine[1, 2] = 0.9  # a tilted gantry
    return affine


def save(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


@pytest.mark.parametrize("affine", [*orientations(), oblique(), sheared()])
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_each_voxel_keeps_its_label_in_every_orientation(affine: np.ndarray, plane: str, tmp_path: Path) -> None:
    voxels = volume()
    found = segmenter(window={"size": [4, 4], "plane": plane, "batch_size": 3}).segment(
        save(tmp_path / "image.nii", voxels, affine)
    )
    # hu_window -1000..200 puts 0.5 at -400 HU.
    np.testing.assert_array_equal(found.indices, voxels > -400)


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.uint8])
def test_written_header_is_the_inputs_field_by_field(dtype: type, tmp_path: Path) -> None:
    voxels = volume().astype(dtype) if dtype != np.uint8 else np.abs(volume()).astype(np.uint8)
    image = nib.Nifti1Image(voxels, oblique())
    image.set_qform(oblique(), code=1)
    image.set_sform(oblique(), code=2)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, tmp_path / "image.nii.gz")
    segmenter().segment(tmp_path / "image.nii.gz").write(tmp_path / "out.nii.gz")
    before, after = nib.load(tmp_path / "image.nii.gz").header, nib.load(tmp_path / "out.nii.gz").header
    assert after.get_data_dtype() == np.uint8
    own = {"datatype", "bitpix", "scl_slope", "scl_inter", "cal_max", "cal_min"}
    for key in before:
        if key not in own:
            np.testing.assert_array_equal(before[key], after[key], err_msg=key)


def test_a_fourth_axis_of_one_comes_back(tmp_path: Path) -> None:
    path = save(tmp_path / "image.nii.gz", volume()[..., None], oblique())
    segmenter().segment(path).write(tmp_path / "out.nii.gz")
    assert nib.load(tmp_path / "out.nii.gz").shape == (*SHAPE, 1)


def test_a_fourth_axis_of_the_runs_channels_is_read_as_channels(tmp_path: Path) -> None:
    channels = np.stack([volume(0), volume(1)], axis=-1)
    path = save(tmp_path / "image.nii.gz", channels, oblique())
    found = segmenter(in_channels=2).segment(path)
    np.testing.assert_array_equal(found.indices, volume(0) > -400)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((9, 7, 5, 4), "has 4 channels, but the run was trained on 1"),
        ((9, 7), "picture of two axes, but the run was trained on volumes of three axes"),
    ],
)
def test_other_axes_are_refused(shape: tuple[int, ...], message: str, tmp_path: Path) -> None:
    path = save(tmp_path / "image.nii.gz", volume(shape=shape), np.eye(4))
    with pytest.raises(UserError, match=message):
        segmenter().segment(path)


def test_a_resampled_ball_keeps_its_place_and_size(tmp_path: Path) -> None:
    axes = np.ogrid[:40, :36, :20]
    radius = sum(
        ((axis - middle) * size) ** 2 for axis, middle, size in zip(axes, (17, 20, 9), (1, 1.2, 2.5), strict=True)
    )
    truth = radius <= 12**2
    affine = np.diag([-1.0, 1.2, 2.5, 1.0])
    path = save(tmp_path / "image.nii.gz", np.where(truth, 0, -900).astype(np.int16), affine)
    for spacing in ([2.0, 2.0, 2.0], [0.8, 1.0, 4.0], [1.5, 1.2, 2.5]):
        found = segmenter(preprocessing={"spacing_mm": spacing}).segment(path).indices
        assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.92, spacing
        apart = np.array(np.nonzero(found)).mean(1) - np.array(np.nonzero(truth)).mean(1)
        assert np.abs(apart).max() < 0.15, spacing  # of a voxel


def test_windows_of_three_axes_give_the_same_answer(tmp_path: Path) -> None:
    path = save(tmp_path / "image.nii.gz", volume(), oblique())
    found = segmenter(window={"size": [4, 4, 3], "plane": None, "batch_size": 2}).segment(path)
    np.testing.assert_array_equal(found.indices, volume() > -400)


def test_probabilities_lie_on_the_files_grid_and_agree_with_the_labels(tmp_path: Path) -> None:
    path = save(tmp_path / "image.nii.gz", volume(), orientations()[37])
    segmentation = segmenter().segment(path, probabilities=True)
    probabilities = segmentation.probabilities
    assert probabilities.shape == (2, *SHAPE)
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(probabilities[1] > 0.5, segmentation.indices == 1)
    segmentation.write_probabilities(tmp_path / "p.nii.gz")
    np.testing.assert_allclose(read_probabilities(tmp_path / "p.nii.gz").array, probabilities, atol=1 / 65535)
    stored = nib.load(tmp_path / "p.nii.gz")
    assert stored.shape == (*SHAPE, 2)
    assert stored.dataobj.slope == pytest.approx(1 / 65535)


def test_a_colour_picture_is_segmented_into_a_visible_palette(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (11, 17, 3), dtype=np.uint8)
    Picture.fromarray(pixels).save(tmp_path / "photo.png")
    found = segmenter(in_channels=3, image_dims=2, preprocessing={"intensity": {"kind": "unit"}}).segment(
        tmp_path / "photo.png"
    )
    np.testing.assert_array_equal(found.indices, pixels[..., 0] > 127)
    found.write(tmp_path / "mask.png")
    written = Picture.open(tmp_path / "mask.png")
    assert written.mode == "P"
    np.testing.assert_array_equal(np.asarray(written), found.indices)
    colours = np.asarray(written.convert("RGB"))
    assert len(np.unique(colours.reshape(-1, 3), axis=0)) == 2
    assert colours.max() > 128


def test_a_run_segments_after_it_was_moved_and_its_data_deleted(tmp_path: Path) -> None:
    root = write_volumes(tmp_path / "data")
    config = load_config(write_config(tmp_path / "config.yaml", root, training={"max_epochs": 1}))
    run = train(config, tmp_path / "run", device="cpu")
    image = tmp_path / "scan.nii.gz"
    shutil.copy(root / "images/case_3.nii.gz", image)
    before = Segmenter.from_run(run.path, "cpu").segment(image).indices
    shutil.move(run.path, tmp_path / "a new place")
    shutil.rmtree(root)
    (tmp_path / "config.yaml").unlink()
    after = Segmenter.from_run(tmp_path / "a new place", "cpu").segment(image).indices
    np.testing.assert_array_equal(before, after)


def test_validation_and_inference_agree_exactly(tiny_run: Path, tiny_volumes: Path) -> None:
    found = Segmenter.from_run(tiny_run, "cpu").segment(tiny_volumes / "images/case_3.nii.gz").indices == 1
    truth = np.asarray(nib.load(tiny_volumes / "labels/case_3.nii.gz").dataobj) == 1
    dice = 2 * (found & truth).sum() / (found.sum() + truth.sum())
    assert Run.open(tiny_run).manifest["results"]["test"]["ball"]["dice"] == pytest.approx(dice, abs=1e-6)


def test_batch_size_does_not_change_the_labels(tiny_run: Path, tiny_volumes: Path) -> None:
    image = tiny_volumes / "images/case_3.nii.gz"
    one, many = (Segmenter.from_run(tiny_run, "cpu", batch_size=size).segment(image).indices for size in (1, 7))
    assert (one != many).mean() < 1e-3  # sums in another order may turn a voxel that sits on the fence


def test_what_was_found_is_millilitres_of_volumes_and_pixels_of_pictures(tmp_path: Path) -> None:
    voxels = np.full(SHAPE, -1000, np.int16)
    voxels[2:5, 1:3, 1:3] = 100
    segmentation = segmenter().segment(save(tmp_path / "a.nii.gz", voxels, sheared()))
    assert segmentation.found["ball"].voxels == 12
    assert segmentation.found["ball"].millilitres == pytest.approx(12 * 1 * 1.2 * 3 / 1000)  # shear keeps the volume
    assert segmentation.warnings == ()
    pixels = np.zeros((11, 17), np.uint8)
    pixels[3, 4:9] = 255
    Picture.fromarray(pixels).save(tmp_path / "a.png")
    pictures = segmenter(image_dims=2, preprocessing={"intensity": {"kind": "unit"}})
    assert pictures.segment(tmp_path / "a.png").found["ball"] == Found(5, None)
    Picture.fromarray(pixels * 0).save(tmp_path / "b.png")
    assert pictures.segment(tmp_path / "b.png").warnings == ("nothing was found: no voxel of the label map is ball",)


def test_a_run_without_an_intensity_range_gives_no_warning_and_a_damaged_one_is_an_error(
    tiny_run: Path, tiny_volumes: Path, tmp_path: Path
) -> None:
    image = tmp_path / "a.nii.gz"
    scan = nib.load(tiny_volumes / "images/case_3.nii.gz")
    save(image, np.asarray(scan.dataobj) + np.int16(1024), scan.affine)
    run = Run.open(shutil.copytree(tiny_run, tmp_path / "run"))
    assert any("unlike" in warning for warning in Segmenter.from_run(run.path, "cpu").segment(image).warnings)
    run.update_manifest(intensity_range=None)
    assert not any("unlike" in warning for warning in Segmenter.from_run(run.path, "cpu").segment(image).warnings)
    run.update_manifest(intensity_range=[{"file": "x"}])
    with pytest.raises(UserError, match=r"manifest\.json: .*the run is damaged"):
        Segmenter.from_run(run.path, "cpu")


class NotFinite(nn.Module):
    """Background everywhere, but a logit that is not finite where the image is brightest, as float16 overflows."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        score = torch.where(image[:, :1] >= 1, self.value, -1.0)
        return torch.cat([-score, score], dim=1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_fail_the_case_by_name_and_place(tmp_path: Path, value: float) -> None:
    voxels = np.full(SHAPE, -1000, np.int16)
    voxels[6, 2, 3] = 900  # above the window's end: 1
    affine = orientations()[29]
    path = save(tmp_path / "scan.nii.gz", voxels, affine)
    broken = segmenter()
    broken.network = NotFinite(value)
    message = r"scan\.nii\.gz: the network's logits are NaN or infinite in the window around voxel \(6, 2, 3\); the network computed in float32"
    with pytest.raises(UserError, match=message):
        broken.segment(path)
    with pytest.raises(UserError, match=message):
        broken.segment(path, probabilities=True)


def test_what_to_try_is_float32_where_the_network_computed_in_less() -> None:
    grid = WorkingGrid.of((3, 4), None)
    logits = torch.zeros(2, 3, 4)
    logits[1, 2, 1] = float("inf")
    with pytest.raises(
        UserError, match=r"voxel \(2, 1\); the network computed in float16: try infer\.precision=float32"
    ):
        _check_finite(logits, 0, 0, grid, torch.float16)
    _check_finite(torch.full((2, 3, 4), 3e38), 0, 0, grid, None)  # the sum overflows, the logits are finite


def test_the_voxel_of_a_working_voxel_is_the_files(tmp_path: Path) -> None:
    for affine in orientations():
        grid = WorkingGrid.of(SHAPE, affine)
        numbers = np.arange(np.prod(SHAPE)).reshape(SHAPE)
        oriented = grid.orient(numbers)
        index = tuple(size // 3 for size in oriented.shape)
        assert numbers[grid.file_voxel(index)] == oriented[index]


def test_the_precision_can_be_chosen_for_one_inference(tiny_run: Path) -> None:
    assert Segmenter.from_run(tiny_run, "cpu", precision="float32").precision == "float32"
    with pytest.raises(UserError, match="precision fp16 is for CUDA devices"):
        Segmenter.from_run(tiny_run, "cpu", precision="fp16")
    with pytest.raises(UserError, match="precision is 'half', which is unknown"):
        Segmenter.from_run(tiny_run, "cpu", precision="half")


def test_a_folder_that_is_not_a_run_is_reported_with_runs_near_it(tiny_run: Path) -> None:
    with pytest.raises(UserError, match=rf"is not a run folder.*runs nearby: .*{tiny_run.name}"):
        Segmenter.from_run(tiny_run.parent, "cpu")


def test_a_damaged_checkpoint_is_one_line(tiny_run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_run, tmp_path / "run")
    (copy / "best.pt").write_bytes((copy / "best.pt").read_bytes()[:1000])
    with pytest.raises(UserError, match=r"best\.pt: cannot be read as a checkpoint") as caught:
        Segmenter.from_run(copy, "cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "resize", [{"size": [80, 64]}, {"size": [80, 64], "keep_aspect": True}, {"longest_side": 96}, {"longest_side": 300}]
)
@pytest.mark.parametrize("shape", [(120, 90), (75, 141)])
def test_a_disc_in_a_resized_picture_comes_back_to_its_place(resize: dict, shape: tuple[int, int]) -> None:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    disc = ((rows - 0.45 * shape[0]) / 30) ** 2 + ((columns - 0.55 * shape[1]) / 30) ** 2 < 1
    smooth = np.where(disc, 255, 0).astype(np.uint8)
    preprocessing = {"intensity": {"kind": "unit"}, "resize": resize}
    found = segmenter(image_dims=2, preprocessing=preprocessing).segment(smooth[None], probabilities=True)
    assert found.indices.shape == shape
    assert found.probabilities.shape == (2, *shape)
    indices = found.indices == 1
    assert 2 * (indices & disc).sum() / (disc.sum() + indices.sum()) >= 0.99
    centres = [np.argwhere(each).mean(axis=0) for each in (indices, disc)]
    np.testing.assert_allclose(*centres, atol=0.25)


def test_the_grey_of_a_run_is_made_of_colours_and_of_grey_pictures() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (1, 20, 22), np.uint8)
    run = segmenter(image_dims=2, preprocessing={"intensity": {"kind": "unit"}, "color": "grey"})
    one, three = run.segment(grey), run.segment(np.repeat(grey, 3, axis=0))
    assert np.array_equal(one.indices, grey[0] > 127)
    assert np.array_equal(three.indices, one.indices)
    with pytest.raises(UserError, match=r"has 2 channels, and preprocessing\.color: grey is for colour pictures"):
        run.segment(np.zeros((2, 20, 22), np.uint8))


class Below(Threshold):
    """Logits that favour label 1 where the slice below is bright."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        assert image.shape[1] == 3
        return super().forward(image[:, :1])


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_a_network_sees_the_neighbouring_slices(plane: str) -> None:
    config = Config.model_validate(
        settings(Path("unused"), window={"size": [6, 6], "plane": plane, "batch_size": 2, "neighbours": 1})
    )
    network = Segmenter(Below(0.5), config, in_channels=1, image_dims=3, device=torch.device("cpu"))
    voxels = volume()
    axis = {"sagittal": 0, "coronal": 1, "axial": 2}[plane]
    below = np.take(voxels, [0, *range(SHAPE[axis] - 1)], axis=axis)
    found = network.segment(voxels[None], affine=np.eye(4))
    assert np.array_equal(found.indices, below > -400)


def test_a_field_of_view_is_that_of_the_mask_or_found_with_a_warning(tmp_path: Path) -> None:
    rows, columns = np.ogrid[:60, :60]
    inside = (rows - 30) ** 2 + (columns - 30) ** 2 < 26**2
    picture = np.where(inside, np.random.default_rng(0).integers(80, 200, (60, 60)), 1).astype(np.uint8)
    Picture.fromarray(picture).save(tmp_path / "eye.png")
    Picture.fromarray((inside * 255).astype(np.uint8)).save(tmp_path / "mask.png")
    zscore = {"intensity": {"kind": "zscore", "region": "field_of_view"}}
    run = segmenter(image_dims=2, preprocessing=zscore)
    given, found = (run.segment(tmp_path / "eye.png", mask=mask) for mask in (tmp_path / "mask.png", None))
    values = picture[inside]
    expected = inside & (picture > values.mean() + values.std() / 2)
    assert np.array_equal(given.indices, expected)
    assert given.warnings == ()
    assert np.array_equal(found.indices, expected)
    assert "the run was trained with masks: its field of view was found" in found.warnings[0]
    finds = segmenter(image_dims=2, preprocessing={**zscore, "field_of_view": "find"})
    assert finds.segment(tmp_path / "eye.png").warnings == ()
