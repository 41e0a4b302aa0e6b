"""Thresholds chosen on validation cases, used on others, and called an oracle's where they are used on their own."""

import json

import numpy as np
import pytest
from PIL import Image as Picture

from r2seg.data.images import read_image, write_probabilities
from r2seg.errors import UserError
from r2seg.evaluation.evaluate import evaluate
from r2seg.evaluation.options import EvaluationOptions
from r2seg.evaluation.summary import summarize
from r2seg.evaluation.tables import cases_csv, latex, markdown
from r2seg.evaluation.wording import notes
from r2seg.evaluation.write import write_report
from r2seg.metrics import Counts

LABELS = {"vessel": 1}


@pytest.fixture
def split(tmp_path):
    """Validation and test pictures whose probabilities are best cut at about 0.3 and 0.6, labels maps cut at 0.5."""
    generator = np.random.default_rng(0)
    for part, cut in (("validation", 0.3), ("test", 0.6)):
        for index in range(2):
            soft = generator.random((40, 40))
            reference = (soft > cut) ^ (generator.random((40, 40)) < 0.02)
            for name, mask in (("ref", reference), ("out", soft >= 0.5)):
                (tmp_path / part / name).mkdir(parents=True, exist_ok=True)
                Picture.fromarray(mask.astype(np.uint8)).save(tmp_path / part / name / f"{index}.png")
            like = read_image(tmp_path / part / "ref" / f"{index}.png")
            write_probabilities(
                tmp_path / part / "out/probabilities" / f"{index}.png", np.stack([1 - soft, soft]), like
            )
    return tmp_path


def score(folder, **options):
    return evaluate(folder / "out", folder / "ref", EvaluationOptions(labels=LABELS, **options))


def test_a_threshold_replaces_the_label_maps(split):
    report = score(split / "test", threshold=0.25)
    soft = np.stack([np.load(split / f"test/out/probabilities/{i}.npy")[..., 1] / 65535 for i in range(2)])
    reference = np.stack([read_image(split / f"test/ref/{i}.png").array[0] for i in range(2)])
    for index, row in enumerate(report.rows):
        predicted = soft[index] >= 0.25
        assert row.counts[0] == (predicted & (reference[index] == 1)).sum()
        assert row.counts[1] == (predicted & (reference[index] == 0)).sum()
    assert "label maps made here from the probabilities, thresholds: vessel 0.25; given as numbers" in str(
        summarize(report)["notes"]
    )


def test_half_gives_the_label_maps_that_argmax_wrote(split):
    assert [row.counts for row in score(split / "test", threshold=0.5).rows] == [
        row.counts for row in score(split / "test").rows
    ]


def test_a_threshold_chosen_on_validation_is_stored_and_used_on_test(split):
    validation = score(split / "validation", measures=["probabilities"])
    write_report(validation, split / "report", ["json"])
    held = json.loads((split / "report/thresholds.json").read_text())
    assert held["values"]["vessel"] == pytest.approx(0.3, abs=0.03)
    report = score(split / "test", threshold=split / "report")
    assert summarize(report)["settings"]["thresholds"] == held["values"]
    assert summarize(report)["settings"]["thresholds_from"] == str(split / "report")
    assert "oracle" not in report.main.name
    counts = report.rows[0].counts
    best = summarize(validation)["methods"]["out"]["labels"]["vessel"]["oracle"]
    assert best["threshold"] == held["values"]["vessel"]
    assert counts != score(split / "test").rows[0].counts


def test_a_threshold_chosen_on_the_scored_cases_is_called_oracle_in_every_output(split):
    write_report(score(split / "test", measures=["probabilities"]), split / "report", ["json"])
    (split / "test/ref").rename(split / "test/elsewhere")  # it is the content that counts, not the place
    report = evaluate(
        split / "test/out",
        split / "test/elsewhere",
        EvaluationOptions(labels=LABELS, threshold=split / "report", measures=["dice"]),
    )
    assert report.main.name == "out (oracle threshold)"
    assert any(
        note.startswith("ORACLE: the thresholds were chosen on 2 of these very cases")
        for note in notes(summarize(report))
    )
    for text in (
        cases_csv(report),
        markdown(summarize(report)),
        latex(summarize(report)),
        json.dumps(summarize(report)),
    ):
        assert "oracle" in text
    pooled = Counts(*np.sum([row.counts for row in report.rows], axis=0, keepdims=True).T)
    assert summarize(report)["methods"][report.main.name]["labels"]["vessel"]["measures"]["dice"][
        "pooled"
    ] == pytest.approx(2 * pooled.tp.item() / (2 * pooled.tp + pooled.fp + pooled.fn).item())


def test_probabilities_are_pooled_without_keeping_them(split):
    report = score(split / "test", measures=["probabilities"])
    found = summarize(report)["methods"]["out"]["labels"]["vessel"]["measures"]
    assert found["roc_auc"]["pooled"] > 0.9
    assert found["roc_auc"]["num_cases"] == 2
    assert all("probabilities" not in row.evidence and row.histogram is None for row in report.rows)


