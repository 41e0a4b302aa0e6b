"""r2seg-evaluate's work on files: what pairs with what, what is counted, and what is refused in one line."""

import csv
import html
import importlib
import io
import json
import math
import pickle
import re

import nibabel
import numpy as np
import pytest
from imports import imported_anew
from PIL import Image as Picture
from scipy import stats

from r2seg.data.cases import Case
from r2seg.errors import UserError
from r2seg.evaluation.evaluate import evaluate
from r2seg.evaluation.options import EvaluationOptions
from r2seg.evaluation.summary import summarize
from r2seg.evaluation.tables import cases_csv, markdown, terminal
from r2seg.evaluation.wording import notes
from r2seg.evaluation.write import write_report

AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def save(path, array, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.asarray(array)
    if path.suffix == ".png":
        Picture.fromarray(array.astype(np.uint8)).save(path)
    else:
        nibabel.save(nibabel.Nifti1Image(array, affine), path)


def volume(*boxes, shape=(6, 5, 4), dtype=np.uint8):
    """Zeros with boxes (value, slices of the first axis)."""
    array = np.zeros(shape, dtype)
    for value, start, stop in boxes:
        array[start:stop] = value
    return array


@pytest.fixture
def folders(tmp_path):
    """Two cases of two labels; 20 voxels a slice of the first axis."""
    save(tmp_path / "ref/a.nii.gz", volume((1, 0, 2), (2, 3, 5)))
    save(tmp_path / "out/a.nii.gz", volume((1, 0, 1), (2, 2, 5)))
    save(tmp_path / "ref/sub/b.nii.gz", volume((1, 0, 2)))
    save(tmp_path / "out/sub/b.nii.gz", volume((1, 0, 2)))
    return tmp_path


def every_output(report, folder):
    """Text of the terminal, and of every file that tells of the report as a whole; lines are not broken."""
    from rich.console import Console

    console = Console(width=1000, record=True, file=io.StringIO())
    console.print(terminal(summarize(report)))
    write_report(report, folder, ["html", "markdown", "latex"])
    texts = [html.unescape((folder / name).read_text("utf-8")) for name in ("report.html", "summary.md", "summary.tex")]
    return [console.export_text(), *texts]


def scores(report, measure, method=None):
    return {
        (row.case, row.label): row.scores[measure] for row in report.rows if row.method == (method or report.main.name)
    }


def test_labels_are_found_in_the_references_and_scored_by_case(folders):
    report = evaluate(folders / "out", folders / "ref")
    assert report.labels == {"label_1": 1, "label_2": 2}
    dice = scores(report, "dice")
    assert dice[("a", "label_1")] == 2 * 20 / (20 + 40)
    assert dice[("a", "label_2")] == 2 * 40 / (60 + 40)
    assert dice[("sub/b", "label_1")] == 1
    assert math.isnan(dice[("sub/b", "label_2")])
    rows = {(row.case, row.label): row for row in report.rows}
    assert rows[("a", "label_2")].counts == (40, 20, 0, 60)
    assert rows[("sub/b", "label_2")].status == "both empty"


def test_summary_counts_what_each_number_is_over(folders):
    found = summarize(evaluate(folders / "out", folders / "ref"))["methods"]["out"]["labels"]
    first, second = found["label_1"]["measures"]["dice"], found["label_2"]["measures"]["dice"]
    assert (first["mean"], first["num_cases"], first["num_nan"]) == (pytest.approx((2 / 3 + 1) / 2), 2, 0)
    assert first["pooled"] == 2 * 60 / (60 + 80)
    assert (second["mean"], second["num_cases"], second["num_nan"]) == (0.8, 1, 1)
    assert found["label_2"]["cases"]["both empty"] == 1
    assert found["label_1"]["counts"] == {"tp": 60, "fp": 0, "fn": 20, "tn": 160}


def test_iou_of_every_row_is_d_over_2_minus_d(folders):
    report = evaluate(folders / "out", folders / "ref")
    for row in report.rows:
        d, j = row.scores["dice"], row.scores["iou"]
        assert (math.isnan(d) and math.isnan(j)) or j == pytest.approx(d / (2 - d), abs=1e-12)


def test_volumes_are_in_millilitres_of_the_files_voxels(folders):
    report = evaluate(folders / "out", folders / "ref", EvaluationOptions(measures=["volumes"]))
    assert scores(report, "volume_ml")[("a", "label_2")] == pytest.approx(60 * 6 / 1000)
    assert scores(report, "volume_difference_ml")[("a", "label_2")] == pytest.approx(20 * 6 / 1000)


def test_declared_labels_can_join_values(folders):
    report = evaluate(folders / "out", folders / "ref", EvaluationOptions(labels={"any": [1, 2]}))
    assert scores(report, "dice")[("a", "any")] == 2 * 60 / (80 + 80)


def test_ignored_pixels_and_pixels_outside_the_mask_are_not_counted(tmp_path):
    save(tmp_path / "ref/a.nii.gz", volume((1, 0, 2), (9, 5, 6)))
    save(tmp_path / "out/a.nii.gz", volume((1, 0, 2), (1, 4, 6)))
    save(tmp_path / "fov/a.nii.gz", volume((1, 0, 4), (1, 5, 6)))
    report = evaluate(
        tmp_path / "out", tmp_path / "ref", EvaluationOptions(labels={"x": 1}, ignore_label=9, measures=["dice"])
    )
    assert report.rows[0].counts == (40, 20, 0, 40)
    report = evaluate(
        tmp_path / "out", tmp_path / "ref", EvaluationOptions(labels={"x": 1}, ignore_label=9, masks=tmp_path / "fov")
    )
    assert report.rows[0].counts == (40, 0, 0, 40)


def test_surfaces_do_not_see_what_is_not_counted(tmp_path):
    save(tmp_path / "ref/a.nii.gz", volume((1, 0, 2)))
    save(tmp_path / "out/a.nii.gz", volume((1, 0, 2), (1, 4, 6)))
    save(tmp_path / "fov/a.nii.gz", volume((1, 0, 4)))
    report = evaluate(
        tmp_path / "out",
        tmp_path / "ref",
        EvaluationOptions(masks=tmp_path / "fov", measures=["hausdorff", "lesion_f1"]),
    )
    assert report.rows[0].scores == {"hausdorff": 0, "lesion_f1": 1}


def test_missing_predictions_are_listed_and_count_as_total_misses(folders):
    (folders / "out/sub/b.nii.gz").unlink()
    report = evaluate(folders / "out", folders / "ref")
    assert report.main.missing == ("sub/b",)
    assert scores(report, "dice")[("sub/b", "label_1")] == 0
    assert summarize(report)["methods"]["out"]["labels"]["label_1"]["cases"]["missing"] == 1
    assert any("1 missing, scored as if nothing was predicted: sub/b" in note for note in notes(summarize(report)))
    skipped = evaluate(folders / "out", folders / "ref", EvaluationOptions(missing="skip"))
    assert {row.case for row in skipped.rows} == {"a"}
    assert skipped.main.missing == ("sub/b",)


def test_predictions_without_a_reference_are_listed(folders):
    save(folders / "out/c.nii.gz", volume())
    report = evaluate(folders / "out", folders / "ref")
    assert [path.name for path in report.main.extra] == ["c.nii.gz"]
    assert {row.case for row in report.rows} == {"a", "sub/b"}


def test_probability_maps_that_inference_writes_are_not_taken_for_label_maps(folders):
    save(folders / "out/probabilities/a.nii.gz", volume())
    assert evaluate(folders / "out", folders / "ref").main.extra == ()


def test_names_follow_a_pattern_and_other_files_are_passed_over(tmp_path):
    flat = np.zeros((4, 4))
    flat[:2] = 255
    for name in ("01L.png", "01L_1stHO.png", "01L_2ndHO.png"):
        save(tmp_path / "all" / name, flat)
    save(tmp_path / "out/01L.png", flat // 255)
    report = evaluate(tmp_path / "out", tmp_path / "all", EvaluationOptions(reference_name="{id}_1stHO"))
    assert [(row.case, row.label, row.scores["dice"]) for row in report.rows] == [("01L", "foreground", 1)]


def test_cases_of_a_config_bring_masks_and_patients(folders):
    save(folders / "fov.nii.gz", volume((1, 0, 1)))
    cases = [
        Case("x/a", (folders / "images/a.nii.gz",), (folders / "ref/a.nii.gz",), folders / "fov.nii.gz", group="p1"),
        Case("x/b", (folders / "images/sub/b.nii.gz",), (folders / "ref/sub/b.nii.gz",), group="p2"),
    ]
    report = evaluate(folders / "out", cases, EvaluationOptions(labels={"one": (1,), "two": (2,)}))
    rows = {(row.case, row.label): row for row in report.rows}
    assert rows[("x/a", "one")].counts == (20, 0, 0, 0)
    assert rows[("x/a", "one")].group == "p1"
    assert rows[("x/b", "one")].counts == (40, 0, 0, 80)


def test_one_file_is_scored_against_one_file_whatever_their_names(folders):
    report = evaluate(folders / "out/a.nii.gz", folders / "ref/a.nii.gz")
    assert scores(report, "dice")[("a", "label_2")] == 0.8


def test_a_resampled_prediction_equals_the_one_on_the_references_grid(tmp_path):
    save(tmp_path / "ref/a.nii.gz", volume((1, 1, 3)))
    flipped = np.diag([-1.0, 2.0, 3.0, 1.0])
    flipped[0, 3] = 5  # the same voxels in reverse order along the first axis
    save(tmp_path / "out/a.nii.gz", volume((1, 1, 3))[::-1], flipped)
    with pytest.raises(UserError, match=r"out/a\.nii\.gz: grid differs from that of .*ref/a\.nii\.gz.*--resample"):
        evaluate(tmp_path / "out", tmp_path / "ref")
    report = evaluate(tmp_path / "out", tmp_path / "ref", EvaluationOptions(resample=True))
    assert report.rows[0].counts == (40, 0, 0, 80)


def test_undeclared_values_are_an_error_or_counted_as_background(folders):
    with pytest.raises(UserError, match=r"a\.nii\.gz: holds undeclared label values 2 \(40 pixels\)"):
        evaluate(folders / "out", folders / "ref", EvaluationOptions(labels={"one": 1}))
    report = evaluate(folders / "out", folders / "ref", EvaluationOptions(labels={"one": 1}, undeclared="background"))
    assert scores(report, "dice")[("a", "one")] == 2 * 20 / (20 + 40)
    assert [row.undeclared for row in report.rows] == [60 + 40, 0]


def test_another_method_is_compared_on_the_same_cases(folders):
    save(folders / "rival/a.nii.gz", volume((1, 0, 2), (2, 3, 5)))
    save(folders / "rival/sub/b.nii.gz", volume((1, 1, 2)))
    report = evaluate(
        folders / "out", folders / "ref", EvaluationOptions(against=[folders / "rival"], measures=["dice"])
    )
    assert [(method.name, method.role) for method in report.methods] == [("out", "predictions"), ("rival", "against")]
    (comparison,) = summarize(report)["comparisons"]
    found = comparison["labels"]["label_1"]["dice"]
    assert (comparison["first"], comparison["second"]) == ("out", "rival")
    assert found["mean_difference"] == pytest.approx(((2 / 3 - 1) + (1 - 2 / 3)) / 2)
    assert {case["case"]: case["difference"] for case in found["largest"]} == pytest.approx(
        {"a": -1 / 3, "sub/b": 1 / 3}
    )
    assert comparison["labels"]["label_2"]["dice"]["num_cases"] == 1  # the other is NaN on both sides


def test_a_second_observer_is_a_method_of_its_own(folders):
    save(folders / "second/a_2ndHO.nii.gz", volume((1, 0, 1)))
    report = evaluate(
        folders / "out",
        folders / "ref",
        EvaluationOptions(observer=folders / "second", observer_name="{id}_2ndHO", measures=["dice"]),
    )
    assert scores(report, "dice", "observer") == {("a", "label_1"): 2 / 3, ("a", "label_2"): 0}
    assert "observer: 1 missing, left out: sub/b" in notes(summarize(report))
    assert summarize(report)["comparisons"] == []
    assert "observer, mean" in markdown(summarize(report))


def test_observers_that_the_cases_know_are_scored_like_those_of_a_folder(folders):
    second, third = folders / "second/a_2ndHO.nii.gz", folders / "third/a.nii.gz"
    save(second, volume((1, 0, 1)))
    save(third, volume((0, 0, 1)))
    cases = [
        Case("a", (), (folders / "ref/a.nii.gz",), observers=(second, third)),
        Case("sub/b", (), (folders / "ref/sub/b.nii.gz",)),
    ]
    report = evaluate(folders / "out", cases, EvaluationOptions(measures=["dice"]))
    assert [(method.name, method.role) for method in report.methods[1:]] == [
        ("observer 1", "observer"),
        ("observer 2", "observer"),
    ]
    assert scores(report, "dice", "observer 1") == {("a", "label_1"): 2 / 3, ("a", "label_2"): 0}
    assert report.methods[2].missing == ("sub/b",)
    given = EvaluationOptions(measures=["dice"], observer=folders / "second", observer_name="{id}_2ndHO")
    report = evaluate(folders / "out", cases, given)
    assert [method.name for method in report.methods[1:]] == ["observer"]


def test_methods_of_one_folder_name_are_distinguished_by_their_parents(folders):
    for name in ("a", "sub/b"):
        save(folders / f"other/out/{name}.nii.gz", volume())
    report = evaluate(folders / "out", folders / "ref", EvaluationOptions(against=[folders / "other/out"]))
    assert [method.name for method in report.methods] == [f"{folders.name}/out", "other/out"]


def test_predictions_may_lie_inside_the_references_folder(folders):
    (folders / "out").rename(folders / "ref/out")
    assert {row.case for row in evaluate(folders / "ref/out", folders / "ref").rows} == {"a", "sub/b"}


@pytest.mark.parametrize("measures", [["counts", "volumes"], ["counts", "assd"]])
def test_labels_that_were_found_score_as_if_they_were_declared(folders, measures):
    found = evaluate(folders / "out", folders / "ref", EvaluationOptions(measures=measures))
    declared = evaluate(
        folders / "out", folders / "ref", EvaluationOptions(measures=measures, labels={"label_1": 1, "label_2": 2})
    )
    assert cases_csv(found) == cases_csv(declared)


def test_a_predicted_value_that_no_reference_holds_is_refused(folders):
    save(folders / "out/a.nii.gz", volume((7, 0, 1)))
    refused(r"out/a\.nii\.gz: holds undeclared label values 7 \(20 pixels\)", folders / "out", folders / "ref")


def test_scores_do_not_depend_on_the_number_of_workers(folders):
    one, three = (
        cases_csv(evaluate(folders / "out", folders / "ref", EvaluationOptions(workers=workers))) for workers in (1, 3)
    )
    assert one == three


def test_report_files_hold_the_same_numbers(folders, tmp_path):
    report = evaluate(folders / "out", folders / "ref")
    write_report(report, tmp_path / "report", ["csv", "json", "markdown", "latex"])
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        "cases.csv",
        "summary.json",
        "summary.md",
        "summary.tex",
    }
    rows = list(csv.DictReader(io.StringIO((tmp_path / "report/cases.csv").read_text())))
    assert [(row["case"], row["label"], row["tp"], row["fp"], row["fn"], row["tn"]) for row in rows][1] == (
        "a", "label_2", "40", "20", "0", "60"
    )  # fmt: skip
    assert (rows[1]["dice"], rows[3]["dice"]) == ("0.8", "")
    summary = json.loads((tmp_path / "report/summary.json").read_text())
    assert summary["schema_version"] == 1
    assert summary["settings"]["labels"] == {"label_1": 1, "label_2": 2}
    assert {"rules", "versions", "measures"} <= set(summary)
    assert r"label\_2" in (tmp_path / "report/summary.tex").read_text()
    assert "| out, mean | label_2 | 2 | 2 | 0.8000 (n=1; 1 NaN) |" in (tmp_path / "report/summary.md").read_text()


def test_the_terminal_table_shows_means_cases_and_what_is_left_out(folders):
    from rich.console import Console

    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal(summarize(evaluate(folders / "out", folders / "ref"))))
    text = console.export_text()
    (row,) = [line.split() for line in text.splitlines() if "Dice" in line][:1]
    assert row == ["Dice", "0.8333", "0.8333", "0.8571", "2"]  # two groups have no interval
    assert {"difference", "[mL]", "Sensitivity", "accuracy"} <= set(text.split())  # no word is broken
    assert "1 (1 NaN)" in text
    assert "labels taken from the values of the references: label_1=1, label_2=2" in text
    assert "label_2: 1 case empty in both" in text


