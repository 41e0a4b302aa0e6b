"""The cache: made once, remade when anything it depends on changes, never read broken, and equal to what inference sees."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform
from PIL import Image as Picture

from r2seg.config import Config
from r2seg.data import cache as cache_module
from r2seg.data.cache import CachedCase, cache_cases
from r2seg.data.cases import Case
from r2seg.data.geometry import PLANES
from r2seg.data.images import IGNORE, read_image
from r2seg.data.layouts import find_cases
from r2seg.data.preprocessing import prepare_image
from r2seg.errors import UserError

SHAPE = (6, 7, 5)


def write_volume(root: Path, name: str, orientation: str = "LPS", channels: int = 1, dtype=np.int16) -> None:
    rng = np.random.default_rng(len(name))
    affine = np.diag([1.0, 2.0, 3.0, 1.0]) @ inv_ornt_aff(
        ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(orientation)), SHAPE
    )
    label = np.zeros(SHAPE, np.uint8)
    label[1:4, 2:5, 1:3] = 1
    label[4, 5, 3:] = 2
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for channel in range(channels):
        voxels = rng.integers(-500, 500, SHAPE).astype(dtype)
        suffix = f"_{channel:04}" if channels > 1 else ""
        nib.save(nib.Nifti1Image(voxels, affine), root / f"images/{name}{suffix}.nii.gz")
    nib.save(nib.Nifti1Image(label, affine), root / f"labels/{name}.nii.gz")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_volume(tmp_path / "set", "a")
    return tmp_path / "set"


def config_of(root: Path, **sections) -> Config:
    plain = {
        "name": "x",
        "data": {"root": root, "labels": {"one": 1, "two": 2}},
        "preprocessing": {"intensity": {"kind": "zscore"}},
        "window": {"size": [4, 4], "plane": "axial"},
    }
    for name, values in sections.items():
        plain[name] = {**plain[name], **values}
    return Config.model_validate(plain)


def cached(config: Config, folder: Path) -> list[CachedCase]:
    return cache_cases(find_cases(config.data), config, folder)


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SAR", "PIL"])
@pytest.mark.parametrize("spacing_mm", [None, [2, 2, 2]])
@pytest.mark.parametrize(
    "window", [{"plane": plane} for plane in PLANES] + [{"plane": None}, {"size": [4, 4, 4], "plane": None}]
)
def test_training_sees_exactly_what_inference_sees(tmp_path: Path, orientation: str, spacing_mm, window) -> None:
    write_volume(tmp_path, "a", orientation, channels=2)
    config = config_of(tmp_path, preprocessing={"spacing_mm": spacing_mm}, window=window)
    (case,) = cached(config, tmp_path / "cache")
    expected = prepare_image(read_image(find_cases(config.data)[0].images), config.preprocessing)
    assert case.prepared.shape == expected.shape
    assert torch.equal(case.prepared[:], expected[:])
    assert torch.equal(case.prepared[:, 1:2, 2:, :3], expected[:, 1:2, 2:, :3])
    assert (case.grid, case.intensity) == (expected.grid, expected.intensity)
    assert case.label.shape == case.grid.shape
    assert case.reference.shape == case.grid.oriented_shape
    assert case.spacing_mm == pytest.approx(
        [s * o / n for s, o, n in zip((1, 2, 3), case.grid.oriented_shape, case.grid.shape, strict=True)]
    )


def test_labels_lie_on_the_working_grid_in_ras_order(tmp_path: Path) -> None:
    found = {}
    for orientation in ("RAS", "ILP"):
        write_volume(tmp_path / orientation, "a", orientation)
        (case,) = cached(config_of(tmp_path / orientation), tmp_path / "cache")
        file = nib.load(tmp_path / orientation / "labels" / "a.nii.gz")
        assert np.array_equal(case.reference, nib.as_closest_canonical(file).get_fdata())
        found[orientation] = case
    assert found["RAS"].label.dtype == np.uint8


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("spacing_mm", [None, [2, 3, 2]])
def test_remembered_voxels_hold_their_label_in_every_plane(root: Path, tmp_path: Path, plane: str, spacing_mm) -> None:
    config = config_of(root, window={"plane": plane}, preprocessing={"spacing_mm": spacing_mm})
    (case,) = cached(config, tmp_path / "cache")
    assert set(case.foreground) == set(np.unique(case.label)) - {0, IGNORE}
    for index, voxels in case.foreground.items():
        assert {tuple(voxel) for voxel in voxels} == set(zip(*np.nonzero(case.label == index), strict=True))


def test_voxels_of_a_large_label_are_a_fair_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_REMEMBERED_VOXELS", 100)
    label = np.zeros((40, 40), np.uint8)
    label[:, 10:30] = 1
    label[0, 0] = 2
    label[0, 1] = IGNORE
    rows = cache_module._remember_foreground(label)
    assert np.array_equal(rows, cache_module._remember_foreground(label))
    ones = rows[rows[:, 0] == 1]
    assert len({tuple(row) for row in ones}) == 100
    assert (label[tuple(ones[:, 1:].T)] == 1).all()
    np.testing.assert_allclose(ones[:, 1:].mean(0), (19.5, 19.5), atol=4)
    assert rows[rows[:, 0] == 2].tolist() == [[2, 0, 0]]


def test_a_plane_is_read_whole_from_disk(root: Path, tmp_path: Path) -> None:
    for plane, axis in PLANES.items():
        (case,) = cached(config_of(root, window={"plane": plane}), tmp_path / "cache")
        assert case.voxels[0].take([0], axis=axis).nbytes == case.voxels[0].strides[axis]


def test_an_entry_is_made_once(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(root)
    (first,) = cached(config, tmp_path / "cache")
    monkeypatch.setattr(cache_module, "_write_entry", lambda *_: pytest.fail("made again"))
    (second,) = cached(config, tmp_path / "cache")
    assert np.array_equal(first.voxels, second.voxels)
    assert isinstance(second.voxels.base, np.memmap) or isinstance(second.voxels, np.memmap)
    # What does not concern an entry does not remake it: nor does reading it from a folder that cannot be written.
    cached(config_of(root, window={"size": [6, 6], "batch_size": 1, "overlap": 0.5}), tmp_path / "cache")


@pytest.mark.parametrize(
    "sections",
    [
        {"data": {"labels": {"two": 2, "one": 1}}},
        {"data": {"labels": {"both": [1, 2]}}},
        {"data": {"labels": {"one": 1}, "ignore_label": 2}},
        {"preprocessing": {"intensity": {"kind": "percentile"}}},
        {"preprocessing": {"spacing_mm": [2, 2, 2]}},
        {"window": {"plane": "sagittal"}},
        {"window": {"size": [4, 4, 4], "plane": None}},
    ],
)
def test_an_entry_is_made_anew_when_a_setting_changes_it(root: Path, tmp_path: Path, sections) -> None:
    cached(config_of(root), tmp_path / "cache")
    (found,) = cached(config_of(root, **sections), tmp_path / "cache")
    assert len(entries(tmp_path / "cache")) == 2
    (fresh,) = cached(config_of(root, **sections), tmp_path / "fresh")
    assert np.array_equal(found.label, fresh.label)
    assert np.array_equal(found.voxels, fresh.voxels)


def test_windows_without_a_plane_and_boxes_share_a_folder_without_mixing_up_axes(root: Path, tmp_path: Path) -> None:
    slices = config_of(root, window={"plane": None})
    boxes = config_of(root, window={"plane": None, "size": [4, 4, 4]})
    (a,), (b,) = cached(slices, tmp_path / "cache"), cached(boxes, tmp_path / "cache")
    assert np.array_equal(a.voxels, b.voxels)
    assert np.array_equal(a.label, b.label)


def test_labels_in_another_order_are_other_classes(root: Path, tmp_path: Path) -> None:
    (one,) = cached(config_of(root), tmp_path / "cache")
    (other,) = cached(config_of(root, data={"labels": {"two": 2, "one": 1}}), tmp_path / "cache")
    assert np.array_equal(np.asarray(one.label) == 1, np.asarray(other.label) == 2)


@pytest.mark.parametrize("folder", ["images", "labels"])
def test_an_entry_is_made_anew_when_a_file_changes(root: Path, tmp_path: Path, folder: str) -> None:
    config = config_of(root)
    (before,) = cached(config, tmp_path / "cache")
    before = np.array(before.voxels if folder == "images" else before.label)
    path = root / folder / "a.nii.gz"
    file = nib.load(path)
    changed = np.asarray(file.dataobj)[::-1]
    nib.save(nib.Nifti1Image(changed, file.affine), path)
    os.utime(path, ns=(1, 1))  # even where the clock is coarse
    (after,) = cached(config, tmp_path / "cache")
    assert np.array_equal(after.voxels if folder == "images" else after.label, before[..., ::-1, :, :])


@pytest.mark.parametrize("file", ["voxels.npy", "label.npy", "foreground.npy", "meta.json"])
@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "garbage"])
def test_a_broken_entry_is_made_anew(root: Path, tmp_path: Path, file: str, damage: str) -> None:
    config = config_of(root)
    (whole,) = cached(config, tmp_path / "cache")
    whole = np.array(whole.voxels)
    (entry,) = (tmp_path / "cache").iterdir()
    content = (entry / file).read_bytes()
    if damage == "gone":
        (entry / file).unlink()
    else:
        (entry / file).write_bytes(
            {"empty": b"", "cut": content[: len(content) // 2], "garbage": b"x" * len(content)}[damage]
        )
    (found,) = cached(config, tmp_path / "cache")
    assert np.array_equal(found.voxels, whole)
    assert set(found.foreground) == {1, 2}


def test_a_writer_that_was_killed_leaves_nothing_that_is_read(root: Path, tmp_path: Path, monkeypatch) -> None:
    saved = np.save

    def die(path, array):
        if path.name == "label.npy":
            raise KeyboardInterrupt
        saved(path, array)

    monkeypatch.setattr(np, "save", die)
    with pytest.raises(KeyboardInterrupt):
        cached(config_of(root), tmp_path / "cache")
    assert entries(tmp_path / "cache") == set()
    monkeypatch.undo()
    assert len(cached(config_of(root), tmp_path / "cache")) == 1


def test_two_at_once_both_get_the_case(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, found, errors = config_of(root), [], []
    both = threading.Barrier(2)
    write = cache_module._write_entry

    def write_together(*arguments) -> None:
        both.wait(10)
        write(*arguments)

    def work() -> None:
        try:
            found.append(np.array(cached(config, tmp_path / "cache")[0].voxels))
        except BaseException as error:
            errors.append(error)

    monkeypatch.setattr(cache_module, "_write_entry", write_together)
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert np.array_equal(*found)
    assert len(entries(tmp_path / "cache")) == 1


def test_several_cases_at_a_time_give_the_entries_of_one_at_a_time(root: Path, tmp_path: Path) -> None:
    for name in ("b", "c", "d"):
        write_volume(root, name)
    config = config_of(root, preprocessing={"spacing_mm": [2, 3, 2]})
    cases, seen = find_cases(config.data), []
    one, three = (
        cache_cases(cases, config, tmp_path / f"{workers}", seen.append, workers=workers) for workers in (1, 3)
    )
    assert [case.id for case in seen] == [case.id for case in cases] * 2
    for a, b in zip(one, three, strict=True):
        assert a.id == b.id
        assert np.array_equal(a.voxels, b.voxels)
        assert np.array_equal(a.label, b.label)


@pytest.mark.parametrize("workers", [1, 2])
def test_all_cases_that_cannot_be_used_are_reported_together(root: Path, tmp_path: Path, workers: int) -> None:
    for name in ("b", "c", "d", "e"):
        write_volume(root, name)
    (root / "images" / "b.nii.gz").write_bytes(b"")
    label = nib.load(root / "labels" / "c.nii.gz")
    nib.save(nib.Nifti1Image(np.full(SHAPE, 7, np.uint8), label.affine), root / "labels" / "c.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((6, 7, 6), np.uint8), label.affine), root / "labels" / "d.nii.gz")
    seen = []
    config = config_of(root)
    cases = find_cases(config.data)
    (root / "labels" / "e.nii.gz").unlink()
    with pytest.raises(UserError) as caught:
        cache_cases(cases, config, tmp_path / "cache", seen.append, workers=workers)
    problems = str(caught.value).splitlines()
    assert [problem.partition(":")[0] for problem in problems] == ["case b", "case c", "case d", "case e"]
    assert "7 (210 pixels)" in problems[1]
    assert "(6, 7, 6) differs from grid (6, 7, 5)" in problems[2]
    assert "e.nii.gz: cannot be read: No such file" in problems[3]
    assert [case.id for case in seen] == ["a", "b", "c", "d", "e"]


def test_a_folder_that_cannot_be_written_is_reported(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        UserError,
        match=r"case a: .*file: the preprocessed case a cannot be written: .*; set data\.cache to a writable folder",
    ):
        cached(config_of(root), tmp_path / "file")

    for error in (OSError(28, "No space left on device"), OSError("1288 requested and 992 written")):

        def full(path, array, error=error):
            raise error

        monkeypatch.setattr(np, "save", full)
        with pytest.raises(UserError, match="cannot be written: No space left on device"):
            cached(config_of(root), tmp_path / "cache")
        assert entries(tmp_path / "cache") == set()


def test_a_folder_that_only_can_be_read_serves_what_it_holds(root: Path, tmp_path: Path, monkeypatch) -> None:
    cached(config_of(root), tmp_path / "cache")

    def refuse(path: Path, **_) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert len(cached(config_of(root), tmp_path / "cache")) == 1
    other = config_of(root, preprocessing={"spacing_mm": [2, 2, 2]})
    with pytest.raises(UserError, match=r"cannot be written: Permission denied; set data\.cache"):
        cached(other, tmp_path / "cache")


def test_pictures_keep_their_type_and_field_of_view(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for folder in ("images", "labels", "masks"):
        (tmp_path / folder).mkdir()
    pixels = rng.integers(0, 255, (9, 11, 3), np.uint8)
    Picture.fromarray(pixels).save(tmp_path / "images" / "p.png")
    Picture.fromarray((pixels[..., 0] > 128).astype(np.uint8) * 255).save(tmp_path / "labels" / "p.png")
    mask = np.zeros((9, 11), np.uint8)
    mask[2:8, 3:9] = 255
    Picture.fromarray(mask).save(tmp_path / "masks" / "p.png")
    config = config_of(tmp_path, data={"labels": {"x": 255}}, window={"plane": None})
    (case,) = cached(config, tmp_path / "cache")
    assert case.voxels.dtype == np.uint8
    assert np.array_equal(case.voxels, pixels.transpose(2, 0, 1))
    assert ((np.asarray(case.label) == IGNORE) == (mask == 0)).all()
    assert case.spacing_mm == (1.0, 1.0)
    assert (mask[tuple(case.foreground[1].T)] == 255).all()
    boxes = config_of(tmp_path, data={"labels": {"x": 255}}, window={"plane": None, "size": [4, 4, 4]})
    with pytest.raises(UserError, match=r"case p: is a picture, but window\.size \[4, 4, 4\] is 3-D"):
        cached(boxes, tmp_path / "cache")


def test_a_label_is_not_taken_for_a_channel(root: Path) -> None:
    image, label = root / "images" / "a.nii.gz", root / "labels" / "a.nii.gz"
    cases = [Case("x", (image,), (image,), label), Case("x", (image, image), (label,))]
    assert len({cache_module._key(case, config_of(root), 0) for case in cases}) == 2


@pytest.mark.parametrize(
    "preprocessing",
    [
        {"resize": {"size": [8, 7]}},
        {"resize": {"longest_side": 30}, "intensity": {"kind": "percentile"}},
        {"color": "green", "clahe": {"tiles": [2, 2]}, "gamma": 1.2, "resize": {"longest_side": 9}},
        {"color": "grey", "intensity": {"kind": "zscore", "region": "field_of_view"}, "resize": {"size": [9, 30]}},
        {"field_of_view": "find", "intensity": {"kind": "zscore", "region": "field_of_view"}},
        {"intensity": {"kind": "zscore", "region": "nonzero"}},
    ],
)
def test_training_sees_pictures_as_inference_does(tmp_path: Path, preprocessing: dict) -> None:
    rng = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    pixels = rng.integers(60, 255, (20, 24, 3), np.uint8)
    pixels[:, :5] = 0
    Picture.fromarray(pixels).save(tmp_path / "images" / "p.png")
    label = np.zeros((20, 24), np.uint8)
    label[4:14, 8:18] = 255
    Picture.fromarray(label).save(tmp_path / "labels" / "p.png")
    mask = np.zeros((20, 24), np.uint8)
    mask[1:19, 5:] = 255
    if "field_of_view" not in preprocessing:
        (tmp_path / "masks").mkdir()
        Picture.fromarray(mask).save(tmp_path / "masks" / "p.png")
    config = config_of(tmp_path, data={"labels": {"x": 255}}, window={"plane": None}, preprocessing=preprocessing)
    (case,) = cached(config, tmp_path / "cache")
    inside = None if "field_of_view" in preprocessing else mask
    expected = prepare_image(read_image(tmp_path / "images" / "p.png"), config.preprocessing, inside)
    assert torch.equal(case.prepared[:], expected[:])
    assert len(case.voxels) == (1 if "color" in preprocessing else 3)
    assert case.label.shape == case.voxels.shape[1:] == case.grid.shape
    assert case.reference.shape == (20, 24)
    outside = np.arange(24) < 5
    assert (case.reference[:, outside] == IGNORE).all()
    assert np.array_equal(np.asarray(case.reference) == 1, label > 0)
    share = (np.asarray(case.label) == 1).mean()
    assert share == pytest.approx((label > 0).mean(), abs=0.05)
