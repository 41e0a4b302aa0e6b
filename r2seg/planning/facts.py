"""What a plan is made from: the data in a few numbers, the machine, and what the user asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from r2seg.planning.looks import Kind, Look

if TYPE_CHECKING:
    import torch

# Load of other programs, as a share of the cores, from which measured times say little.
_BUSY_SHARE = 0.3
# Working axes of volumes
_AXIS_OF = {"L": 0, "R": 0, "P": 1, "A": 1, "I": 2, "S": 2}


@dataclass(frozen=True)
class Choice:
    """A setting with its reason.

    Attributes:
        key: Dotted key of the config.
        value: As YAML holds it.
        reason: Why, in one line; "" where it needs none.
    """

    key: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Summary:
    """A data set in a few numbers.

    Attributes:
        kind: What the images are.
        image_dims: 2 for pictures, 3 for volumes.
        num_channels: Of an image.
        num_cases: Labelled cases.
        num_groups: Patients.
        parts: Parts of the split that the data set fixes, such as {"train", "test"}.
        shapes: (N, image_dims) sizes; of volumes along R, A and S.
        spacings_mm: (N, 3) along R, A and S, or None if some volumes state none, and for pictures.
        labelled_values: Values of the first channel below the labels, of all cases.
        labelled_share: Share of the counted voxels that is labelled.
        has_masks: Whether all cases have a field of view.
    """

    kind: Kind
    image_dims: int
    num_channels: int
    num_cases: int
    num_groups: int
    parts: frozenset[str]
    shapes: np.ndarray
    spacings_mm: np.ndarray | None
    labelled_values: np.ndarray
    labelled_share: float
    has_masks: bool

    @classmethod
    def of(
        cls,
        looks: Sequence[Look],
        kind: Kind,
        *,
        num_cases: int,
        num_groups: int,
        parts: frozenset[str],
        has_masks: bool,
    ) -> Summary:
        """Of the cases that could be read; those with other axes or channels than most are left out, and training refuses them."""
        dims = max({2, 3}, key=lambda n: sum(len(look.facts.shape) == n for look in looks))
        alike = [look for look in looks if len(look.facts.shape) == dims]
        channels = [look.facts.num_channels for look in alike]
        spacings = [look.facts.spacing_mm for look in alike]
        known = dims == 3 and all(spacing is not None and len(spacing) == 3 for spacing in spacings)
        counted = sum(look.facts.num_counted for look in alike)
        return cls(
            kind=kind,
            image_dims=dims,
            num_channels=max(set(channels), key=channels.count),
            num_cases=num_cases,
            num_groups=num_groups,
            parts=parts,
            shapes=np.array([_oriented(look) for look in alike]),
            spacings_mm=np.array(spacings, dtype=float) if known else None,
            labelled_values=np.concatenate([look.labelled for look in alike]),
            labelled_share=sum(sum(look.facts.foreground.values()) for look in alike) / max(1, counted),
            has_masks=has_masks,
        )


def _oriented(look: Look) -> tuple[int, ...]:
    """The size along R, A and S, where the file says which axis is which."""
    shape, orientation = look.facts.shape, look.facts.orientation
    if orientation is None:
        return shape
    sizes = {_AXIS_OF[letter]: size for letter, size in zip(orientation, shape, strict=True)}
    return tuple(sizes[axis] for axis in range(3))


@dataclass(frozen=True)
class Machine:
    """Where the plan is to train.

    Attributes:
        device: "cpu", "cuda" or "mps".
        memory: Bytes that are free on the device.
        about: In words.
        is_busy: Whether other programs were using it.
    """

    device: str
    memory: int
    about: str
    is_busy: bool = False

    @property
    def is_fast(self) -> bool:
        """Whether it is a GPU."""
        return self.device != "cpu"

    @classmethod
    def of(cls, device: torch.device) -> Machine:
        """The machine of a torch device as it is now."""
        import torch

        from r2seg.devices import describe_device

        if device.type == "cuda":
            memory = torch.cuda.mem_get_info(device)[0]
        else:
            memory = _free_host_memory()
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        busy = load > _BUSY_SHARE * (os.cpu_count() or 1) + 1  # 1: this program itself
        return cls(device.type, memory, f"{describe_device(device)}, {memory / 2**30:.0f} GiB free", busy)


def _free_host_memory() -> int:
    """Bytes that programs can still have; half of the memory where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            table = dict(line.split(":", 1) for line in file)
        return int(table["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2 if hasattr(os, "sysconf") else 4 * 2**30


@dataclass(frozen=True)
class Wishes:
    """What the user asked for.

    Attributes:
        dims: 2 or 3, or None to let the data decide.
        budget_seconds: How long the training may take.
        budget_given: Whether the user said so, or it is the default.
    """

    dims: int | None
    budget_seconds: float
    budget_given: bool