def test_many_labels_show_dice_and_iou_on_the_terminal_and_say_what_else_there_is(tmp_path):
    from rich.console import Console

    for side in ("ref", "out"):
        save(tmp_path / side / "a.nii.gz", volume(*((index, index - 1, index) for index in range(1, 7))))
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal(summarize(evaluate(tmp_path / "out", tmp_path / "ref"))))
    text = console.export_text()
    assert (text.count("  Dice "), text.count("  IoU "), text.count("  Sensitivity ")) == (6, 6, 0)
    assert "also scored, and written with -o: Sensitivity, Specificity" in text


# --- refused, in one line


def refused(text, *args, **options):
    with pytest.raises(UserError, match=text) as caught:
        evaluate(*args, EvaluationOptions(**options))
    assert "\n" not in str(caught.value)


def test_names_that_do_not_pair_show_two_of_each_side(folders):
    for name in ("x", "y", "z"):
        save(folders / f"other/{name}.nii.gz", volume())
    refused(
        r"holds x, y and 1 more, the references are a, sub/b; .*--reference-name", folders / "other", folders / "ref"
    )


def test_grids_of_other_shapes_name_both_files(folders):
    save(folders / "out/a.nii.gz", volume(shape=(6, 5, 3)))
    refused(
        r"out/a\.nii\.gz: grid \(6, 5, 3\) differs from grid \(6, 5, 4\) of .*ref/a\.nii\.gz",
        folders / "out",
        folders / "ref",
    )


