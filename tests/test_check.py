"""The data check: every mistake in one line with file and remedy, all of a tree at once, and a page that holds everything."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image as Picture
from tiny import write_config
from typer.testing import CliRunner

from r2seg.cli import app_of
from r2seg.config import load_config
from r2seg.data_check.check import DataCheck, check_data
from r2seg.data_check.figures import figures_of
from r2seg.errors import UserError
from r2seg.training.plan import plan_training

AFFINE = np.diag([2.0, 2.5, 5.0, 1.0])
SPLIT = {"train": ["case_0", "case_1"], "validation": ["case_2"], "test": ["case_3"]}


def checked(root: Path, folder: Path, **changes) -> DataCheck:
    return check_data(load_config(write_config(folder / "config.yaml", root, **changes)))


def lines(findings) -> list[str]:
    return [finding.text for finding in findings]


@pytest.fixture
def volumes(tiny_volumes: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_volumes, tmp_path / "volumes"))


@pytest.fixture
def pictures(tiny_pictures: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_pictures, tmp_path / "pictures"))


def change(
    path: Path, values: Callable[[np.ndarray], np.ndarray] = lambda a: a, affine: np.ndarray | None = None
) -> None:
    """Writes a volume again with other values, or another affine."""
    image = nibabel.load(path)
    array = values(np.asarray(image.dataobj))
    nibabel.save(nibabel.Nifti1Image(array, image.affine if affine is None else affine), path)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def add_channel(path: Path) -> None:
    change(path, lambda a: np.stack([a, a], axis=-1))


def rotten(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    path.write_bytes(whole)


# What is done to one file of the tree -> what the check says: "error" or "warning", the file, and words of the line.
VOLUME_MISTAKES: dict[str, tuple[str, Callable[[Path], object], str, str]] = {
    "truncated image": ("images/case_0.nii.gz", cut_short, "error", r"truncated.*; replace the image, or remove the case"),
    "truncated label": ("labels/case_0.nii.gz", cut_short, "error", r"cannot be read.*; replace the label, or remove the case"),
    "damaged image": ("images/case_0.nii.gz", rotten, "error", r"; replace the image, or remove the case"),
    "empty file": ("images/case_1.nii.gz", lambda p: p.write_bytes(b""), "error", r"is empty \(0 bytes\); replace the image"),
    "text for an image": ("images/case_1.nii.gz", lambda p: p.write_text("hello"), "error", r"cannot be read.*; replace the image"),
    "label of another size": (
        "labels/case_1.nii.gz",
        lambda p: change(p, lambda a: a[:, :, 1:]),
        "error",
        r"grid \(22, 18, 6\) differs from grid \(22, 18, 7\).*; export the label on the grid of its image",
    ),
    "label in another place": (
        "labels/case_2.nii.gz",
        lambda p: change(p, affine=AFFINE + 9 * np.eye(4, k=3)),
        "error",
        r"differs .* by up to 9 mm.*; export the label on the grid of its image",
    ),
    "undeclared value": ("labels/case_3.nii.gz", lambda p: change(p, lambda a: a * 7), "error", r"undeclared label values 7 \(\d+ pixels\).*; declare these values too, or correct"),
    "label with fractions": ("labels/case_3.nii.gz", lambda p: change(p, lambda a: a * 0.5), "error", r"not integers, for example 0.5.*; replace the label"),
    "NaN": ("images/case_2.nii.gz", lambda p: change(p, lambda a: np.where(a > -500, np.nan, a).astype(np.float32)), "error", r"NaN or infinite.*; replace"),
    "other channels": ("images/case_3.nii.gz", add_channel, "error", r"case case_3 has 2 channels and case case_0 has 1 channel: all cases need"),
    "link to nowhere": ("images/case_1.nii.gz", lambda p: (p.unlink(), p.symlink_to("nowhere.nii.gz")), "error", r"does not exist; replace the image"),
    "unlabelled case": ("labels/case_1.nii.gz", lambda p: change(p, np.zeros_like), "warning", r"holds no foreground; "),
    "unlabelled test": ("labels/case_3.nii.gz", lambda p: change(p, np.zeros_like), "warning", r"no test case holds ball \(of 1\).*; change data.split"),
    "inverted label": ("labels/case_1.nii.gz", lambda p: change(p, np.ones_like), "warning", r"ball fills 100.0% of the pixels; is the mask inverted\?"),
    "without rescaling": ("images/case_1.nii.gz", lambda p: change(p, lambda a: a + 1400), "warning", r"values from \d+ to \d+ are not HU.*rescale intercept"),
    "8-bit CT": ("images/case_1.nii.gz", lambda p: change(p, lambda a: ((a + 1200) // 8).clip(0, 255).astype(np.uint8)), "warning", r"8 bits, not HU; convert"),
    "scaled CT": ("images/case_1.nii.gz", lambda p: change(p, lambda a: (a / 1000).astype(np.float32)), "warning", r"have been scaled and are not HU; convert"),
    "constant image": ("images/case_1.nii.gz", lambda p: change(p, lambda a: np.full_like(a, -1000)), "warning", r"every pixel is -1000; replace"),
    "far spacing": (
        "both/case_1.nii.gz",
        lambda p: [change(p.parents[1] / part / p.name, affine=np.diag([2, 2.5, 50.0, 1])) for part in ("images", "labels")],
        "warning",
        r"voxels of 2 x 2.5 x 50 mm are far from the median of 2 x 2.5 x 5 mm; check the header",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", VOLUME_MISTAKES)
def test_each_mistake_of_a_file_is_one_line_with_the_file_and_a_remedy(
    mistake: str, volumes: Path, tmp_path: Path
) -> None:
    name, break_it, severity, words = VOLUME_MISTAKES[mistake]
    break_it(volumes / name)
    found = checked(volumes, tmp_path)
    told = lines(found.errors if severity == "error" else found.warnings)
    matching = [line for line in told if re.search(words, line)]
    assert len(matching) == 1, told
    assert "\n" not in matching[0]
    about_one_file = not matching[0].startswith(("case ", "no test"))
    assert not about_one_file or Path(name).name in matching[0]
    assert bool(found.errors) == (severity == "error"), told


def test_sound_data_have_neither_errors_nor_warnings(volumes: Path, pictures: Path, tmp_path: Path) -> None:
    of_volumes = checked(volumes, tmp_path)
    of_pictures = checked(
        pictures,
        tmp_path,
        preprocessing={"intensity": {"kind": "zscore"}},
        window={"size": [16, 16], "plane": None, "batch_size": 4},
    )
    for found in (of_volumes, of_pictures):
        assert lines(found.errors) == lines(found.warnings) == []
        assert [case.case.id for case in found.cases] == [f"case_{index}" for index in range(4)]


def test_everything_wrong_with_a_tree_is_told_at_once_errors_first_and_sorted(volumes: Path, tmp_path: Path) -> None:
    cut_short(volumes / "images/case_0.nii.gz")
    change(volumes / "labels/case_1.nii.gz", lambda a: a * 7)
    change(volumes / "labels/case_2.nii.gz", lambda a: a[1:])
    add_channel(volumes / "images/case_3.nii.gz")
    result = CliRunner().invoke(app_of("check"), [str(write_config(tmp_path / "c.yaml", volumes))])
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    told = [line for line in result.output.splitlines() if line.startswith("error: ")]
    expected = ("images/case_0.nii.gz", "labels/case_1.nii.gz", "labels/case_2.nii.gz", "case case_3 has 2 channels")
    assert len(told) == 4 and all(name in line for name, line in zip(expected, told, strict=True)), told
    assert result.output.splitlines()[-1] == "tiny: 4 errors: training would refuse these data"


def test_pictures_among_volumes_and_a_plane_for_pictures_are_told_together(
    volumes: Path, pictures: Path, tmp_path: Path
) -> None:
    for folder in ("images", "labels"):
        (volumes / folder / "case_3.nii.gz").unlink()
        shutil.copy(pictures / folder / "case_3.png", volumes / folder / "case_3.png")
    told = lines(checked(volumes, tmp_path).errors)
    assert told == [
        "case case_3 has 3 channels and case case_0 has 1 channel: all cases need the same number",
        "case case_3 is a picture and case case_0 is a volume: train on pictures or on volumes, not on both",
        "window.plane is axial and case case_3 is one of the pictures, not volumes: leave window.plane out",
    ]


def test_a_mask_of_the_field_of_view_is_checked_too(pictures: Path, tmp_path: Path) -> None:
    (pictures / "masks").mkdir()
    for index in range(4):
        Picture.fromarray(np.full((21, 26), 255, np.uint8)).save(pictures / f"masks/case_{index}.png")
    Picture.fromarray(np.zeros((21, 26), np.uint8)).save(pictures / "masks/case_1.png")
    Picture.fromarray(np.full((5, 5), 255, np.uint8)).save(pictures / "masks/case_2.png")
    found = checked(
        pictures,
        tmp_path,
        preprocessing={"intensity": {"kind": "zscore"}},
        window={"size": [16, 16], "plane": None, "batch_size": 4},
    )
    empty, other = lines(found.errors)
    assert "masks/case_1.png: the field of view is empty" in empty, "training refuses it too"
    assert "masks/case_2.png: grid (5, 5) differs from grid (21, 26)" in other and "export the mask" in other


def test_copies_of_an_image_and_a_split_that_divides_them_are_told(volumes: Path, tmp_path: Path) -> None:
    shutil.copy(volumes / "images/case_0.nii.gz", volumes / "images/case_1.nii.gz")
    assert any("case_0 and case_1 are identical" in line for line in lines(checked(volumes, tmp_path).warnings))
    split = {"train": ["case_0"], "validation": ["case_1"], "test": ["case_3"]}
    found = checked(volumes, tmp_path, data={"split": split})
    assert any("their images are identical: put both into one part" in line for line in lines(found.errors))
    assert len(found.cases) == 4, "the files are read all the same"
    assert set(found.parts) == {"all"}


def test_labels_without_an_image_are_told(volumes: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.copy(volumes / "labels/case_0.nii.gz", volumes / "labels/stray.nii.gz")
    assert any("stray" in line for line in lines(checked(volumes, tmp_path).warnings))
    assert "stray" not in capfd.readouterr().err, "told once"


def test_a_label_without_an_image_and_a_missing_label_name_their_files(volumes: Path, tmp_path: Path) -> None:
    (volumes / "labels/case_2.nii.gz").unlink()
    (error,) = lines(checked(volumes, tmp_path).errors)
    assert "case_2" in error and "label" in error


@pytest.mark.parametrize(("kind", "factor"), [("hu_window", 1), ("zscore", 1)])
def test_only_a_fixed_intensity_map_warns_of_a_case_with_other_intensities(
    kind: str, factor: int, volumes: Path, tmp_path: Path
) -> None:
    change(volumes / "images/case_2.nii.gz", lambda a: np.where(a < -400, a + 850, a))
    intensity = {"kind": kind, "low": -1000, "high": 200} if kind == "hu_window" else {"kind": kind}
    warnings = lines(checked(volumes, tmp_path, preprocessing={"intensity": intensity}).warnings)
    assert len(warnings) == (kind == "hu_window")
    assert all("case_2.nii.gz: its 0.5 and 99.5 percentiles" in line for line in warnings)


def test_figures_of_a_part_are_those_of_its_files(volumes: Path, tmp_path: Path) -> None:
    train = figures_of(checked(volumes, tmp_path))["train"]
    labels = [np.asarray(nibabel.load(volumes / f"labels/case_{index}.nii.gz").dataobj) for index in range(2)]
    assert train.labels == {"ball": (pytest.approx(sum(map(np.sum, labels)) / sum(a.size for a in labels)), 2)}
    assert (train.num_cases, train.num_groups, train.sizes) == (2, 2, {"22x18x7": 2})
    assert (train.spacings_mm, train.orientations) == ({"2x2.5x5": 2}, {"RAS": 1, "LPS": 1})
    assert train.channels == {"1 x int16": 2}


def test_the_dry_run_tells_all_that_the_check_tells(volumes: Path, tmp_path: Path) -> None:
    import torch

    cut_short(volumes / "images/case_0.nii.gz")
    change(volumes / "labels/case_1.nii.gz", lambda a: a * 7)
    config = load_config(write_config(tmp_path / "c.yaml", volumes))
    with pytest.raises(UserError) as caught:
        plan_training(config, torch.device("cpu"))
    assert str(caught.value).splitlines() == lines(check_data(config).errors)
    assert len(str(caught.value).splitlines()) == 2


# The command and its page


@pytest.fixture(scope="module")
def written(tiny_volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a check with one unreadable case and one warning."""
    folder = tmp_path_factory.mktemp("check")
    root = Path(shutil.copytree(tiny_volumes, folder / "<volumes> & more"))
    cut_short(root / "images/case_0.nii.gz")
    change(root / "labels/case_1.nii.gz", np.zeros_like)
    config = write_config(folder / "c.yaml", root)
    result = CliRunner().invoke(app_of("check"), [str(config), "-o", str(folder / "out")])
    assert result.exit_code == 2
    return folder / "out"


