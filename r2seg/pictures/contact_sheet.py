"""Contact sheets: one small picture per case, with its labels drawn in, as many as fit into a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from r2seg.data.images import IGNORE, Image
from r2seg.pictures.contours import CASING, contour_pixels
from r2seg.pictures.embedding import jpeg, stencil
from r2seg.pictures.views import View, pixels_of, shown_range, to_grey

LONGEST = 256
"""Pixels of a tile's longer side, at most."""

MAX_BYTES = 16_000_000
"""Of all tiles of a page together."""

_QUALITY = 72


@dataclass(frozen=True)
class Tile:
    """One case on a contact sheet.

    Attributes:
        image: data: address of the picture.
        labels: data: address of the labels' contours, transparent elsewhere; None if there is no label.
        size: Rows and columns of both.
        place: Which slice of a volume it is, such as "axial slice 61 of 130"; "" for pictures.
    """

    image: str
    labels: str | None
    size: tuple[int, int]
    place: str

    @property
    def num_bytes(self) -> int:
        """Of its pictures."""
        return len(self.image) + len(self.labels or "")


def tile_of(
    image: Image,
    indices: np.ndarray | None,
    colours: Sequence[str],
    shown: tuple[float, float] | None = None,
    *,
    overlapping: bool = False,
) -> Tile:
    """The tile of a case: a picture, or the axial slice of a volume with the most labelled voxels, with its true aspect.

    Args:
        image: As read; its first channel, or all three of a picture.
        indices: Class indices (*S) on the same grid; 0 background, 1..K the labels; None if there are none.
        colours: Of the labels, in order.
        shown: Intensities shown as black and white; by default from the slice itself, and for 8 bits always 0 to 255.
        overlapping: Whether the indices are the bits of overlapping labels.
    """
    view = View.of(image.grid, "axial" if image.spatial_dims == 3 else None)
    pixels = pixels_of(image.array, view)
    labelled = None if indices is None else view.stack(indices)
    index = len(pixels) // 2
    if labelled is not None and len(labelled) > 1:
        counts = [int(np.count_nonzero((each > 0) & (each != IGNORE))) for each in labelled]
        index = int(np.argmax(counts)) if any(counts) else index
    chosen = pixels[index]
    size = view.size(chosen.shape[:2], LONGEST)
    eight_bits = chosen.dtype == np.uint8
    contours = (
        None if labelled is None else contour_pixels(labelled[index], len(colours), size, overlapping=overlapping)
    )
    return Tile(
        image=jpeg(to_grey(chosen, shown if shown and not eight_bits else shown_range(chosen)), size, _QUALITY),
        labels=None if contours is None else stencil(contours, [*colours, CASING]),
        size=size,
        place=f"{view.axis_name} slice {index + 1} of {len(pixels)}" if view.axis_name else "",
    )


def num_that_fit(tiles: Sequence[Tile | None]) -> int:
    """How many of the first tiles fit into `MAX_BYTES`; None counts nothing."""
    used = 0
    for number, tile in enumerate(tiles):
        used += tile.num_bytes if tile else 0
        if used > MAX_BYTES:
            return number
    return len(tiles)