def test_wrong_thresholds_are_refused(split):
    for threshold, text in (
        (1.5, r"threshold is 1\.5: give a probability"),
        ({"lung": 0.5}, r"thresholds are for lung and the labels are vessel"),
        (split / "nowhere", r"nowhere: there are no thresholds; score validation cases with --measures probabilities"),
        (split / "test/ref/0.png", r"0\.png: this is not a file of thresholds"),
    ):
        with pytest.raises(UserError, match=text):
            score(split / "test", threshold=threshold)


def test_absent_probability_maps_are_refused(split):
    (split / "test/out/probabilities/1.npy").unlink()
    with pytest.raises(UserError, match=r"probabilities has no probability map for 1, which .*out predicts"):
        score(split / "test", threshold=0.5)
    with pytest.raises(UserError, match=r"there is no such folder of probability maps; predict with --probabilities"):
        evaluate(split / "test/ref", split / "test/out", EvaluationOptions(labels=LABELS, measures=["roc_auc"]))


@pytest.mark.parametrize("suffix", [".npy", ".nii.gz"])
def test_float_files_are_scored_without_rounding(tmp_path, suffix):
    """Sigmoids of a sure network, all far below 1/65535: another tool's float32 file."""
    import nibabel
    from sklearn.metrics import average_precision_score, roc_auc_score

    generator = np.random.default_rng(2)
    truth, soft = [], []
    for index in range(4):
        reference = generator.random((40, 40)) < 0.2
        probability = (1e-6 / (1 + np.exp(-generator.normal(reference * 2.0, 3)))).astype(np.float32)
        for folder, array in (
            ("ref", reference.astype(np.uint8)),
            ("out", reference.astype(np.uint8)),
            ("out/probabilities", probability),
        ):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            if suffix == ".npy":
                np.save(tmp_path / folder / f"{index}.npy", array)
            else:
                nibabel.save(nibabel.Nifti1Image(array[..., None], np.eye(4)), tmp_path / folder / f"{index}.nii.gz")
        truth.append(reference.ravel())
        soft.append(probability.ravel())
    report = score(tmp_path, measures=["probabilities"])
    found = summarize(report)["methods"]["out"]["labels"]["vessel"]
    whole = [np.concatenate(truth), np.concatenate(soft)]
    assert found["measures"]["roc_auc"]["pooled"] == pytest.approx(roc_auc_score(*whole), abs=1e-12)
    assert found["measures"]["pr_auc"]["pooled"] == pytest.approx(average_precision_score(*whole), abs=1e-12)
    assert [row.scores["roc_auc"] for row in report.rows] == pytest.approx(list(map(roc_auc_score, truth, soft)))
    write_report(report, tmp_path / "report", ["json", "html"] if suffix == ".npy" else ["json"])
    # The best threshold of these files cuts them: the label maps it makes have the Dice that was promised.
    again = score(tmp_path, threshold=tmp_path / "report", measures=["dice"])
    (method,) = summarize(again)["methods"].values()
    assert method["labels"]["vessel"]["measures"]["dice"]["pooled"] == pytest.approx(found["oracle"]["pooled_dice"])


@pytest.mark.parametrize("on_levels", [True, False])
def test_pooled_scores_of_probabilities_have_intervals_over_groups(tmp_path, on_levels):
    """As if each group were left out and all pixels of the others scored again, by scikit-learn."""
    from scipy.stats import t
    from sklearn.metrics import average_precision_score, roc_auc_score

    generator = np.random.default_rng(3)
    truth, soft = [], []
    for index in range(6):
        reference = generator.random((40, 40)) < 0.2
        probability = 1 / (1 + np.exp(-generator.normal(reference * (1 + 0.3 * index), 1)))
        if on_levels:
            probability = np.round(probability * 65535) / 65535
        for folder, array in (
            ("ref", reference.astype(np.uint8)),
            ("out", reference.astype(np.uint8)),
            ("out/probabilities", probability),
        ):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            np.save(tmp_path / folder / f"{index}.npy", array)
        truth.append(reference.ravel())
        soft.append(probability.ravel())
    report = score(tmp_path, measures=["probabilities"])
    found = summarize(report)["methods"]["out"]["labels"]["vessel"]["measures"]
    for key, theirs in (("roc_auc", roc_auc_score), ("pr_auc", average_precision_score)):
        without = np.array([theirs(*(np.concatenate(x[:i] + x[i + 1 :]) for x in (truth, soft))) for i in range(6)])
        half = t.ppf(0.975, 5) * np.sqrt(5 / 6 * ((without - without.mean()) ** 2).sum())
        low, high = found[key]["pooled_interval"]
        assert (high - low) / 2 == pytest.approx(half, rel=0.02)
        assert found[key]["pooled"] == pytest.approx((low + high) / 2)
