"""Colours of labels where a config gives none."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

# Okabe and Ito's colours, which colour-blind readers can distinguish too; more labels take evenly spaced hues.
PALETTE = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#F0E442", "#0072B2")


def colours_of(labels: Sequence[str]) -> dict[str, str]:
    """Label -> colour, such as "#E69F00", in the order of the labels."""
    colours: tuple[str, ...] = PALETTE
    if len(labels) > len(PALETTE):
        hues = (colorsys.hsv_to_rgb(number / len(labels), 0.75, 0.95) for number in range(len(labels)))
        colours = tuple("#" + "".join(f"{round(255 * part):02x}" for part in hue) for hue in hues)
    return dict(zip(labels, colours, strict=False))