def test_float_masks_are_refused_with_a_value(folders):
    save(folders / "out/a.nii.gz", volume(dtype=np.float32) + 0.25)
    refused(r"a\.nii\.gz: label values are not integers, for example 0\.25", folders / "out", folders / "ref")


def test_empty_and_absent_folders_are_refused(folders):
    (folders / "empty").mkdir()
    refused(r"empty holds no prediction", folders / "empty", folders / "ref")
    refused(r"empty holds no reference", folders / "out", folders / "empty")
    refused(r"nowhere: there is no such folder of references", folders / "out", folders / "nowhere")


def test_one_folder_given_twice_is_refused(folders):
    refused(r"is given as prediction and as reference", folders / "ref", folders / "ref")
    refused(r"out is given twice", folders / "out", folders / "ref", against=[folders / "out"])


def test_two_files_of_one_case_are_refused(folders):
    save(folders / "out/a.nii", volume())
    refused(r"a\.nii and .*a\.nii\.gz are both prediction of 'a'", folders / "out", folders / "ref")


def test_wrong_options_say_what_is_valid(folders):
    out, ref = folders / "out", folders / "ref"
    refused(r"'dise' is not a measure; families: all, counts", out, ref, measures=["dise"])
    refused(r"missing is 'no': give one of miss, skip", out, ref, missing="no")
    refused(r"reference name 'x_': write \{id\} once", out, ref, reference_name="x_")
    refused(r"label b takes the value 1, which is that of label a", out, ref, labels={"a": 1, "b": 1})
    refused(r"--group 'z\(\.\)' does not match the case 'a'", out, ref, group="z(.)")
    refused(
        r"has no field of view for a, sub/b", out, ref, masks=save(folders / "m/q.nii.gz", volume()) or folders / "m"
    )


