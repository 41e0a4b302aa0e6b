"""Cases and the layouts of data sets that yield them. Reading pixels lives in images.py, splitting in splits.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """One subject to segment: the files of its channels, its label and its field of view.

    Attributes:
        id: Unique name; relative path without suffix below the images folder, such as "site_a/ct_012".
        images: One file with all channels, or one file a channel, in order.
        label: Reference label map, or None.
        mask: Field of view (non-zero inside), or None for the whole image.
        group: Patient or subject; cases of one group never fall on both sides of a split.
        split: "train", "validation" or "test" where the layout fixes it, else None.
    """

    id: str
    images: tuple[Path, ...]
    label: Path | None = None
    mask: Path | None = None
    group: str = ""
    split: str | None = None
