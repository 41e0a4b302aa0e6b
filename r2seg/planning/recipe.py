"""Settings by the kind of images: intensities, augmentation, sampling, split, learning rate; each a ``Choice`` with its reason.

Sizes are in sizes.py, the length of the training in length.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from r2seg.planning.facts import Choice, Summary
from r2seg.planning.sizes import Sizes

# Hounsfield units: nothing is less dense than air.
_AIR_HU = -1000
_LUNG_WINDOW = (-1000, 400)
# nnU-Net clips CT to these percentiles of the foreground.
_CLIP = (0.5, 99.5)
# The labels' range is widened by this share of it on each side, so that what borders on them keeps its contrast.
_WIDENED = 0.25
_LEAST_HU_RANGE = 100


def preprocessing_choices(data: Summary, sizes: Sizes) -> list[Choice]:
    """Section ``preprocessing``."""
    choices = list(_INTENSITIES.get(data.kind.name, _zscore)(data))
    if data.image_dims == 3:
        choices.append(
            Choice(
                "preprocessing.spacing_mm",
                None if sizes.spacing_mm is None else list(sizes.spacing_mm),
                f"[R-L, A-P, S-I] in mm: {sizes.spacing_reason}"
                if sizes.spacing_mm
                else f"null: {sizes.spacing_reason}",
            )
        )
    if sizes.resize is not None:
        choices.append(Choice("preprocessing.resize", {"longest_side": sizes.resize}, sizes.resize_reason))
    return choices


def _ct(data: Summary) -> list[Choice]:
    values = data.labelled_values
    if not len(values):
        return [
            Choice(
                "preprocessing.intensity",
                {"kind": "hu_window", "low": -1000, "high": 1000},
                "CT; no labelled voxel was seen",
            )
        ]
    low, high = np.percentile(values, _CLIP)
    margin = max(_WIDENED * (high - low), (_LEAST_HU_RANGE - (high - low)) / 2)
    low_hu, high_hu = max(_AIR_HU, int(np.floor((low - margin) / 10) * 10)), int(np.ceil((high + margin) / 10) * 10)
    return [
        Choice(
            "preprocessing.intensity",
            {"kind": "hu_window", "low": low_hu, "high": high_hu},
            f"CT: the labelled voxels lie between {low:.0f} and {high:.0f} HU ({_CLIP[0]} and {_CLIP[1]} percentiles, as nnU-Net takes "
            "them), widened by a quarter so that their borders keep their contrast",
        )
    ]


def _mr(data: Summary) -> list[Choice]:
    return [
        Choice(
            "preprocessing.intensity",
            {"kind": "zscore", "region": "nonzero"},
            "MR has no fixed scale: each image to mean 0 and deviation 1, measured where it is not 0",
        )
    ]


def _fundus(data: Summary) -> list[Choice]:
    where = "given" if data.has_masks else "find"
    told = (
        "the data have one for every picture" if data.has_masks else "there are none, so it is found from each picture"
    )
    return [
        Choice("preprocessing.field_of_view", where, f"field of view: {told}"),
        Choice(
            "preprocessing.intensity",
            {"kind": "zscore", "region": "field_of_view"},
            "brightness differs from camera to camera: mean 0 and deviation 1 inside the field of view",
        ),
    ]


def _zscore(data: Summary) -> list[Choice]:
    return [
        Choice(
            "preprocessing.intensity",
            {"kind": "zscore"},
            "brightness differs from image to image: each channel to mean 0 and deviation 1",
        )
    ]


_INTENSITIES: dict[str, Callable[[Summary], list[Choice]]] = {
    "ct": _ct,
    "mr": _mr,
    "fundus": _fundus,
    "dermoscopy": _zscore,
    "photograph": _zscore,
    "other": _zscore,
}


def window_choices(data: Summary, sizes: Sizes) -> list[Choice]:
    """Sections ``window`` and ``network``."""
    choices = [Choice("window.size", list(sizes.window), sizes.window_reason)]
    if sizes.plane is not None:
        choices.append(Choice("window.plane", sizes.plane, f"{sizes.dims_reason}; {sizes.plane_reason}"))
    if data.kind.name == "fundus":
        choices.append(
            Choice(
                "window.overlap",
                0.5,
                "small windows see little around their borders: each pixel is predicted four times",
            )
        )
    choices.append(Choice("window.batch_size", sizes.batch_size, sizes.batch_reason))
    choices.append(Choice("network.name", "R2UNet", "recurrent residual U-Net (Alom et al., arXiv:1802.06955)"))
    choices.append(Choice("network.channels", list(sizes.channels), sizes.network_reason))
    if sizes.strides is not None:
        strides = [step[0] if len(set(step)) == 1 else list(step) for step in sizes.strides]
        choices.append(
            Choice(
                "network.strides", strides, "an axis whose voxels are coarser than twice the others' is not halved yet"
            )
        )
    choices.append(Choice("network.steps", 2, "recurrent passes, the paper's t"))
    if sizes.dims == 3:
        choices.append(Choice("network.norm", "instance", "batches of few volumes have no statistics of their own"))
    return choices


def augmentation_choices(data: Summary, sizes: Sizes) -> list[Choice]:
    """Sections ``sampling.foreground`` and ``augmentation``."""
    whole = data.image_dims == 2 and all(w >= s for w, s in zip(sizes.window, sizes.shape, strict=True))
    choices = []
    if whole:
        choices.append(Choice("sampling.foreground", 0, "windows are whole pictures, so there is nothing to balance"))
    else:
        share = f"{data.labelled_share:.1%} of the voxels are labelled"
        choices.append(Choice("sampling.foreground", 0.5, f"{share}: half of the windows hold one for certain"))
    for key, value, reason in _AUGMENTATIONS.get(data.kind.name, _AUGMENTATIONS["other"]):
        choices.append(Choice(f"augmentation.{key}", value, reason))
    return choices


_COLOURS = (
    ("scale", 0.2, ""),
    ("brightness", 0.1, "light and cameras differ"),
    ("contrast", 0.2, ""),
)
_AUGMENTATIONS: dict[str, tuple[tuple[str, Any, str], ...]] = {
    "ct": (("flip", [], "no mirroring: left and right of a body differ"),),
    "mr": (("flip", [], "no mirroring: left and right of a body differ"), ("contrast", 0.2, "scanners differ")),
    "fundus": (
        ("flip", ["left-right", "up-down"], "vessels look alike mirrored and turned"),
        ("rotate_degrees", 180, ""),
    ),
    "dermoscopy": (
        ("flip", ["left-right", "up-down"], "skin has no upright direction"),
        ("rotate_degrees", 180, ""),
        *_COLOURS,
    ),
    "photograph": (("flip", [], "no mirroring: it is not known whether left and right differ"), *_COLOURS),
    "other": (("flip", [], "no mirroring: it is not known whether left and right differ"),),
}


def split_choices(data: Summary) -> list[Choice]:
    """Section ``data.split``."""
    groups = data.num_groups
    test, validation = "test" in data.parts, "validation" in data.parts
    if groups < 2:
        return [
            Choice("data.split.validation", 0, "one patient only: all cases train, and the last epoch is kept"),
            Choice("data.split.test", 0, ""),
        ]
    choices = []
    # The smallest share that gives each part a group of its own.
    share = 0.2 if groups > 3 else 0.5 if groups == 2 else 0.34
    if validation:
        reason = "the data set has its own; this share is used for nothing else"
    elif groups <= 10:
        number = max(1, round(share * groups))
        reason = f"{number} of {groups} patients: with so few, the choice of the checkpoint says little; name other patients to compare"
    else:
        reason = f"a share of the {groups} patients; it chooses the checkpoint"
    choices.append(Choice("data.split.validation", share, reason))
    if test:
        choices.append(Choice("data.split.test", 0.0, "the data set has its own test cases"))
    elif groups < 3:
        choices.append(Choice("data.split.test", 0.0, f"{groups} patients are too few to hold some out for a test"))
    else:
        choices.append(Choice("data.split.test", share, "never seen in training: what the network is worth"))
    return choices


def learning_rate_choice(data: Summary, num_steps: int) -> Choice:
    """``training.learning_rate``."""
    if data.image_dims == 3 and num_steps < _SHORT_STEPS:
        return Choice(
            "training.learning_rate",
            2e-3,
            f"for AdamW; {num_steps} steps are few, and a higher rate gets further in them",
        )
    return Choice("training.learning_rate", 1e-3, "for AdamW, falling along a cosine to a hundredth")


_SHORT_STEPS = 4000
