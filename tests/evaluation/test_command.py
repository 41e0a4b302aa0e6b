"""r2seg-evaluate as it is typed: options, exit statuses, one line for each mistake, and runs scored on other data."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from PIL import Image as Picture
from tiny import settings
from typer.testing import CliRunner, Result

from r2seg.cli import app_of

APP = app_of("evaluate")


def run(*words: object) -> Result:
    return CliRunner(env={"COLUMNS": "80"}).invoke(APP, [*map(str, words)])


def assert_mistake(result: Result, *parts: str) -> None:
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    for part in parts:
        assert part in line


def write(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(pixels.astype(np.uint8)).save(path)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Three eyes of two patients with vessels, two observers, a field of view, and predictions of two methods."""
    rng = np.random.default_rng(0)
    for eye in ("01L", "01R", "02L"):
        reference = np.zeros((20, 24), np.uint8)
        reference[5:15, 6:18] = 1
        for name, noise in (("ref/{}_1st", 0), ("second/{}_2nd", 0.02), ("out/{}", 0.05), ("other/{}", 0.2)):
            noisy = reference ^ (rng.random(reference.shape) < noise)
            write(tmp_path / f"{name.format(eye)}.png", noisy)
        write(tmp_path / f"fov/{eye}_mask.png", np.pad(np.ones((18, 22)), 1))
        write(tmp_path / f"pictures/{eye}.jpg", reference * 100)
    return tmp_path


ALL_NAMES = ("--reference-name", "{id}_1st", "--observer-name", "{id}_2nd", "--mask-name", "{id}_mask")


def test_help_groups_the_options_and_none_is_without_a_line() -> None:
    text = run("--help").output
    for heading in ("Which files belong together:", "What is counted:", "Thresholds of probabilities:", "The report:"):
        assert heading in text
    options = re.findall(r"^  (?:-o, )?(--[\w-]+)(.*)$", text, re.M)
    assert len(options) >= 25
    assert not [line for name, line in options if not re.search(r"  \w", line)]


def test_every_option_reaches_the_report(folders: Path) -> None:
    result = run(
        folders / "out", folders / "ref", *ALL_NAMES,
        "--observer", folders / "second", "--masks", folders / "fov", "--against", folders / "other",
        "--group", r"^(\d+)", "--label", "vessel=1+7", "--ignore-label", 9, "--measures", "dice, surfaces",
        "--tolerance-mm", 2, "--missing", "skip", "--undeclared", "background", "--resample",
        "--images", folders / "pictures", "--workers", 1, "--device", "cpu",
        "-o", folders / "report", *(word for name in ("csv", "json", "html", "markdown", "latex") for word in ("--format", name)),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    files = {"cases.csv", "summary.json", "report.html", "summary.md", "summary.tex"}
    assert {path.name for path in (folders / "report").iterdir()} == files
    summary = json.loads((folders / "report/summary.json").read_text())
    asked = {
        "labels": {"vessel": [1, 7]}, "ignore_label": 9, "tolerance_mm": 2.0, "missing": "skip",
        "undeclared": "background", "resample": True, "group": r"^(\d+)", "mask_name": "{id}_mask",
    }  # fmt: skip
    assert {key: summary["settings"][key] for key in asked} == asked
    assert (summary["num_cases"], summary["num_groups"]) == (3, 2)
    assert list(summary["measures"]) == ["dice", "hausdorff", "hd95", "assd", "surface_dice"]
    assert [method["role"] for method in summary["methods"].values()] == ["predictions", "against", "observer"]
    assert summary["methods"]["out"]["labels"]["vessel"]["counts"]["tn"] < 3 * 18 * 22


def test_the_default_report_is_csv_json_and_html_and_no_line_is_wider_than_the_terminal(folders: Path) -> None:
    result = run(folders / "out", folders / "ref", *ALL_NAMES[:2], "-o", folders / "report")
    assert {path.name for path in (folders / "report").iterdir()} == {"cases.csv", "summary.json", "report.html"}
    table = result.output[: result.output.index("written:")].splitlines()
    assert max(map(len, table)) <= 80
    assert "\x1b" not in result.output and "scoring" not in result.output  # no bar where there is no terminal
    measures = [line.split()[0] for line in table if re.match(r"\s+[A-Z]\w+ .*\d\.\d", line)]
    assert measures[:2] == ["Dice", "IoU"]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--label", "vessel"), ["--label vessel", "NAME=VALUE+VALUE"]),
        (("--label", "a=1", "--label", "a=2"), ["a is named twice"]),
        (("--label", "a=1", "--label", "b=1"), ["label b takes the value 1, which is that of label a"]),
        (("--measures", "dise"), ["'dise' is not a measure"]),
        (("--missing", "maybe"), ["missing is 'maybe': give one of miss, skip"]),
        (("--format", "pdf", "-o", "report"), ["'pdf' is not a report format; give csv, json, html"]),
        (("--format", "csv"), ["--format goes with -o REPORT"]),
        (("--mask-name", "{id}_m"), ["--mask-name goes with --masks DIR"]),
        (("--observer-name", "{id}_m"), ["--observer-name goes with --observer DIR"]),
        (("--split", "test"), ["--split goes with a run or a config"]),
        (("--threshold", "0.5", "--threshold-from", "x"), ["--threshold cannot be combined with --threshold-from"]),
        (("--threshold", "1.5"), ["threshold is 1.5: give a probability above 0"]),
        (("--threshold-from", "nowhere"), ["nowhere", "there are no thresholds"]),
        (("--device", "gpu"), ["valid are auto, cpu, cuda"]),
        (("--group", "["), ["--group '['", "regular expression"]),
    ],
)
def test_a_wrong_option_is_one_line(words: tuple[str, ...], parts: list[str], folders: Path) -> None:
    before = sorted(folders.rglob("*"))
    assert_mistake(run(folders / "out", folders / "ref", *ALL_NAMES[:2], *words), *parts)
    assert sorted(folders.rglob("*")) == before


