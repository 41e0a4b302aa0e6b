"""Figures of a report as SVG text, to be embedded in a page. Drawn by matplotlib, without its global state."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from r2seg.evaluation.results import Report
from r2seg.evaluation.wording import title
from r2seg.metrics import counts_at, roc_auc, threshold_curve
from r2seg.metrics.catalogue import MEASURES
from r2seg.metrics.probabilities import NUM_BINS, average_precision, with_levels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito: distinct with any kind of colour vision. Markers differ as well.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
MARKERS = "osD^vPX"
_MAX_POINTS = 400
_MAX_PANELS = 12


def distributions(report: Report, summary: Mapping[str, Any]) -> str | None:
    """Every case's score, one panel per measure: points, median and quartiles by label and method."""
    keys = [key for key in report.measures if MEASURES[key].better and _finite(report, key)][:_MAX_PANELS]
    if not keys:
        return None
    columns = min(4, len(keys))
    rows = math.ceil(len(keys) / columns)
    figure = _figure(2.9 * columns, 2.5 * rows)
    generator = np.random.default_rng(0)
    width = 0.8 / len(report.methods)
    for panel, key in enumerate(keys):
        axes = figure.add_subplot(rows, columns, panel + 1)
        for number, method in enumerate(report.methods):
            for place, label in enumerate(report.labels):
                values = np.array([row.scores.get(key, math.nan) for row in report.of(method.name, label)])
                values = values[np.isfinite(values)]
                if not len(values):
                    continue
                centre = place + (number - (len(report.methods) - 1) / 2) * width
                colour = COLOURS[number % len(COLOURS)]
                shown = values if len(values) <= _MAX_POINTS else generator.choice(values, _MAX_POINTS, replace=False)
                jitter = generator.uniform(-0.25, 0.25, len(shown)) * width
                axes.plot(
                    centre + jitter,
                    shown,
                    MARKERS[number % len(MARKERS)],
                    color=colour,
                    markersize=4.5,
                    alpha=0.75,
                    zorder=3,
                    markeredgewidth=0,
                    label=method.name if place == 0 else None,
                )
                low, middle, high = np.percentile(values, [25, 50, 75])
                axes.plot([centre - 0.35 * width, centre + 0.35 * width], [middle] * 2, color="#222", linewidth=2)
                axes.plot([centre] * 2, [low, high], color="#222", linewidth=1)
        axes.set_title(title(summary, key), fontsize=9)
        axes.set_xticks(range(len(report.labels)), report.labels, rotation=30 if len(report.labels) > 3 else 0)
        axes.set_xlim(-0.6, len(report.labels) - 0.4)
        axes.grid(axis="y", color="#ddd", linewidth=0.6)
        if panel == 0 and len(report.methods) > 1:
            axes.legend(fontsize=7)
    return _svg(figure, "distributions")


def bland_altman(report: Report) -> str | None:
    """Predicted minus reference volume over their mean, with bias and limits of agreement, one panel per label."""
    labels = [label for label in report.labels if _volumes(report, label)]
    if not labels:
        return None
    labels = labels[:_MAX_PANELS]
    columns = min(3, len(labels))
    figure = _figure(3.9 * columns, 3 * math.ceil(len(labels) / columns))
    for panel, label in enumerate(labels):
        predicted, reference = np.array(_volumes(report, label)).T
        mean, difference = (predicted + reference) / 2, predicted - reference
        axes = figure.add_subplot(math.ceil(len(labels) / columns), columns, panel + 1)
        axes.plot(mean, difference, "o", color=COLOURS[0], markersize=4, alpha=0.6, markeredgewidth=0)
        bias = difference.mean()
        spread = 1.96 * difference.std(ddof=1) if len(difference) > 1 else math.nan
        axes.axhline(0, color="#999", linewidth=0.8)
        axes.axhline(bias, color=COLOURS[5], linewidth=1.3, label=f"bias {bias:+.2f} mL")
        if math.isfinite(spread):
            for limit in (bias - spread, bias + spread):
                axes.axhline(limit, color=COLOURS[5], linewidth=1, linestyle="--")
            axes.plot([], [], "--", color=COLOURS[5], linewidth=1, label=f"±1.96 SD = ±{spread:.2f} mL")
        axes.set_title(f"{label} ({len(mean)} {'case' if len(mean) == 1 else 'cases'})", fontsize=9)
        axes.set_xlabel("mean of both volumes [mL]", fontsize=8)
        axes.set_ylabel("predicted − reference [mL]", fontsize=8)
        axes.legend(fontsize=7)
        axes.grid(color="#eee", linewidth=0.6)
    return _svg(figure, "bland-altman")


