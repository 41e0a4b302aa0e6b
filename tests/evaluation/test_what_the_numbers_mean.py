"""docs/what-the-numbers-mean.md says what the real images say: every figure of our own there is computed here."""

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from r2seg.data.images import read_image, write_label_map, write_probabilities
from r2seg.evaluation.evaluate import evaluate
from r2seg.evaluation.options import EvaluationOptions
from r2seg.evaluation.summary import summarize
from r2seg.evaluation.write import write_report

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared/data"
CHASE, ISIC = DATA / "chase_db1", DATA / "isic2018"
PAGE = ROOT / "docs/what-the-numbers-mean.md"

real = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real images: {DATA} is absent")


def say(value):
    """Three digits as the page writes them, such as .765."""
    return f"{value:.3f}".removeprefix("0")


def measures(report):
    return summarize(report)["methods"][report.main.name]["labels"][next(iter(report.labels))]["measures"]


def observers(**options):
    names = {"prediction_name": "{id}_2ndHO", "reference_name": "{id}_1stHO", "group": r"Image_(\d+)"}
    return measures(evaluate(CHASE, CHASE, EvaluationOptions(**names, **options)))


def row_of(found, keys=("dice", "sensitivity", "specificity", "accuracy")):
    return " | ".join(say(found[key]["pooled"]) for key in keys)


@real
@pytest.mark.real
def test_the_second_observer_is_as_good_as_the_page_says():
    page = PAGE.read_text("utf-8")
    inside, whole = observers(masks=CHASE / "fov_mask"), observers()
    assert f"| inside the field of view | {row_of(inside)} |" in page
    assert f"| whole picture | {row_of(whole)} |" in page
    assert f"in the field of view, pooled | 14 | {row_of(inside)} |" in page
    assert f"\n| {row_of(inside, ('dice', 'iou', 'accuracy'))} |" in page
    assert f"[{', '.join(map(say, inside['dice']['pooled_interval']))}]" in page


@real
@pytest.mark.real
@pytest.mark.slow
def test_a_threshold_chosen_on_test_gains_what_the_page_says(tmp_path):
    for path in sorted(CHASE.glob("*.jpg")):
        image = read_image(path)
        green = image.array[1].astype(float)
        darkness = gaussian_filter(green, 12) - gaussian_filter(green, 1.5)
        vessel = 1 / (1 + np.exp(-(darkness - 8) / 4))
        part = tmp_path / ("validation" if path.stem[6:8] <= "03" else "test")
        write_probabilities(part / "probabilities" / f"{path.stem}.png", np.stack([1 - vessel, vessel]), image)
        write_label_map(part / f"{path.stem}.png", (vessel >= 0.5).astype(np.uint8), image, {"vessel": 1})
    options = {"reference_name": "{id}_1stHO", "masks": CHASE / "fov_mask", "labels": {"vessel": 1}, "missing": "skip"}
    lines = []
    for name in ("validation", "test"):
        report = evaluate(tmp_path / name, CHASE, EvaluationOptions(measures=["probabilities"], **options))
        write_report(report, tmp_path / f"chosen on {name}", ["json"])
    page = PAGE.read_text("utf-8")
    for threshold, chosen_on in (
        (0.5, "nothing"),
        (tmp_path / "chosen on validation", "validation"),
        (tmp_path / "chosen on test", "the test images themselves"),
    ):
        report = evaluate(tmp_path / "test", CHASE, EvaluationOptions(threshold=threshold, **options))
        assert ("oracle" in report.main.name) == ("themselves" in chosen_on)
        value = report.thresholds.values["vessel"]
        lines.append(f"| {say(value)} | {chosen_on} | {say(measures(report)['dice']['pooled'])} |")
    assert "\n".join(lines) in page


@real
@pytest.mark.real
@pytest.mark.slow
def test_means_and_pools_differ_as_the_page_says(tmp_path):
    from skimage.filters import threshold_otsu

    for path in sorted((ISIC / "ISIC2018_Task1-2_Training_Input").glob("*.jpg")):
        image = read_image(path)
        grey = gaussian_filter(image.array.astype(float).mean(axis=0), 2)
        write_label_map(tmp_path / f"{path.stem}.png", (grey < threshold_otsu(grey)).astype(np.uint8), image, {"x": 1})
    references = ISIC / "ISIC2018_Task1_Training_GroundTruth"
    found = measures(evaluate(tmp_path, references, EvaluationOptions(reference_name="{id}_segmentation")))
    page = PAGE.read_text("utf-8")
    assert f"| mean over images | {say(found['dice']['mean'])} | {say(found['iou']['mean'])} |" in page
    assert f"| pooled over all pixels | {say(found['dice']['pooled'])} | {say(found['iou']['pooled'])} |" in page
    assert f"| threshold Jaccard, mean over images | | {say(found['threshold_jaccard']['mean'])} |" in page


def test_the_page_has_a_row_for_every_measure():
    from r2seg.metrics.catalogue import MEASURES

    page = PAGE.read_text("utf-8").lower()
    other_words = {"surface_dice": "surface dice at τ", "ece": "calibration error", "volume_ml": "volume difference"}
    for key, measure in MEASURES.items():
        name = other_words.get(key, measure.title.lower()).replace("reference volume", "volume difference")
        assert f"| {name}" in page, key
