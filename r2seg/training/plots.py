"""Pictures of a run: its metrics by epoch, and what it predicts on held-out cases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from r2seg.data.cache import CachedCase
from r2seg.data.geometry import PLANES
from r2seg.data.images import IGNORE
from r2seg.files import write_atomically
from r2seg.labels import Label, Labels, hexadecimal
from r2seg.metrics import label_mask
from r2seg.palette import drawn_colors

# Of reference and prediction where there is one label without a colour; colour-blind readers can distinguish them too.
_REFERENCE, _PREDICTION = "#56B4E9", "#E69F00"


def plot_course(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Loss, validation Dice (where there was validation) and learning rate by epoch, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    losses, rates = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    epochs = [row["epoch"] for row in rows]
    losses.plot(epochs, [row["loss"] for row in rows], color="#0072B2", label="training loss")
    losses.set_ylabel("loss")
    lines = [*losses.get_lines()]
    if validated := [row for row in rows if row.get("validation_dice") is not None]:
        scores = losses.twinx()
        scores.plot(
            [row["epoch"] for row in validated],
            [row["validation_dice"] for row in validated],
            "o-",
            markersize=3,
            color="#D55E00",
            label="validation Dice",
        )
        scores.set(ylabel="Dice", ylim=(0, 1))
        lines += scores.get_lines()
    else:
        losses.set_title("no validation: the weights of the last epoch were taken", fontsize=10)
    losses.legend(lines, [line.get_label() for line in lines], loc="center right")
    rates.plot(epochs, [row["learning_rate"] for row in rows], color="#009E73")
    rates.set(xlabel="epoch", ylabel="learning rate")
    rates.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=120))


@dataclass(frozen=True)
class Panel:
    """One slice of a case to be shown: the one with the most reference pixels, upright.

    Attributes:
        title: Case and score.
        dice: Mean Dice of the case over its labels; NaN if no label can be scored.
        picture: Grey (rows, columns) or colour (rows, columns, 3), 0 to 1.
        reference: Class indices (rows, columns); 0 where nothing is known.
        prediction: Predicted class indices (rows, columns).
        aspect: Height of a pixel divided by its width.
    """

    title: str
    dice: float
    picture: np.ndarray
    reference: np.ndarray
    prediction: np.ndarray
    aspect: float = 1.0


def panel_of(case: CachedCase, prediction: np.ndarray, dice: float, plane: str) -> Panel:
    """The panel of a case, with anterior or superior up and, as radiologists view them, the patient's right on the left.

    Args:
        case: The case.
        prediction: Class indices (*S) on its oriented grid.
        dice: Mean Dice over its labels.
        plane: Plane of a volume's slices; ignored for pictures.
    """
    title = case.id if math.isnan(dice) else f"{case.id}  Dice {dice:.3f}"
    reference: np.ndarray = np.where(case.reference == IGNORE, np.uint8(0), case.reference)
    prediction = np.asarray(prediction)
    if reference.ndim == 2:
        values = case.prepared[(slice(None),)].numpy()
        picture = _stretched(np.moveaxis(values, 0, -1) if len(values) == 3 else values[0], reference.shape)
        return Panel(title, dice, _to_grey_range(picture), reference, prediction)
    axis = PLANES[plane]
    index = int((reference > 0).sum(tuple(other for other in range(3) if other != axis)).argmax())
    old, new = case.grid.oriented_shape, case.grid.shape  # of the reference, of the image
    working = int((index + 0.5) / old[axis] * new[axis])
    parts = [slice(None), *(slice(working, working + 1) if other == axis else slice(None) for other in range(3))]
    picture = case.prepared[tuple(parts)].numpy()[0].take(0, axis=axis)
    reference, prediction = (indices.take(index, axis=axis) for indices in (reference, prediction))
    picture = _stretched(picture, reference.shape)
    spacing = [s * n / o for s, n, o in zip(case.spacing_mm, new, old, strict=True)]
    del spacing[axis]

    def upright(array: np.ndarray) -> np.ndarray:
        turned = np.rot90(array)  # the second axis, A or S, points up
        return turned if plane == "sagittal" else np.fliplr(turned)

    return Panel(
        title,
        dice,
        _to_grey_range(upright(picture)),
        upright(reference),
        upright(prediction),
        spacing[1] / spacing[0],
    )


def _stretched(picture: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The nearest pixel of a picture (rows, columns, ...) for each pixel of another grid over the same extent."""
    return picture[np.ix_(*(np.arange(size) * had // size for size, had in zip(shape, picture.shape, strict=False)))]


def plot_panels(
    panels: Sequence[Panel], labels: Labels, path: Path, most: int = 12, *, overlapping: bool = False
) -> None:
    """Contours of reference and prediction on each panel, the worst Dice first, as a PNG.

    Each label has a contour of its own, in the label's colour; the prediction is dashed. A single label without a colour has two:
    one of the reference, one of the prediction.

    Args:
        panels: One per case.
        labels: The declared labels, in the order of their class indices.
        path: The file.
        most: Number of panels that are shown.
        overlapping: Whether the panels hold bits of overlapping labels (`label_mask`).
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    shown = sorted(panels, key=lambda panel: -1 if math.isnan(panel.dice) else panel.dice)[:most]
    columns = min(4, len(shown))
    figure = Figure(figsize=(3.2 * columns, 3.2 * math.ceil(len(shown) / columns) + 0.4), layout="constrained")
    places = figure.subplots(math.ceil(len(shown) / columns), columns, squeeze=False)
    for axes in places.flat:
        axes.axis("off")
    styles = _contour_styles(labels)
    for axes, panel in zip(places.flat, shown, strict=False):
        axes.imshow(panel.picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect=panel.aspect)
        for indices, looks in zip((panel.reference, panel.prediction), styles, strict=True):
            for index, (colour, line) in enumerate(looks, start=1):
                mask = label_mask(indices, index, overlapping)
                if mask.any() and not mask.all():
                    axes.contour(mask, levels=[0.5], colors=[colour], linestyles=[line], linewidths=1)
        axes.set_title(panel.title, fontsize=9)
    if styles[0][0][0] != styles[1][0][0]:
        entries = [(name, *looks[0]) for name, looks in zip(("reference", "prediction"), styles, strict=True)]
    else:
        parts = [part for panel in shown for part in (panel.reference, panel.prediction)]
        entries = [
            (name, styles[0][index - 1][0], "solid")
            for index, name in enumerate(labels, start=1)
            if any(label_mask(part, index, overlapping).any() for part in parts)
        ]
        entries += [("reference", "#808080", "solid"), ("prediction", "#808080", "dashed")]
    handles = [Line2D([], [], color=colour, linestyle=line, label=name) for name, colour, line in entries]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 2 * columns), frameon=False)
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=120))


def _contour_styles(labels: Labels) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Colour and line of each label's contour in the reference and in the prediction."""
    only = next(iter(labels.values())) if len(labels) == 1 else None
    if only is not None and not (isinstance(only, Label) and (only.color or only.rgb)):
        return [(_REFERENCE, "solid")], [(_PREDICTION, "solid")]
    colours = [hexadecimal(color) for color in drawn_colors(labels).values()]
    return [(colour, "solid") for colour in colours], [(colour, "dashed") for colour in colours]


def _to_grey_range(picture: np.ndarray) -> np.ndarray:
    low, high = np.percentile(picture, (0.5, 99.5))
    return np.clip((picture - low) / (high - low), 0, 1) if high > low else np.zeros_like(picture)
