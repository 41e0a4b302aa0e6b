"""What planning needs to know of a case beyond its facts, read in one go: values below the labels, and whether a dark frame surrounds it.

From these the kind of the images is told: CT in Hounsfield units, MR, fundus or dermoscopy photographs, or something else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from r2seg.data.cases import Case
from r2seg.data.fingerprint import CaseFacts, facts_of, read_case
from r2seg.data.images import IGNORE
from r2seg.errors import counted
from r2seg.labels import IgnoreLabel
from r2seg.workers import in_order

# Of a large data set so many cases are read, evenly chosen.
MOST_CASES = 100
_VALUES_EACH = 5_000
# Air in Hounsfield units is -1000; scanners write -1024 or less outside the field of view.
_AIR_HU, _DENSEST_HU = -900, 32_000
_DARK, _BRIGHT = 25, 60


@dataclass(frozen=True)
class Look:
    """One case.

    Attributes:
        facts: What its files hold.
        labelled: Values of the first channel below the labels, at most some thousands.
        has_dark_frame: Whether all corners of a picture are nearly black while its middle is not.
        mean_color: Mean of each channel in the middle of a picture.
    """

    facts: CaseFacts
    labelled: np.ndarray
    has_dark_frame: bool = False
    mean_color: tuple[float, ...] = ()


def look_at(case: Case, labels: Mapping[str, Sequence[int]], ignore_label: IgnoreLabel | None) -> Look:
    """A case's facts, and what else planning needs."""
    contents = read_case(case, labels, ignore_label)
    facts = facts_of(case, contents, labels)
    image, indices = contents.image, contents.indices
    labelled = np.zeros(0, np.float32)
    if image is None:
        return Look(facts, labelled)
    if indices is not None:
        inside = image.array[0][(indices > 0) & (indices != IGNORE)]
        labelled = inside[:: max(1, len(inside) // _VALUES_EACH)].astype(np.float32)
    if image.spatial_dims == 3:
        return Look(facts, labelled)
    rows, columns = image.shape
    down, across = max(1, rows // 12), max(1, columns // 12)
    corners = [image.array[:, rows_part, columns_part] for rows_part in (slice(down), slice(-down, None)) for columns_part in (slice(across), slice(-across, None))]  # fmt: skip
    middle = image.array[:, rows // 3 : 1 + 2 * rows // 3, columns // 3 : 1 + 2 * columns // 3]
    frame = all(np.median(corner) < _DARK for corner in corners) and middle.max(0).mean() > _BRIGHT
    return Look(facts, labelled, bool(frame), tuple(float(channel.mean()) for channel in middle))


def look_at_all(
    cases: Sequence[Case],
    labels: Mapping[str, Sequence[int]],
    ignore_label: IgnoreLabel | None,
    on_case: Callable[[int, int], None] | None = None,
) -> list[Look]:
    """Evenly chosen cases, several at a time."""
    chosen = [cases[round(index)] for index in np.linspace(0, len(cases) - 1, min(len(cases), MOST_CASES))]
    return list(in_order(lambda case: look_at(case, labels, ignore_label), chosen, None, on_case))


@dataclass(frozen=True)
class Kind:
    """What the images are.

    Attributes:
        name: "ct", "mr", "fundus", "dermoscopy", "photograph" or "other".
        reason: Why, in one line.
        sure: Whether more than the values says so.
    """

    name: str
    reason: str
    sure: bool


def tell_kind(looks: Sequence[Look], of_layout: str | None, names: str) -> Kind:
    """The kind of the images.

    Args:
        looks: Readable cases.
        of_layout: What the data set is known to be, or None.
        names: All names of files and folders in lower case, for words such as "isic" or "flair".
    """
    if of_layout is not None:
        return Kind(of_layout, "the data set is known", True)
    many = counted(len(looks), "case")
    low = float(np.median([look.facts.intensity[0][0] for look in looks]))
    high = float(np.median([look.facts.intensity[0][4] for look in looks]))
    if len(looks[0].facts.shape) == 3 or looks[0].facts.num_channels not in (3, 4):
        if low <= _AIR_HU and high < _DENSEST_HU:
            return Kind("ct", f"values from {low:g} to {high:g} in {many}, as Hounsfield units have", True)
        if any(word in names for word in ("flair", "_t1", "_t2", "mri", "/mr", "_mr", "adc", "dwi")):
            return Kind("mr", "names of MR sequences", True)
        if len(looks[0].facts.shape) == 3 and low >= 0:
            return Kind(
                "mr", f"volumes without values below 0 (to {high:g}): MR, or CT that is not in Hounsfield units", False
            )
        return Kind("other", f"values from {low:g} to {high:g}", False)
    framed = sum(look.has_dark_frame for look in looks) / len(looks)
    red = sum(_is_reddish(look) for look in looks) / len(looks)
    if framed > 0.7 and red > 0.7:
        return Kind("fundus", f"reddish pictures in a black frame ({framed:.0%} of {many})", True)
    if any(word in names for word in ("isic", "dermo", "derm_", "skin", "lesion", "melanom", "naev", "nev")):
        return Kind("dermoscopy", "words such as skin or lesion in the names", True)
    return Kind("photograph", "colour pictures without a black frame; if they are dermoscopy, nothing changes", False)


def _is_reddish(look: Look) -> bool:
    """As a fundus is: more red than green, more green than blue."""
    return len(look.mean_color) >= 3 and look.mean_color[0] > look.mean_color[1] > 0.8 * look.mean_color[2]