def shuffled(folders: Path) -> tuple[Path, list[str]]:
    for index, path in enumerate(sorted((folders / "out").iterdir())):
        path.rename(path.with_name(f"scan{index}.png"))
    return folders / "out", ["scan0, scan1 and 1 more", "01L, 01R and 1 more", "--reference-name"]


def other_grid(folders: Path) -> tuple[Path, list[str]]:
    write(folders / "out/01R.png", np.ones((20, 20)))
    return folders / "out", ["ref/01R_1st.png", "out/01R.png", "(20, 24)", "(20, 20)"]


def float_masks(folders: Path) -> tuple[Path, list[str]]:
    for path in (folders / "out").iterdir():
        path.unlink()
        np.save(path.with_suffix(".npy"), np.full((20, 24), 0.25, np.float32))
    return folders / "out", ["out/01L.npy", "0.25"]


def empty(folders: Path) -> tuple[Path, list[str]]:
    (folders / "nothing").mkdir()
    return folders / "nothing", ["nothing holds no prediction", ".nii.gz"]


def absent(folders: Path) -> tuple[Path, list[str]]:
    return folders / "outt", ["outt: there is no such folder of predictions"]


def undeclared_values(folders: Path) -> tuple[Path, list[str]]:
    write(folders / "out/02L.png", np.full((20, 24), 7))
    return folders / "out", ["out/02L.png", "7 (480 pixels)", "declared"]


@pytest.mark.parametrize("spoil", [shuffled, other_grid, float_masks, empty, absent, undeclared_values])
def test_wrong_files_are_one_line_and_nothing_is_written(spoil, folders: Path) -> None:
    predictions, parts = spoil(folders)
    before = sorted(folders.rglob("*"))
    result = run(predictions, folders / "ref", *ALL_NAMES[:2], "-o", folders / "report")
    assert_mistake(result, *parts)
    assert sorted(folders.rglob("*")) == before


def test_one_folder_given_twice_is_refused(folders: Path) -> None:
    out = folders / "out"
    assert_mistake(run(out, out), "01L.png is given as prediction and as reference")
    twice = run(out, folders / "ref", *ALL_NAMES[:2], "--against", folders / "ref/../out")
    assert_mistake(twice, "out is given twice: a method always agrees with itself")
    assert_mistake(run(folders / "no", folders / "no"), "no such folder")


def test_a_report_that_cannot_be_written_fails_before_anything_is_scored(folders: Path) -> None:
    (folders / "file").write_text("")
    result = run(folders / "out", folders / "ref", *ALL_NAMES[:2], "-o", folders / "file")
    assert_mistake(result, "file is a file: name a folder for the report")
    result = run(folders / "out", folders / "ref", *ALL_NAMES[:2], "-o", folders / "file" / "below")
    assert_mistake(result, "file is a file: name a folder for the report")
    assert "Dice" not in result.output


# --- a run in place of predictions


@pytest.fixture
def other_config(tiny_volumes: Path, tmp_path: Path) -> Path:
    """The tiny volumes as another hospital has them: label 5, all but one case a test case."""
    root = tmp_path / "other"
    for path in sorted(tiny_volumes.rglob("*.nii.gz")):
        image = nib.load(path)
        (root / path.parent.name).mkdir(parents=True, exist_ok=True)
        voxels = np.asanyarray(image.dataobj) * (5 if path.parent.name == "labels" else 1)
        nib.save(nib.Nifti1Image(voxels, image.affine), root / path.relative_to(tiny_volumes))
    config = settings(root)
    config["data"] |= {"labels": {"ball": 5}, "split": {"validation": ["case_3"], "test": ["case_0", "case_1"]}}
    config["preprocessing"] = {"intensity": {"kind": "zscore"}}  # the run's own holds, not this
    path = tmp_path / "other.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.usefixtures("no_plots")
