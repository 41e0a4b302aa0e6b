"""Data sets for MONAI's and torch's loaders: windows and slices of cases, and known data sets by name, as they are unpacked.

Items of cases are the dictionaries of ``list_cases``. How windows are drawn is in sampling.py, where preprocessed cases are kept in
cache.py, and how files are named in layouts/; nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from monai.data import CacheDataset
from monai.transforms import Randomizable
from torch.utils.data import Dataset

from r2seg.config import Config, Data
from r2seg.data.cache import CachedCase, cache_cases
from r2seg.data.cases import as_dictionary, as_written, case_of
from r2seg.data.geometry import PLANES
from r2seg.data.layouts import LAYOUTS, find_cases
from r2seg.data.load_cased import LoadCased
from r2seg.data.preprocessing import SliceStack
from r2seg.data.sampling import WindowSampler
from r2seg.data.splits import draw_split
from r2seg.errors import UserError, entry_of

LabelValues = Mapping[str, int | Sequence[int]]


class SliceDataset(Dataset):
    """Windows of cases, drawn with foreground balance, or every slice of them: 2-D training on volumes without exported files.

    Cases are preprocessed once, as ``r2seg-train`` does it, and kept in ``cache_dir``; an item reads only the part that it holds.
    With ``size`` and ``num_windows``, item i is a window that is drawn as in ``r2seg-train``: item by item, the share
    ``foreground`` of the windows holds a labelled voxel. Without them, item i is slice i of all slices of all volumes, in order; of
    pictures, the whole picture.

    Item i follows from (seed, epoch, i) alone, whatever the workers and the order, random transforms included: they are seeded
    for each item. ``set_epoch`` before each epoch gives other windows.

    Args:
        items: Labelled cases, as ``list_cases`` gives them.
        labels: Name -> value or values in the label files, in class order.
        cache_dir: Folder for preprocessed cases; it can be shared by data sets, runs and processes.
        size: Size of the windows: two numbers for slices and pictures, three for boxes.
        num_windows: Windows per epoch: the length of the data set.
        plane: Plane of 2-D windows and slices in volumes: "axial", "coronal" or "sagittal".
        neighbours: Neighbouring slices on each side that come as further channels (2.5-D).
        foreground: Share of windows that are certain to hold a labelled voxel.
        preprocessing: The section of a config, such as ``{"intensity": {"kind": "zscore"}, "spacing_mm": [1, 1, 3]}``.
        augmentation: The section of a config, such as ``{"rotate_degrees": 10, "scale": 0.1}``; by default nothing is changed.
            Windows that reach beyond their image have the label 255 there.
        ignore_label: Value in the label files of pixels that are neither trained on nor scored.
        transform: Applied to each item, such as a ``Compose`` of MONAI's dictionary transforms.
        seed: Seed of everything random.

    Shape: an item is {"image": (C, *size) float32, "label": (1, *size) int64 class indices, "case": id}; without ``size``,
    the slice's own size, and "slice" has its number.

    Raises:
        UserError: Files cannot be used, with one line each.
        pydantic.ValidationError: A setting that a config would refuse too.
        ValueError: Only one of ``size`` and ``num_windows``, or ``augmentation`` without them.
    """

    def __init__(
        self,
        items: Sequence[Mapping[str, Any]],
        labels: LabelValues,
        *,
        cache_dir: str | Path,
        size: Sequence[int] | None = None,
        num_windows: int | None = None,
        plane: str | None = None,
        neighbours: int = 0,
        foreground: float = 0.5,
        preprocessing: Mapping[str, Any] | None = None,
        augmentation: Mapping[str, Any] | None = None,
        ignore_label: int | None = None,
        transform: Callable[[dict[str, Any]], Any] | None = None,
        seed: int = 0,
    ) -> None:
        if (size is None) != (num_windows is None):
            raise ValueError("give both size and num_windows for windows, or none of them for every slice")
        if size is None and augmentation:
            raise ValueError("augmentation is for windows: give size and num_windows too")
        still = dict.fromkeys(("rotate_degrees", "scale", "brightness", "contrast", "noise"), 0)
        section = {
            "name": "slices",
            "seed": seed,
            "data": {"root": ".", "labels": as_written(labels), "ignore_label": ignore_label},
            "preprocessing": as_written(preprocessing or {}),
            "window": {"size": list(size or (1, 1)), "plane": plane, "neighbours": neighbours, "batch_size": 1},
            "sampling": {"windows_per_epoch": num_windows or 1, "foreground": foreground},
            "augmentation": {**still, **as_written(augmentation or {})},
        }
        self.config = Config.model_validate(section)
        self.draws_windows = size is not None
        self.cache_dir = Path(cache_dir).resolve()
        self.transform = transform
        self.epoch = 0
        self._items = [dict(item) for item in items]
        self._open()

    def _open(self) -> None:
        cases = cache_cases([case_of(item) for item in self._items], self.config, self.cache_dir)
        config = self.config
        self._sampler = WindowSampler(
            cases, config.window, config.sampling, config.augmentation, seed=config.seed, device=torch.device("cpu")
        )
        self._slices = [(case, index) for case in cases for index in range(self._num_slices(case))]

    def __getstate__(self) -> dict[str, Any]:
        # Memory-mapped arrays would be copied into the pickle: another process opens the cache itself.
        return {name: value for name, value in vars(self).items() if name not in ("_sampler", "_slices")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    @property
    def _axis(self) -> int:
        return PLANES[self.config.window.plane_in_volumes]

    def _num_slices(self, case: CachedCase) -> int:
        return case.label.shape[self._axis] if case.label.ndim == 3 else 1

    def set_epoch(self, epoch: int) -> None:
        """Draws the windows of another epoch from now on; loaders with persistent workers do not notice."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.config.sampling.windows_per_epoch if self.draws_windows else len(self._slices)

    def __getitem__(self, index: int) -> Any:
        length = len(self)
        if not -length <= index < length:
            raise IndexError(f"item {index} of {length}")
        index %= length
        item = self._window(index) if self.draws_windows else self._slice(index)
        if self.transform is None:
            return item
        if isinstance(self.transform, Randomizable):
            seeds = np.random.SeedSequence([self.config.seed, self.epoch, index, 4])
            self.transform.set_random_state(int(seeds.generate_state(1)[0]))
        return self.transform(item)

    def _window(self, index: int) -> dict[str, Any]:
        drawn = self._sampler.batch(self.epoch, index)
        return {"image": drawn["image"][0], "label": drawn["label"], "case": drawn["case"][0]}

    def _slice(self, index: int) -> dict[str, Any]:
        case, number = self._slices[index]
        if case.label.ndim == 2:
            image, label = case.prepared[:], case.label
        else:
            parts = tuple(slice(number, number + 1) if axis == self._axis else slice(None) for axis in range(3))
            stack = SliceStack(case.prepared, self._axis, self.config.window.neighbours)
            image = stack[(slice(None), *parts)].squeeze(1 + self._axis)
            label = case.label.take(number, axis=self._axis)
        indices = torch.from_numpy(np.ascontiguousarray(label).astype(np.int64))[None]
        return {"image": image, "label": indices, "case": case.id, "slice": number}