def test_a_report_survives_pickling(folders):
    """Data only: nothing in it knows who scored or who renders."""
    save(folders / "rival/a.nii.gz", volume((1, 0, 2), (2, 3, 5)))
    options = EvaluationOptions(against=[folders / "rival"], measures=["counts", "surfaces"])
    report = evaluate(folders / "out", folders / "ref", options)
    again = pickle.loads(pickle.dumps(report))
    assert again.options == report.options
    assert (again.methods, again.targets, again.labels) == (report.methods, report.targets, report.labels)
    assert summarize(again) == summarize(report)
    assert cases_csv(again) == cases_csv(report)
    for ours, theirs in zip(again.rows, report.rows, strict=True):
        assert ours.evidence.keys() == theirs.evidence.keys() == {"counts", "surfaces"}
        for family in ours.evidence:
            np.testing.assert_array_equal(ours.evidence[family], theirs.evidence[family])


def test_nothing_is_written_when_a_format_is_unknown(folders, tmp_path):
    report = evaluate(folders / "out", folders / "ref")
    with pytest.raises(UserError, match="'pdf' is not a report format"):
        write_report(report, tmp_path / "report", ["csv", "pdf"])
    assert not (tmp_path / "report").exists()


def test_evaluation_is_imported_without_monai():
    # The last two bring scipy with them.
    with imported_anew(without=("monai", "matplotlib", "scipy", "skimage", "sklearn")):
        anew = importlib.import_module("r2seg.evaluation.evaluate")
    assert anew.evaluate is not evaluate


