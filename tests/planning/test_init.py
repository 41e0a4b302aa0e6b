"""``r2seg init`` on folders: what it finds, that its config loads to what was planned, and that nothing is guessed in silence."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tiny import AFFINES, SHAPE, ball, write_pictures, write_volumes
from trees import TREES, make

from r2seg.config import load_config
from r2seg.data.layouts import find_cases
from r2seg.data.splits import draw_split
from r2seg.errors import UserError
from r2seg.planning import initialize, timing
from r2seg.planning.initialize import Options, Plan, init_config
from r2seg.planning.length import Costs
from r2seg.planning.timing import Measured
from r2seg.training.plan import plan_training

CPU = torch.device("cpu")
COSTS = Costs(start=20, step=0.5, validation=5, finish=7)


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is trained: steps take what they take on two quiet cores."""
    monkeypatch.setattr(initialize, "measure", lambda config, parts, device: Measured(COSTS, None, 10))


def init(folder: Path, output: Path, **options: object) -> Plan:
    return init_config(folder, output, Options(**options), CPU)  # type: ignore[arg-type]


def refused(folder: Path, output: Path, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        init(folder, output, **options)
    assert not output.exists() or options == {}
    return str(caught.value)


def reopened(plan: Plan) -> dict:
    """The settings that the written file gives, by their dotted keys."""
    config = load_config(plan.path, require_data=True).model_dump()
    found = {}
    for choice in plan.choices:
        value: object = config
        for part in choice.key.split("."):
            value = value[part]  # type: ignore[index]
        found[choice.key] = value
    return found


def plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def assert_round_trip(plan: Plan) -> None:
    """The file says what was planned, and every choice stands in it with its reason."""
    found = reopened(plan)
    for choice in plan.choices:
        if choice.key in ("data.root", "data.files.table"):  # relative there
            continue
        got = plain(found[choice.key])
        if choice.key.startswith("data.files.") and not isinstance(choice.value, list):
            got = got[0] if isinstance(got, list) else got
        if isinstance(choice.value, dict):  # sections gain their defaults
            assert {**got, **plain(choice.value)} == got, choice.key  # type: ignore[dict-item]
        else:
            assert got == plain(choice.value), choice.key
    flat = " ".join(line.strip().lstrip("#").strip() for line in plan.path.read_text().splitlines())
    for choice in plan.choices:
        assert choice.reason in flat, choice.key


def assert_dry_run_is_clean(plan: Plan, *overrides: str) -> None:
    small = ["network.channels=[4, 8]", "network.steps=1", *overrides]
    if any(choice.key == "network.strides" for choice in plan.choices):
        small.append("network.strides=null")
    config = load_config(plan.path, small, require_data=True)
    page = str(plan_training(config, CPU))
    assert "config and data are sound" in page


def write_pairs(root: Path, image: str, label: str, count: int = 5, seed: int = 0) -> Path:
    """Volumes of a ball under any names; # is the case."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        voxels, mask = ball(SHAPE, rng)
        for pattern, array in ((image, voxels), (label, mask)):
            path = root / pattern.replace("#", f"{number:03d}")
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, AFFINES["LPS"]), path)
    return root


@pytest.mark.usefixtures("untimed")
def test_volumes_of_any_names_become_a_config_that_trains_as_it_is(tmp_path: Path) -> None:
    write_pairs(tmp_path / "scans", "#_image.nii.gz", "#_lungmask.nii.gz")
    plan = init(tmp_path / "scans", tmp_path / "my.yaml", budget_seconds=900)
    assert_round_trip(plan)
    document = yaml.safe_load(plan.path.read_text())
    assert document["data"]["layout"] == "files" and document["data"]["root"] == "scans"
    assert document["data"]["files"] == {"image": "{id}_image.nii.gz", "label": "{id}_lungmask.nii.gz"}
    assert document["data"]["labels"] == {"lung": 1}  # from "lungmask"
    assert document["window"]["plane"] == "axial"
    assert document["preprocessing"]["spacing_mm"] == [2.0, 2.5, 5.0]
    intensity = document["preprocessing"]["intensity"]
    # The ball is 0 HU with noise of 40: percentiles .5 and 99.5 are about -103 and 103, widened by a quarter of 206.
    assert intensity["kind"] == "hu_window" and intensity["low"] == pytest.approx(-155, abs=15)
    assert intensity["high"] == pytest.approx(155, abs=15)
    assert_dry_run_is_clean(plan)


@pytest.mark.usefixtures("untimed")
def test_a_config_beside_its_data_can_be_moved_with_them(tmp_path: Path) -> None:
    write_pairs(tmp_path / "a" / "scans", "images/#.nii.gz", "labels/#.nii.gz")
    init(tmp_path / "a" / "scans", tmp_path / "a" / "my.yaml")
    (tmp_path / "a").rename(tmp_path / "b")
    config = load_config(tmp_path / "b" / "my.yaml", require_data=True)
    assert len(find_cases(config.data)) == 5
    inside = init(tmp_path / "b" / "scans", tmp_path / "b" / "scans" / "inside.yaml")
    assert yaml.safe_load(inside.path.read_text())["data"]["root"] == "."
    far = init(tmp_path / "b" / "scans", tmp_path / "x" / "y" / "z" / "far.yaml")
    assert yaml.safe_load(far.path.read_text())["data"]["root"] == str(tmp_path / "b" / "scans")


@pytest.mark.usefixtures("untimed")
def test_files_that_no_pattern_describes_get_a_table(tmp_path: Path) -> None:
    root = tmp_path / "mixed"
    for seed, part in enumerate(("train", "val", "test")):
        write_pairs(root / part, "images/#.nii.gz", "masks/#.nii.gz", count=2, seed=seed)
    plan = init(root, tmp_path / "my.yaml")
    assert plan.table == tmp_path / "my_cases.csv"
    assert_round_trip(plan)
    rows = plan.table.read_text().splitlines()
    assert rows[0] == "id,image,label,split" and len(rows) == 7
    assert "test/000,test/images/000.nii.gz,test/masks/000.nii.gz,test" in rows
    cases = find_cases(load_config(plan.path).data)
    assert {case.split for case in cases} == {"train", "validation", "test"}
    (tmp_path / "my.yaml").unlink()
    assert "my_cases.csv exists already" in refused(root, tmp_path / "my.yaml")


@pytest.mark.usefixtures("untimed")
def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    write_pairs(tmp_path / "scans", "images/#.nii.gz", "labels/#.nii.gz")
    output = tmp_path / "my.yaml"
    output.write_text("mine")
    assert f"{output} exists already: give another name with -o, or --force" in refused(tmp_path / "scans", output)
    assert output.read_text() == "mine"
    init(tmp_path / "scans", output, force=True)
    assert load_config(output).name == "scans"


@pytest.mark.usefixtures("untimed")
def test_both_eyes_of_a_child_are_in_one_part(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for child in range(1, 6):
        for eye in "LR":
            voxels, label = ball((24, 30), rng)
            Image.fromarray(((voxels + 1100) / 8).clip(0, 255).astype(np.uint8)).save(
                _made(tmp_path / f"d/{child:02}_{eye}.png")
            )
            Image.fromarray(label * 255).save(tmp_path / f"d/{child:02}_{eye}_vessels_mask.png")
    plan = init(tmp_path / "d", tmp_path / "my.yaml")
    assert_round_trip(plan)
    config = load_config(plan.path)
    parts = draw_split(find_cases(config.data), config.data.split, config.seed).parts
    children = [{case.id[:2] for case in members} for members in parts.values()]
    assert all(children) and sum(map(len, children)) == 5
    assert any("left and right eye" in line and "5 patients" in line for line in plan.found)


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.usefixtures("untimed")
def test_what_is_unsure_stands_in_the_file_and_in_the_report(tmp_path: Path) -> None:
    write_pictures(tmp_path / "d", 6)
    plan = init(tmp_path / "d", tmp_path / "my.yaml")
    assert any("the labels have no names yet: label_1" in text for text in plan.doubts)
    assert any("the names do not tell the patients" in text for text in plan.doubts)
    assert any("taken for photograph" in text for text in plan.doubts)
    heading = plan.path.read_text().split("\nname:")[0].replace("\n#  ", "")
    for text in plan.doubts:
        assert text in heading


@pytest.mark.usefixtures("untimed")
def test_a_damaged_file_is_told_by_name_and_does_not_end_the_plan(tmp_path: Path) -> None:
    write_pairs(tmp_path / "d", "images/#.nii.gz", "labels/#.nii.gz", count=6)
    (tmp_path / "d/images/002.nii.gz").write_bytes(b"nothing")
    plan = init(tmp_path / "d", tmp_path / "my.yaml")
    assert any("002.nii.gz" in text and "cannot be used" in text for text in plan.doubts)


def test_a_folder_that_gives_no_training_is_refused_in_a_line(tmp_path: Path) -> None:
    output = tmp_path / "my.yaml"
    assert "there is no such folder" in refused(tmp_path / "nothing", output)
    (tmp_path / "empty").mkdir()
    assert "holds no image in a known format" in refused(tmp_path / "empty", output)
    blank = write_pairs(tmp_path / "blank", "images/#.nii.gz", "labels/#.nii.gz")
    for path in (blank / "labels").iterdir():
        nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.uint8), AFFINES["LPS"]), path)
    assert "every label map is empty" in refused(blank, output)
    swapped = write_pairs(tmp_path / "swapped", "labels/#.nii.gz", "images/#.nii.gz")
    assert "is it an image?" in refused(swapped, output)


def test_a_batch_that_does_not_fit_the_memory_is_halved_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def measure(config, parts, device) -> Measured:
        tried.append(config.window.batch_size)
        if len(tried) < 3:
            raise timing.OutOfMemory("full")
        return Measured(COSTS, None, 10)

    monkeypatch.setattr(initialize, "measure", measure)
    plan = init(write_volumes(tmp_path / "d"), tmp_path / "my.yaml")
    assert tried == [8, 4, 2]
    assert load_config(plan.path).window.batch_size == 2
    assert "halved from 4, which did not fit the memory" in plan.path.read_text()


def test_the_estimate_is_measured_on_real_steps_and_a_real_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "_SECONDS", 0.2)
    plan = init(write_volumes(tmp_path / "d"), tmp_path / "my.yaml", budget_seconds=120)
    costs = plan.measured.costs
    assert plan.measured.num_steps >= 4 and costs.step > 0 and costs.validation > 0
    # Steps, validations, checkpoints, preprocessing and the last scoring, as the file says.
    config = load_config(plan.path)
    steps = -(-config.sampling.windows_per_epoch // config.window.batch_size) * config.training.max_epochs
    assert steps == plan.length.num_steps
    assert plan.length.seconds <= 120 or plan.length.notes
    assert_dry_run_is_clean(plan)


def fill(root: Path, layout: str) -> Path:
    """The empty files of a tree as small images, label maps and fields of view, in the formats that their names say."""
    data = load_config_section(root, layout)
    rng = np.random.default_rng(0)
    for case in find_cases(data):
        volume = case.images[0].name.endswith(".nii.gz")
        values, label = ball(SHAPE if volume else (40, 48), rng)
        written = label * (255 if layout in ("drive", "stare", "hrf", "chase_db1", "isic") else 1)
        colour = layout in ("drive", "stare", "hrf", "chase_db1", "isic", "voc", "folder")
        for path in case.images:
            write(path, np.stack([(values + 1100) / 8] * 3, -1).clip(0, 255).astype(np.uint8) if colour else values)
        for path in (*case.labels, *case.observers):
            write(path, written)
        if case.mask:
            write(case.mask, np.full(label.shape, 255, np.uint8))
    return root


def load_config_section(root: Path, layout: str):
    from r2seg.config import Data

    return Data.model_validate({"layout": layout, "root": str(root), "labels": {"x": 1}})


def write(path: Path, array: np.ndarray) -> None:
    if path.name.endswith(".nii.gz"):
        nib.save(nib.Nifti1Image(array, AFFINES["LPS"]), path)
    elif path.name.endswith(".ppm.gz"):
        content = io.BytesIO()
        Image.fromarray(array).save(content, "PPM")
        path.write_bytes(gzip.compress(content.getvalue()))
    else:
        Image.fromarray(array.astype(np.int32) if array.dtype == np.int16 else array).save(path)


# Names of the trees of tests/trees.py; LCTSC's is DICOM.
@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize(
    "layout", ["drive", "stare", "chase_db1", "hrf", "isic", "kaggle_lung", "msd", "nnunet", "voc", "folder"]
)
def test_data_sets_as_unpacked_are_recognised_and_their_configs_hold(layout: str, tmp_path: Path) -> None:
    root = fill(make(tmp_path / layout, TREES[layout]), layout)
    plan = init(root, tmp_path / "my.yaml")
    assert_round_trip(plan)
    config = load_config(plan.path, require_data=True)
    assert config.data.layout == layout
    split = draw_split(find_cases(config.data), config.data.split, config.seed)
    assert split.parts["train"] and split.parts["validation"]
    if layout == "nnunet":
        # The tree's regions are whole tumor [1, 2] and core [2], and its value 3 is undecided.
        assert config.data.labels == {"whole tumor": (1,), "core": (2,)} and config.data.ignore_label == 3
        assert any("regions that overlap" in text for text in plan.doubts)


@pytest.mark.usefixtures("untimed")
def test_large_photographs_of_skin_are_resized_and_their_dry_run_is_clean(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(5):
        _, label = ball((300, 400), rng)
        picture = np.where(label[..., None] > 0, np.array([90, 50, 40]), np.array([200, 150, 130]))
        picture = (picture + rng.normal(0, 5, picture.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(picture).save(_made(tmp_path / f"skin/{number}.jpg"))
        Image.fromarray(label * 255).save(tmp_path / f"skin/{number}_segmentation.png")
    plan = init(tmp_path / "skin", tmp_path / "my.yaml")
    assert_round_trip(plan)
    config = load_config(plan.path)
    assert config.preprocessing.resize is not None and config.preprocessing.resize.longest_side == 256
    assert config.window.size == (192, 256) and any("dermoscopy" in line for line in plan.found)
    assert_dry_run_is_clean(plan)


@pytest.mark.usefixtures("untimed")
def test_mr_is_measured_where_it_is_not_0_and_fundus_inside_its_field_of_view(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:90, :100]
    disc = ((y - 45) ** 2 + (x - 50) ** 2 < 42**2)[..., None]
    for number in range(4):
        values, label = ball(SHAPE, rng)
        for name, array in (("flair", (values + 1200).clip(0).astype(np.int16)), ("seg", label)):
            path = _made(tmp_path / f"mr/p{number}/{name}.nii.gz")
            nib.save(nib.Nifti1Image(array, AFFINES["LPS"]), path)
        _, vessel = ball((90, 100), rng)
        fundus = np.where(disc, np.array([170, 90, 40]) - 30 * vessel[..., None] + rng.integers(0, 9), 0)
        Image.fromarray(fundus.astype(np.uint8)).save(_made(tmp_path / f"eyes/{number}.png"))
        Image.fromarray(vessel * 255).save(tmp_path / f"eyes/{number}_gt.png")
    mr = init(tmp_path / "mr", tmp_path / "mr.yaml")
    eyes = init(tmp_path / "eyes", tmp_path / "eyes.yaml")
    assert load_config(mr.path).preprocessing.intensity.region == "nonzero"
    preprocessing = load_config(eyes.path).preprocessing
    assert preprocessing.intensity.region == "field_of_view" and preprocessing.field_of_view == "find"
    for plan in (mr, eyes):
        assert_round_trip(plan)
        assert_dry_run_is_clean(plan)


@pytest.mark.real
@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize(
    ("name", "layout", "kind", "patients"),
    [("chase_db1", "chase_db1", "fundus", 7), ("isic2018", "isic", "dermoscopy", 150), ("lctsc", "lctsc", "ct", 4)],
)
def test_real_data_as_they_lie_are_recognised_and_planned(
    name: str, layout: str, kind: str, patients: int, real_data: Path, tmp_path: Path
) -> None:
    plan = init(real_data / name, tmp_path / "my.yaml", budget_seconds=900)
    assert_round_trip(plan)
    config = load_config(plan.path, require_data=True)
    cases = find_cases(config.data)
    assert config.data.layout == layout and len({case.group for case in cases}) == patients
    assert any(line.startswith(f"kind     {kind}") for line in plan.found)
    parts = draw_split(cases, config.data.split, config.seed).parts
    groups = [{case.group for case in members} for members in parts.values()]
    assert all(groups) and sum(map(len, groups)) == patients  # no child on two sides
    if name == "lctsc":
        assert config.preprocessing.spacing_mm == (2, 2, 3) and config.window.size == (160, 160)
    if name == "isic2018":
        assert config.window.size == (96, 128) and config.sampling.foreground == 0


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize("name", ["chase_db1", "isic2018", "lctsc"])
def test_the_dry_run_of_a_plan_for_real_data_is_clean(name: str, real_data: Path, tmp_path: Path) -> None:
    assert_dry_run_is_clean(init(real_data / name, tmp_path / "my.yaml"))


@pytest.mark.usefixtures("untimed")
def test_a_single_case_trains_without_validation_and_that_is_said(tmp_path: Path) -> None:
    plan = init(write_pairs(tmp_path / "d", "anna.nii.gz", "anna_seg.nii.gz", count=1), tmp_path / "my.yaml")
    assert_round_trip(plan)
    config = load_config(plan.path)
    split = draw_split(find_cases(config.data), config.data.split, config.seed)
    assert {part: len(members) for part, members in split.parts.items()} == {"train": 1, "validation": 0, "test": 0}
    assert "one patient only: all cases train" in plan.path.read_text()


def write_dicom(folder: Path, label: Path, seed: int) -> None:
    """A small CT series with a bright box, and the box as the structure Lung_L of an RTSTRUCT."""
    from dicom_files import write_rtstruct, write_series

    from r2seg.data.images import read_image

    values = np.random.default_rng(seed).integers(-900, -700, (5, 24, 20)).astype(np.int16)
    values[:, 6:14, 5:12] = 40
    write_series(folder, values, name="1-{:03d}.dcm".format)
    lps_from_index = np.diag([-1.0, -1, 1, 1]) @ read_image(folder).affine
    corners = [(5, 6), (12, 6), (12, 14), (5, 14)]
    rings = [np.array([(lps_from_index @ (x - 0.5, y - 0.5, k, 1))[:3] for x, y in corners]) for k in range(5)]
    label.parent.mkdir(parents=True, exist_ok=True)
    write_rtstruct(label, {"Lung_L": rings, **({"Couch": rings} if seed == 0 else {})})


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize(
    ("series", "label", "layout"),
    [
        ("LCTSC-Train-S1-00#/a/ct", "LCTSC-Train-S1-00#/a/rt/1-1.dcm", "lctsc"),
        ("p#/ct", "p#/rtstruct.dcm", "files"),
        ("images/p#", "labels/p#.dcm", "folder"),
    ],
)
def test_series_and_structures_of_dicom_become_a_config(series: str, label: str, layout: str, tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    for number in range(4):
        write_dicom(*(tmp_path / "d" / name.replace("#", str(number)) for name in (series, label)), seed=number)
    plan = init(tmp_path / "d", tmp_path / "my.yaml")
    assert_round_trip(plan)
    config = load_config(plan.path, require_data=True)
    assert config.data.layout == layout
    assert dict(config.data.labels) == {"Lung_L": (1,)}
    assert any("only some of the 4 files hold are left out: Couch (1)" in text for text in plan.doubts)
    assert config.preprocessing.intensity.kind == "hu_window"
    assert_dry_run_is_clean(plan)