# Section of a data set, in the words of monai.apps, -> part of a split.
SECTIONS = {"training": "train", "validation": "validation", "test": "test"}


class CaseDataset(CacheDataset):
    """The cases of one section of a data set as it is unpacked, in the manner of ``monai.apps.DecathlonDataset``.

    The test and validation cases are the official ones where the data set has them; else they are drawn by patient with the seed.
    Copies of one image stay in one section. Nothing is downloaded.

    Args:
        root: Folder of the data set.
        section: "training", "validation" or "test".
        transform: Applied to the dictionary of each case; default: ``LoadCased`` of image and label.
        labels: Name -> value or values in the label files, in class order; default: those that the data set documents.
        validation: Share of the patients for validation if the data set has no validation cases of its own.
        test: Share of the patients for test if the data set has no test cases of its own.
        seed: Seed of the draw.
        options: Of ``monai.data.CacheDataset``, such as ``cache_rate=0.0``, ``num_workers=4``, ``progress=False``.

    Attributes:
        labels: Name -> value or values, in class order: classes are 1..K.
        items: The dictionaries of the section's cases.

    Raises:
        UserError: Files are missing or wrong, the section is unknown or has no cases, or labels are needed.
    """

    layout: ClassVar[str]

    def __init__(
        self,
        root: str | Path,
        section: str,
        transform: Sequence[Callable] | Callable | None = None,
        *,
        labels: LabelValues | None = None,
        validation: float = 0.2,
        test: float = 0.0,
        seed: int = 0,
        **options: Any,
    ) -> None:
        part = entry_of(SECTIONS, section, "section")
        known = LAYOUTS[self.layout]
        if labels is None and known.labels is None:
            raise UserError(f"{type(self).__name__} has no fixed labels: give labels, such as labels={{'lung': 1}}")
        self.labels: dict[str, int | Sequence[int]] = dict(labels or known.labels or {})
        data = Data.model_validate(
            {
                "root": str(root),
                "layout": self.layout,
                "labels": as_written(self.labels),
                "split": {"validation": float(validation), "test": float(test)},
            }
        )
        parts = draw_split(find_cases(data), data.split, seed).parts
        self.items = [as_dictionary(case) for case in parts[part]]
        if not self.items:
            counts = ", ".join(f"{name} {len(parts[of])}" for name, of in SECTIONS.items())
            raise UserError(f"{root} has no {section} cases ({counts}): give {part}=0.2 to draw some")
        if transform is None:
            transform = LoadCased(("image", "label"), self.labels, ignore_label=known.ignore_label)
        super().__init__(self.items, transform, **{"progress": False, **options})


class FolderDataset(CaseDataset):
    """Any images/ and labels/; ``labels`` must be given; see ``CaseDataset``."""

    layout = "folder"


class DRIVE(CaseDataset):
    """DRIVE: retinal vessels, official test set; see ``CaseDataset``."""

    layout = "drive"


class STARE(CaseDataset):
    """STARE: retinal vessels; see ``CaseDataset``."""

    layout = "stare"


class CHASEDB1(CaseDataset):
    """CHASE_DB1: retinal vessels of both eyes of children; see ``CaseDataset``."""

    layout = "chase_db1"


class HRF(CaseDataset):
    """HRF: retinal vessels at high resolution; see ``CaseDataset``."""

    layout = "hrf"


class ISIC(CaseDataset):
    """ISIC 2016, 2017 or 2018, task 1: skin lesions; see ``CaseDataset``."""

    layout = "isic"


class KaggleLung(CaseDataset):
    """Kaggle's Finding Lungs in CT Data; see ``CaseDataset``."""

    layout = "kaggle_lung"


class LCTSC(CaseDataset):
    """LCTSC 2017: organs of the chest in CT; ``labels`` must be given; see ``CaseDataset``."""

    layout = "lctsc"


class MSD(CaseDataset):
    """A task of the Medical Segmentation Decathlon; ``labels`` must be given; see ``CaseDataset``."""

    layout = "msd"


class NnUNet(CaseDataset):
    """A data set in nnU-Net's raw form; ``labels`` must be given; see ``CaseDataset``."""

    layout = "nnunet"


class VOC(CaseDataset):
    """Pascal VOC 2012; see ``CaseDataset``."""

    layout = "voc"