@pytest.mark.gpu
def test_the_gpu_counts_as_the_cpu_does(folders):
    first, second = (
        evaluate(
            folders / "out",
            folders / "ref",
            EvaluationOptions(device=device, measures=["counts", "surfaces", "components", "centerlines"]),
        )
        for device in ("cpu", "cuda")
    )
    assert cases_csv(first) == cases_csv(second)


# --- masks that are not written as the labels are declared


def disc(shape=(96, 128)):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return (np.hypot(rows - 50, columns - 60) < 30).astype(np.uint8)


def save_jpeg(path, mask):
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(mask * 255).save(path, quality=60)


@pytest.mark.parametrize("labels", [None, {"x": 1}, {"x": 255}])
def test_0_255_and_jpeg_masks_score_the_same_whatever_is_done_to_undeclared_values(tmp_path, labels):
    reference = disc()
    save(tmp_path / "ref/a.png", reference * 255)
    save_jpeg(tmp_path / "ref/b.jpg", reference)
    save(tmp_path / "out/a.png", np.roll(reference, 7, 0) * 255)
    save_jpeg(tmp_path / "out/b.jpg", np.roll(reference, 7, 0))
    cut = [np.asarray(Picture.open(tmp_path / side / "b.jpg")) >= 128 for side in ("ref", "out")]
    masks = {"a": (reference > 0, np.roll(reference, 7, 0) > 0), "b": tuple(cut)}
    expected = {case: 2 * (r & p).sum() / (r.sum() + p.sum()) for case, (r, p) in masks.items()}
    for undeclared in ("error", "background"):
        report = evaluate(tmp_path / "out", tmp_path / "ref", EvaluationOptions(labels=labels, undeclared=undeclared))
        assert {case: dice for (case, _), dice in scores(report, "dice").items()} == pytest.approx(expected)


