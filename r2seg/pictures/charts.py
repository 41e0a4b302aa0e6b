"""Charts inside a page, as SVG that follows the page's colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

_WIDTH, _HEIGHT, _BELOW = 460, 130, 22


def histogram(
    shares: Mapping[str, Sequence[float]], edges: Sequence[float], colours: Mapping[str, str], title: str
) -> str:
    """Outlines of several histograms over the same bins; heights are square roots of the shares, so that small ones show.

    Args:
        shares: Name -> share of each bin, 0 to 1.
        edges: Ends of the bins, one more than there are bins.
        colours: Name -> colour.
        title: What is counted, for those who do not see the chart.
    """
    low, high = float(edges[0]), float(edges[-1])
    highest = max((max(each, default=0) for each in shares.values()), default=0) or 1.0

    def x_of(value: float) -> float:
        return round((value - low) / (high - low) * _WIDTH, 1)

    paths = []
    for name, each in shares.items():
        steps = [f"M0,{_HEIGHT}"]
        for left, right, share in zip(edges, edges[1:], each, strict=False):
            y = round(_HEIGHT * (1 - 0.95 * (max(share, 0) / highest) ** 0.5), 1)
            steps.append(f"L{x_of(left)},{y}L{x_of(right)},{y}")
        colour = escape(colours[name], quote=True)
        paths.append(
            f'<path d="{"".join(steps)}L{_WIDTH},{_HEIGHT}" fill="{colour}" fill-opacity=".18" stroke="{colour}" stroke-width="1.6"/>'
        )
    ticks = "".join(
        f'<text x="{x_of(value)}" y="{_HEIGHT + 16}" text-anchor="{anchor}">{_number(value)}</text>'
        for value, anchor in zip(np.linspace(low, high, 5), ("start", "middle", "middle", "middle", "end"), strict=True)
    )
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT + _BELOW}" role="img" aria-label="{escape(title, quote=True)}">'
        f'<line x1="0" x2="{_WIDTH}" y1="{_HEIGHT}" y2="{_HEIGHT}" stroke="currentColor" stroke-opacity=".5"/>{"".join(paths)}{ticks}</svg>'
    )


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