def curves(report: Report) -> str | None:
    """Pooled ROC, precision-recall and reliability curves of every label with probabilities."""
    if not report.histograms:
        return None
    figure = _figure(11, 3.4)
    roc, pr, reliability = (figure.add_subplot(1, 3, number) for number in (1, 2, 3))
    roc.plot([0, 1], [0, 1], color="#bbb", linewidth=0.8)
    reliability.plot([0, 1], [0, 1], color="#bbb", linewidth=0.8)
    styles = ("-", "--", ":", "-.")
    for number, ((method, label), histogram) in enumerate(report.histograms.items()):
        found = with_levels(histogram)
        if not found.counts.sum(dim=1).all():
            continue
        colour, style = COLOURS[number % len(COLOURS)], styles[number // len(COLOURS) % len(styles)]
        name = label if len(report.methods) == 1 else f"{method}: {label}"
        curve = threshold_curve(found)
        tp, fp = curve.tp.double().numpy(), curve.fp.double().numpy()
        recall, false = tp / tp[0], fp / fp[0]
        keep = _thin(false, recall)
        roc.plot(false[keep], recall[keep], style, color=colour, label=f"{name}, AUC {roc_auc(histogram):.4f}")
        predicted = tp + fp > 0
        recall, right = recall[predicted], (tp[predicted] / (tp + fp)[predicted])
        keep = _thin(recall, right)
        pr.plot(recall[keep], right[keep], style, color=colour, label=f"{name}, AP {average_precision(histogram):.4f}")
        at_half = counts_at(histogram, 0.5)
        if at_half.tp + at_half.fp:
            roc.plot(at_half.fp / fp[0], at_half.tp / tp[0], "o", color=colour, markersize=5)
            pr.plot(at_half.tp / tp[0], at_half.tp / (at_half.tp + at_half.fp), "o", color=colour, markersize=5)
        negative, positive = found.counts.double().numpy()
        level = found.levels.numpy()
        bins = np.minimum((level * NUM_BINS).astype(int), NUM_BINS - 1)
        total = np.bincount(bins, negative + positive, NUM_BINS)
        filled = total > 0
        reliability.plot(
            np.bincount(bins, (negative + positive) * level, NUM_BINS)[filled] / total[filled],
            np.bincount(bins, positive, NUM_BINS)[filled] / total[filled],
            f"{style}o",
            color=colour,
            markersize=3,
            label=name,
        )
    for axes, heading, across, up in (
        (roc, "ROC", "1 − specificity", "sensitivity"),
        (pr, "Precision and recall", "recall (sensitivity)", "precision"),
        (reliability, "Reliability", "mean probability", "share of reference pixels"),
    ):
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.set_title(heading, fontsize=9)
        axes.set_xlabel(across, fontsize=8)
        axes.set_ylabel(up, fontsize=8)
        axes.grid(color="#eee", linewidth=0.6)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7, loc="best")
    return _svg(figure, "curves")


def _finite(report: Report, key: str) -> bool:
    return any(math.isfinite(row.scores.get(key, math.nan)) for row in report.rows)


def _volumes(report: Report, label: str) -> list[tuple[float, float]]:
    rows = [row.scores for row in report.of(report.main.name, label)]
    pairs = [(s.get("volume_ml", math.nan), s.get("reference_volume_ml", math.nan)) for s in rows]
    return [pair for pair in pairs if all(map(math.isfinite, pair))]


def _thin(x: np.ndarray, y: np.ndarray, most: int = 400) -> np.ndarray:
    """Indices of points at about equal steps along a curve of many thousand."""
    length = np.concatenate([[0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    wanted = np.searchsorted(length, np.linspace(0, length[-1], most))
    return np.unique(np.clip(np.concatenate([[0], wanted, [len(x) - 1]]), 0, len(x) - 1))


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _svg(figure: Figure, name: str) -> str:
    """The figure's <svg> element; its ids begin with the name, so that several fit in one page."""
    import matplotlib

    for axes in figure.axes:
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    return re.sub(r'((?:id="|href="#|url\(#))', rf"\g<1>{name}-", svg)