def test_undeclared_values_that_are_the_whole_foreground_are_refused(tmp_path):
    save(tmp_path / "ref/a.png", disc())
    save(tmp_path / "out/a.png", disc() * 255)
    refused(
        r"out/a\.png: all its foreground is of undeclared label values: 255",
        tmp_path / "out", tmp_path / "ref", labels={"x": 1, "y": 2}, undeclared="background",
    )  # fmt: skip


@pytest.mark.usefixtures("no_plots")
def test_a_smeared_mask_that_was_cut_is_named_in_every_output(tmp_path):
    save(tmp_path / "ref/sharp.png", disc())
    save_jpeg(tmp_path / "ref/smeared.jpg", disc())
    save(tmp_path / "out/sharp.png", disc())
    save(tmp_path / "out/smeared.png", disc())
    save_jpeg(tmp_path / "fov/sharp.jpg", disc())
    save(tmp_path / "fov/smeared.png", disc() * 0 + 1)
    report = evaluate(tmp_path / "out", tmp_path / "ref", EvaluationOptions(labels={"x": 1}, masks=tmp_path / "fov"))
    summary = summarize(report)
    assert summary["methods"]["out"]["smeared_masks_cut"] == {"sharp": ["field of view"], "smeared": ["reference"]}
    for text in every_output(report, tmp_path / "report"):
        assert "reference smeared by JPEG or by resizing and cut at grey level 128 of 255: smeared" in text
        assert "field of view smeared by JPEG or by resizing and cut at grey level 128 of 255: sharp" in text
    rows = list(csv.DictReader(io.StringIO(cases_csv(report))))
    assert [row["smeared_masks_cut"] for row in rows] == ["field of view", "reference"]


def test_undeclared_pixels_are_told_by_case(folders):
    options = EvaluationOptions(labels={"one": 1}, undeclared="background")
    report = evaluate(folders / "out", folders / "ref", options)
    assert "out: 100 pixels of undeclared values counted as background: a (100)" in notes(summarize(report))


def test_an_empty_field_of_view_is_named(tmp_path):
    save(tmp_path / "ref/a.png", disc())
    save(tmp_path / "out/a.png", disc())
    save(tmp_path / "fov/a.png", disc() * 0)
    refused(
        r"fov/a\.png: this field of view is empty, so no pixel of case a would be counted",
        tmp_path / "out", tmp_path / "ref", masks=tmp_path / "fov",
    )  # fmt: skip


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("spacing", [0.1, 0.3, 0.7, 0.703125, 0.9, 1.1, 2.3])
def test_a_tolerance_of_one_voxel_holds_for_the_headers_of_all_formats(tmp_path, suffix, spacing):
    sitk = pytest.importorskip("SimpleITK")
    block = np.zeros((14, 15, 16), np.uint8)
    block[3:9, 4:11, 5:11] = 1
    for side, array in (("ref", block), ("out", np.roll(block, 1, 0))):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing([spacing] * 3)
        image.SetDirection(np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]).ravel().tolist())
        image.SetOrigin((-113.7, 42.1, 900.3))
        (tmp_path / side).mkdir()
        sitk.WriteImage(image, str(tmp_path / side / f"a{suffix}"))
    options = EvaluationOptions(measures=["surface_dice"], tolerance_mm=spacing)
    (row,) = evaluate(tmp_path / "out", tmp_path / "ref", options).rows
    assert row.scores["surface_dice"] == 1