def test_a_run_is_scored_on_another_data_set_with_its_own_preprocessing(
    tiny_run: Path, other_config: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report"
    result = run(tiny_run, other_config, "-o", report, "--measures", "dice,probabilities", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert f"segmenting the test cases of {other_config} (2) with {tiny_run}" in result.output
    written = sorted(path.name for path in (report / "predictions").glob("*.nii.gz"))
    assert written == ["case_0.nii.gz", "case_1.nii.gz"]
    assert set(np.unique(np.asanyarray(nib.load(report / "predictions/case_0.nii.gz").dataobj))) == {0, 5}
    summary = json.loads((report / "summary.json").read_text())
    made_by = summary["settings"]["segmented_by"]
    assert made_by["run"] == str(tiny_run)
    assert made_by["statistics_fitted_to_these_cases"] == "none"
    assert made_by["preprocessing"]["intensity"] == {"kind": "hu_window", "low": -1000.0, "high": 200.0}
    assert made_by["cases_of_its_train"] == []  # equal pictures, but other files
    assert "no statistic of these cases was fitted" in " ".join(result.output.split())
    (found,) = summary["methods"].values()
    assert found["labels"]["ball"]["measures"]["dice"]["mean"] > 0.8

    # The label maps are those that inference makes: scored as a folder they give the same numbers.
    again = run(
        report / "predictions", other_config, "-o", tmp_path / "again", "--measures", "dice", "--format", "json"
    )
    assert again.exit_code == 0, again.output
    (same,) = json.loads((tmp_path / "again/summary.json").read_text())["methods"].values()
    assert same["labels"]["ball"]["counts"] == found["labels"]["ball"]["counts"]


@pytest.mark.usefixtures("no_plots")
def test_a_failing_case_counts_as_missing_and_gives_exit_1(tiny_run: Path, other_config: Path, tmp_path: Path) -> None:
    images = yaml.safe_load(other_config.read_text())["data"]["root"] + "/images"
    stale = tmp_path / "report/predictions/case_1.nii.gz"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(Path(images, "../labels/case_1.nii.gz").read_bytes())  # a perfect one, of an earlier day
    nib.save(
        nib.Nifti1Image(np.full((22, 18, 7), np.nan, np.float32), nib.load(stale).affine), f"{images}/case_1.nii.gz"
    )
    result = run(tiny_run, other_config, "-o", tmp_path / "report", "--split", "test")
    assert result.exit_code == 1, result.output
    assert "FAILED" in result.output and "case_1.nii.gz" in result.output
    assert "1 missing, scored as if nothing was predicted: case_1" in result.output
    assert not stale.exists()


def test_without_a_report_nothing_stays(tiny_run: Path, other_config: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    result = run(tiny_run, other_config, "--split", "validation")
    assert result.exit_code == 0, result.output
    assert "case_3.nii.gz" in result.output
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.usefixtures("no_plots")
def test_scoring_a_run_on_cases_it_was_trained_on_is_called_a_leak(tiny_run: Path) -> None:
    result = run(tiny_run, tiny_run, "--split", "all")
    text = " ".join(result.output.split())
    assert "LEAK: 2 of these cases trained it, so this is not a test of it: case_0, case_1" in text
    assert "LEAK: 1 of these cases chose its checkpoint and thresholds: case_2" in text


def test_a_run_that_does_not_fit_the_references_is_refused(
    tiny_run: Path, other_config: Path, tiny_volumes: Path
) -> None:
    assert_mistake(run(tiny_run, tiny_volumes / "labels"), "a run, goes with a config or run", "labels")
    assert_mistake(run(tiny_run, other_config, "--label", "ball=1"), "--label goes with a folder of references")
    assert_mistake(run(tiny_run, other_config, "--probabilities", "x"), "--probabilities goes with a folder")
    assert_mistake(run(tiny_run, other_config, "--split", "best"), "--split best: valid are test, validation")
    text = other_config.read_text().replace("ball:", "globe:")
    other_config.write_text(text)
    assert_mistake(run(tiny_run, other_config), "predicts ball and the labels of", "are globe", "the same names")


# --- thresholds stored with a run


def outputs(report: Path) -> list[str]:
    return [
        (report / name).read_text()
        for name in ("cases.csv", "summary.json", "report.html", "summary.md", "summary.tex")
    ]


EVERY = [word for name in ("csv", "json", "html", "markdown", "latex") for word in ("--format", name)]


@pytest.mark.usefixtures("no_plots")
def test_a_runs_own_thresholds_cut_the_probabilities_of_other_cases(
    tiny_run: Path, other_config: Path, tmp_path: Path
) -> None:
    words = ("--threshold-from", tiny_run, "--measures", "dice", "-o", tmp_path / "report", *EVERY)
    result = run(tiny_run, other_config, *words)
    assert result.exit_code == 0, result.output
    stored = json.loads((tiny_run / "thresholds.json").read_text())
    settings_ = json.loads((tmp_path / "report/summary.json").read_text())["settings"]
    assert settings_["thresholds"] == stored["values"]
    assert settings_["thresholds_from"] == str(tiny_run)
    assert f"thresholds: ball {stored['values']['ball']:.4g}" in " ".join(result.output.split())
    assert not [text for text in outputs(tmp_path / "report") if "oracle threshold)" in text or "ORACLE" in text]


@pytest.mark.usefixtures("no_plots")
def test_thresholds_on_the_cases_they_were_chosen_on_are_an_oracle_in_every_output(
    tiny_run: Path, tmp_path: Path
) -> None:
    words = ("--split", "validation", "--threshold-from", tiny_run, "-o", tmp_path / "report", *EVERY)
    result = run(tiny_run, tiny_run, *words)
    assert result.exit_code == 0, result.output
    assert f"{tiny_run.name} (oracle threshold)" in result.output
    assert "ORACLE: the thresholds were chosen on 1 of these very cases" in " ".join(result.output.split())
    assert all("tiny (oracle threshold)" in text for text in outputs(tmp_path / "report"))


@pytest.mark.usefixtures("no_plots")
def test_empty_references_are_not_taken_for_the_cases_a_threshold_was_chosen_on(tmp_path: Path) -> None:
    """Two empty masks are equal byte for byte, whichever cases they are of."""
    full = np.pad(np.ones((4, 4)), 4)
    for part in ("validation", "test"):
        for name, reference in (("empty", full * 0), ("full", full if part == "test" else full.T.copy())):
            reference = np.roll(reference, part == "test", axis=0)
            write(tmp_path / part / f"ref/{name}.png", reference)
            write(tmp_path / part / f"out/{name}.png", reference)
            soft = (np.stack([1 - reference, reference], axis=-1) * 65535).astype(np.uint16)
            (tmp_path / part / "out/probabilities").mkdir(exist_ok=True)
            np.save(tmp_path / part / f"out/probabilities/{name}.npy", soft)
    common = ("--measures", "dice,probabilities", "-o", tmp_path / "report")
    assert run(tmp_path / "validation/out", tmp_path / "validation/ref", *common).exit_code == 0
    result = run(tmp_path / "test/out", tmp_path / "test/ref", "--threshold-from", tmp_path / "report")
    assert result.exit_code == 0, result.output
    assert "ORACLE" not in result.output


def test_labels_in_another_order_and_with_other_values_are_the_same_labels(
    tiny_run: Path, tiny_volumes: Path, tmp_path: Path
) -> None:
    """An untrained network of two labels, written once with its own values and once with those of the other config."""
    from r2seg.case_sets import cases_of
    from r2seg.config import build_configured_network, load_config
    from r2seg.evaluation.run_predictions import RunPredictions
    from r2seg.run import BEST, Run

    config = settings(tiny_volumes)
    config["data"] |= {"labels": {"a": 1, "b": 2}}
    paths = [tmp_path / "own.yaml", tmp_path / "other.yaml"]
    paths[0].write_text(yaml.safe_dump(config))
    paths[1].write_text(yaml.safe_dump({**config, "data": {**config["data"], "labels": {"b": [7, 1], "a": 9}}}))
    own = load_config(paths[0])
    run_ = Run.create(tmp_path / "run", own, Run.open(tiny_run).splits, Run.open(tiny_run).manifest)
    run_.save_checkpoint(BEST, {"network": build_configured_network(own, 1).state_dict()})
    maps = []
    for path in paths:
        planned = RunPredictions.plan(run_.path, cases_of(path, "test"), tmp_path / path.stem)
        planned.segment("cpu")
        maps.append(np.asanyarray(nib.load(tmp_path / path.stem / "case_3.nii.gz").dataobj))
    assert list(planned.labels) == ["a", "b"]  # the order of the network's channels
    assert set(np.unique(maps[1])) - {0} <= {7, 9} and set(np.unique(maps[1])) & {7, 9}
    np.testing.assert_array_equal(np.array([0, 9, 7])[maps[0]], maps[1])