def test_the_page_needs_no_network_and_shows_each_case_and_problem(written: Path) -> None:
    text = (written / "check.html").read_text("utf-8")
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    assert "http" not in text
    assert "&lt;volumes&gt; &amp; more" in text and "<volumes>" not in text
    assert text.count('<figure class="tile') == 4
    assert text.count('src="data:image/jpeg') == 3, "one image cannot be read"
    assert text.count('src="data:image/png') == 2, "one case has no label"
    assert text.count("truncated") == 2, "in the list, and below its tile"
    assert "labels/case_1.nii.gz: holds no foreground" in text


def test_the_json_holds_the_facts_of_every_case(written: Path) -> None:
    data = json.loads((written / "check.json").read_text("utf-8"))
    assert [case["id"] for case in data["cases"]] == [f"case_{index}" for index in range(4)]
    assert data["cases"][2]["shape"] == [22, 18, 7] and data["cases"][2]["part"] == "validation"
    assert len(data["errors"]) == 1 and data["errors"][0]["case"] == "case_0"
    assert len(data["warnings"]) == 1


def test_what_does_not_fit_into_the_page_is_told_and_cases_with_problems_stay(
    volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from r2seg.data_check import page
    from r2seg.pictures import contact_sheet

    change(volumes / "labels/case_3.nii.gz", np.zeros_like)
    config = load_config(write_config(tmp_path / "c.yaml", volumes))
    found = check_data(config, pictures=True)
    largest = max(case.tile.num_bytes for case in found.cases if case.tile)
    monkeypatch.setattr(contact_sheet, "MAX_BYTES", int(2.5 * largest))
    text = page.render(found)
    assert text.count('<figure class="tile') == 2
    assert "2 cases are left out: all pictures together would exceed" in text
    assert '<figure class="tile warning">' in text


def test_a_check_without_a_folder_writes_nothing(
    volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path / "c.yaml", volumes)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app_of("check"), [str(config)])
    assert (result.exit_code, sorted(tmp_path.rglob("*"))) == (0, before)
    assert result.output.splitlines()[-1] == "tiny: no error: training would accept these data"


def test_of_many_lines_of_a_kind_the_terminal_shows_the_first(volumes: Path, tmp_path: Path) -> None:
    for index in range(4, 20):
        for folder in ("images", "labels"):
            shutil.copy(volumes / folder / "case_0.nii.gz", volumes / folder / f"case_{index}.nii.gz")
        (volumes / f"images/case_{index}.nii.gz").write_bytes(b"")
    config = write_config(tmp_path / "c.yaml", volumes, data={"split": {"validation": ["case_2"], "test": ["case_3"]}})
    text = CliRunner().invoke(app_of("check"), [str(config), "--set", "data.split.train=null"]).output
    assert text.count("the file is empty (0 bytes)") == 12
    assert "error: and 4 more of this kind (files that cannot be used)" in text