# --- intervals and comparisons, in every output


def make_methods(folder, num_cases, fails=()):
    """The first method is 1 voxel off where the second is 2 voxels off, and finds nothing in the cases it fails."""
    for index in range(num_cases):
        save(folder / f"ref/p{index}.nii.gz", volume((1, 2, 6), shape=(12, 5 + index, 4)))
        shift = volume((1, 3, 7), shape=(12, 5 + index, 4)) * (index not in fails)
        save(folder / f"out/p{index}.nii.gz", shift)
        save(folder / f"rival/p{index}.nii.gz", volume((1, 4, 8), shape=(12, 5 + index, 4)))
    options = EvaluationOptions(against=[folder / "rival"], measures=["dice", "surfaces"])
    return evaluate(folder / "out", folder / "ref", options)


@pytest.mark.usefixtures("no_plots")
def test_a_failed_case_is_named_in_every_output_and_does_not_help(tmp_path):
    """HD95 of the first is better in two of three cases, and infinite in the third."""
    report = make_methods(tmp_path, 3, fails=[2])
    summary = summarize(report)
    (comparison,) = summary["comparisons"]
    entry = comparison["labels"]["foreground"]["hd95"]
    assert (entry["num_cases"], entry["num_pairs"], entry["mean_difference"]) == (2, 3, -1)
    assert (entry["only_first_fails"], entry["only_second_fails"]) == (["p2"], [])
    assert entry["favours"] is None
    assert entry["largest"][0] == {"case": "p2", "first": None, "second": 2.0, "difference": None, "fails": "first"}
    assert "out fails 1 case of foreground that rival scores (p2): left out of the mean difference of" in str(
        summary["notes"]
    )
    for text in every_output(report, tmp_path / "report"):
        assert "out fails 1 case of foreground that rival scores (p2): left out of the mean difference of" in text
        assert "2 of 3" in text


def test_many_groups_and_no_failure_let_a_method_be_better(tmp_path):
    summary = summarize(make_methods(tmp_path, 9))
    entries = summary["comparisons"][0]["labels"]["foreground"]
    assert {entry["favours"] for entry in entries.values()} == {"out"}
    assert {entry["p_value"] for entry in entries.values()} == {2 / 2**9}
    assert {entry["p_holm"] for entry in entries.values()} == {len(entries) * 2 / 2**9}
    assert any(
        note.startswith("out is better than rival (p (Holm) below .05): foreground Dice") for note in summary["notes"]
    )


@pytest.mark.usefixtures("no_plots")
def test_every_output_cautions_about_few_groups_and_several_tests(tmp_path):
    report = make_methods(tmp_path, 5)
    summary = summarize(report)
    assert {entry["p_value"] for entry in summary["comparisons"][0]["labels"]["foreground"].values()} == {0.0625}
    for text in [*every_output(report, tmp_path / "report"), "\n".join(summary["notes"])]:
        assert "intervals over few groups (as few as 5): below 10 they are wide" in text
        assert "five groups cannot go below p = 0.0625, and after Holm's adjustment for 5 tests below 0.3125" in text
        assert "5 tests were made: of that many, some fall below p = .05 by chance" in text
        assert "no difference between out and rival is shown at p (Holm) below .05" in text
    for text in every_output(report, tmp_path / "report"):
        assert "0.0625" in text and "p (Holm)" in text


@pytest.mark.usefixtures("no_plots")
def test_two_groups_have_no_interval_and_every_output_says_so(tmp_path):
    report = make_methods(tmp_path, 2)
    for text in [*every_output(report, tmp_path / "report"), "\n".join(summarize(report)["notes"])]:
        assert "no intervals: they need at least 3 groups" in text


def test_ten_groups_need_no_note_on_intervals(tmp_path):
    assert not [note for note in summarize(make_methods(tmp_path, 10))["notes"] if "interval" in note]


@pytest.mark.usefixtures("no_plots")
def test_pooled_scores_are_compared_with_intervals_over_groups(tmp_path):
    report = make_methods(tmp_path, 4)
    entry = summarize(report)["comparisons"][0]["labels"]["foreground"]["dice"]
    sizes = [4 * (5 + index) * 4 for index in range(4)]
    assert entry["pooled_difference"] == pytest.approx(0.75 - 0.5)
    assert entry["pooled_interval"] == pytest.approx([0.25, 0.25])
    assert entry["pooled_num_groups"] == len(sizes)
    for text in every_output(report, tmp_path / "report")[1:]:
        assert "+0.2500 [+0.2500, +0.2500]" in re.sub(r"<[^>]*>", "", text)


def test_the_terminal_shows_intervals_and_both_p_values_within_80_columns(tmp_path):
    from rich.console import Console

    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal(summarize(make_methods(tmp_path, 5, fails=[1]))))
    text = console.export_text()
    rows = [line.split() for line in text.splitlines() if "Dice" in line]
    low, high = 0.6 - stats.t.ppf(0.975, 4) * 0.15, 1  # four cases of .75 and one of 0; cut at 1
    voxels = np.array([16 * (5 + index) for index in range(5)])
    found = voxels[[0, 2, 3, 4]].sum()
    pooled = 2 * 0.75 * found / (found + voxels.sum())
    assert rows[0] == ["Dice", "0.6000", f"{low:.4f}", "to", f"{high:.4f}", "0.7500", f"{pooled:.4f}", "5"]
    (compared,) = [row for row in rows if row[1] == "+0.1000"]
    assert compared[-3:] == ["0.75", "1", "5"]  # 12 of the 32 changes of signs of ranks 2.5, 2.5, 2.5, 2.5 and 5, twice
    assert "p (Holm)" in text
    assert ["HD95", "[mm]", "-1.00", "-1.00", "to", "-1.00", "0.75", "1", "4", "of", "5"] in [
        line.split() for line in text.splitlines()
    ]


@pytest.mark.usefixtures("no_plots")
def test_tables_say_what_is_counted_by_which_threshold_over_how_many_groups_and_what_is_left_out(tmp_path):
    generator = np.random.default_rng(0)
    for index in range(4):
        reference = np.zeros((20, 20), np.uint8)
        reference[4:12, 5:15] = index != 3
        save(tmp_path / f"ref/p{index // 2}_{index}.png", reference)
        save(tmp_path / f"fov/p{index // 2}_{index}.png", np.pad(np.ones((18, 18)), 1))
        save(tmp_path / f"out/p{index // 2}_{index}.png", reference * (index != 0))
        (tmp_path / "out/probabilities").mkdir(exist_ok=True)
        soft = np.clip(reference * (index != 0) * 0.8 + 0.1 * generator.random((20, 20)), 0, 1)
        np.save(tmp_path / f"out/probabilities/p{index // 2}_{index}.npy", soft.astype(np.float32))
    chosen = {"schema_version": 1, "values": {"x": 0.45}, "criterion": "pooled Dice", "references": []}
    (tmp_path / "run").mkdir()
    (tmp_path / "run/thresholds.json").write_text(json.dumps(chosen))
    options = EvaluationOptions(
        labels={"x": 1}, masks=tmp_path / "fov", threshold=tmp_path / "run", group=r"^(p\d)", measures=["dice", "hd95"]
    )
    report = evaluate(tmp_path / "out", tmp_path / "ref", options)
    for text in every_output(report, tmp_path / "report"):
        text = text.replace("\\_", "_")
        assert "4 cases of 2 groups" in text
        assert f"counted inside the field of view ({tmp_path / 'fov'}); pixels outside are in no measure" in text
        assert f"thresholds: x 0.45; chosen by pooled Dice on the cases recorded in {tmp_path / 'run'}" in text
        assert "out, x: undefined in 1 case and left out of the mean: Dice, HD95" in text
        assert "out, x: infinite in 1 case and left out of the mean: HD95" in text
    table = (tmp_path / "report/summary.md").read_text("utf-8")
    assert "| Method | Label | Cases | Groups | Dice | HD95 [px] |" in table
    assert "| out, mean | x | 4 | 2 | 0.6667 (n=3; 1 NaN) | 0.00 (n=2; 1 NaN, 1 ∞) |" in table
    whole = evaluate(tmp_path / "out", tmp_path / "ref", EvaluationOptions(labels={"x": 1}))
    for text in every_output(whole, tmp_path / "report"):
        assert "counted in the whole image: no field of view was given" in text
    printed = [line for line in (tmp_path / "report/summary.tex").read_text("utf-8").splitlines() if line[:1] != "%"]
    assert any("no field of view was given" in line for line in printed)
