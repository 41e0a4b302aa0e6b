"""Preprocessed cases on disk, memory-mapped: a window reads only what it holds, and memory does not grow with the data.

An entry is keyed by its files, those that a header names included, and settings, written to a folder beside and then renamed; a broken or stale one is never read.
Voxels keep the file's integer type if nothing is resampled: half the size of floats, and training sees exactly what inference sees.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from r2seg.data.cases import Case
from r2seg.data.formats.companions import companions
from r2seg.data.geometry import PLANES, WorkingGrid
from r2seg.data.images.mask_values import values_in
from r2seg.data.intensity import Intensity
from r2seg.data.preprocessing import PreparedImage
from r2seg.errors import UserError
from r2seg.labels import MOST_OVERLAPPING, colors_in_files
from r2seg.metrics import IGNORE, label_mask
from r2seg.workers import in_order, num_cores

if TYPE_CHECKING:
    from r2seg.config import Config

# Increased when the meaning of an entry's content changes, so that old entries are made again.
_VERSION = 4
# Labelled voxels kept for each label of a case: enough that windows around them cover it.
_REMEMBERED_VOXELS = 20_000
_MOST_WORKERS = 8


@dataclass(frozen=True)
class CachedCase:
    """A case after preprocessing; its arrays are memory-mapped.

    Attributes:
        id: The case's id.
        voxels: Working grid (C, *S) before the intensity map, in the file's type or float32.
        label: Class indices (*S) uint8 on the working grid, or bits of labels that overlap (`label_mask`).
        reference: Class indices on the oriented, not resampled grid: what validation scores.
        grid: The case's grid.
        intensity: The case's intensity map.
        spacing_mm: Voxel size of the working grid; ones for pictures.
        foreground: Class index of each label that occurs -> some of its voxels (N, len(S)).
        cut: Masks of the case that were smeared, by JPEG or resizing, and cut.
    """

    id: str
    voxels: np.ndarray
    label: np.ndarray
    reference: np.ndarray
    grid: WorkingGrid
    intensity: Intensity
    spacing_mm: tuple[float, ...]
    foreground: dict[int, np.ndarray]
    cut: tuple[Path, ...] = ()

    @property
    def prepared(self) -> PreparedImage:
        """The image as the network sees it: equal to ``prepare_image`` of the files."""
        return PreparedImage(self.voxels, WorkingGrid.of(self.grid.shape, None), self.intensity)


def cache_cases(
    cases: Sequence[Case],
    config: Config,
    folder: Path,
    on_case: Callable[[Case], None] | None = None,
    *,
    workers: int | None = None,
) -> list[CachedCase]:
    """Every case from the cache; entries that do not exist yet are made, several at a time.

    Args:
        cases: Labelled cases.
        config: Its data, preprocessing and window sections decide what an entry holds.
        folder: The cache's folder.
        on_case: Called after each case, in their order, for progress.
        workers: Cases at the same time. Default: torch's threads (``--threads``), but no more than the cores that this process
            may use, and at most 8, because each holds a whole case in memory.

    Raises:
        UserError: Some cases cannot be used; one line for each.
    """
    cached, problems = [], []

    def make(case: Case) -> CachedCase | str:
        try:
            return _cache_case(case, config, folder)
        except UserError as error:
            return str(error) if str(error).startswith(f"case {case.id}:") else f"case {case.id}: {error}"

    workers = workers or min(_MOST_WORKERS, torch.get_num_threads(), num_cores())
    for case, found in zip(cases, in_order(make, cases, workers), strict=True):
        if isinstance(found, str):
            problems.append(found)
        else:
            cached.append(found)
        if on_case:
            on_case(case)
    if problems:
        raise UserError("\n".join(problems))
    return cached


def _key(case: Case, config: Config, first: int) -> str:
    def state(path: Path | None) -> list[tuple[str, int, int]]:
        files = [] if path is None else [path, *companions(path)]
        return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]

    try:
        files = {"images": [*map(state, case.images)], "labels": [*map(state, case.labels)], "mask": state(case.mask)}
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from None
    facts = {
        "version": _VERSION,
        "files": files,
        # Their order numbers the classes; what they are drawn in changes nothing.
        "labels": [(name, tuple(label), colors_in_files(label)) for name, label in config.data.labels.items()],
        "overlapping": config.data.overlapping,
        "ignore_label": config.data.ignore_label,
        "preprocessing": config.preprocessing.model_dump(mode="json"),
        "first_axis": first,
        "series": config.data.series,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]


def _cache_case(case: Case, config: Config, folder: Path) -> CachedCase:
    # A slice of a plane is one piece of the file if that plane's axis comes first on disk.
    first = PLANES[config.window.plane_in_volumes] if config.spatial_dims == 2 else 0
    entry = folder / _key(case, config, first)
    if (entry / "meta.json").is_file():
        try:
            return _read_entry(case, entry, first)
        except (OSError, ValueError, KeyError, TypeError, EOFError):  # a crash or a full disk cut it short
            shutil.rmtree(entry, ignore_errors=True)
    _write_entry(case, config, entry, first)
    return _read_entry(case, entry, first)


def _read_entry(case: Case, entry: Path, first: int) -> CachedCase:
    meta = json.loads((entry / "meta.json").read_text())
    dims = len(meta["grid"]["shape"])
    first = first if dims == 3 else 0

    def load(name: str, lead: int) -> np.ndarray:
        # Copy on write: never written, but torch warns about arrays that are read-only.
        return np.moveaxis(np.load(entry / f"{name}.npy", mmap_mode="c"), lead, lead + first)

    foreground = np.load(entry / "foreground.npy")
    grid = WorkingGrid(**{name: tuple(value) for name, value in meta["grid"].items()})
    return CachedCase(
        id=case.id,
        voxels=load("voxels", 1),
        label=load("label", 0),
        reference=load("reference" if grid.resampled else "label", 0),
        grid=grid,
        intensity=Intensity(**{name: tuple(map(float, value)) for name, value in meta["intensity"].items()}),
        spacing_mm=tuple(meta["spacing_mm"]),
        foreground={int(index): foreground[foreground[:, 0] == index, 1:] for index in np.unique(foreground[:, 0])},
        cut=tuple(map(Path, meta["cut"])),
    )


def _write_entry(case: Case, config: Config, entry: Path, first: int) -> None:
    from r2seg.data.transforms import case_transforms

    try:
        sample = case_transforms(config.data, config.preprocessing)(case)
    except RuntimeError as error:  # MONAI wraps what a transform raises
        raise error.__cause__ if isinstance(error.__cause__, UserError) else error from None
    image, grid, label = sample["image"], sample["grid"], sample["label"]
    if config.spatial_dims == 3 and image.spatial_dims == 2:
        raise UserError(
            f"case {case.id}: is a picture, but window.size {list(config.window.size)} is 3-D: give two numbers"
        )
    first = first if image.spatial_dims == 3 else 0
    spacing_mm = (1.0,) * image.spatial_dims
    if image.affine is not None and image.spatial_dims == 3:
        own = [image.spacing_mm[axis] for axis in grid.order]
        spacing_mm = tuple(
            float(s * old / new) for s, old, new in zip(own, grid.oriented_shape, grid.shape, strict=True)
        )
    arrays = {"voxels": np.moveaxis(sample["voxels"], 1 + first, 1), "label": np.moveaxis(label, first, 0)}
    if grid.resampled:
        arrays["reference"] = np.moveaxis(sample["reference"], first, 0)
    arrays["foreground"] = _remember_foreground(label, overlapping=config.data.overlapping)
    meta = {
        "id": case.id,
        "grid": asdict(grid),
        "intensity": asdict(sample["intensity"]),
        "spacing_mm": spacing_mm,
        "cut": [str(path) for path in sample["cut"]],
    }

    draft = entry.parent / f".writing-{uuid.uuid4().hex}"
    try:
        draft.mkdir(parents=True)
        try:
            for name, array in arrays.items():
                np.save(
                    draft / f"{name}.npy",
                    np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False)),
                )
            (draft / "meta.json").write_text(json.dumps(meta))
            try:
                draft.rename(entry)
            except OSError:
                if not (entry / "meta.json").is_file():  # else another process was faster: its entry is just as good
                    shutil.rmtree(entry, ignore_errors=True)  # left by an interrupted removal
                    draft.rename(entry)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        # On a full disk numpy says "1288 requested and 992 written".
        reason = "No space left on device" if "requested and" in str(error) else error.strerror or error
        raise UserError(
            f"{entry.parent}: the preprocessed case {case.id} cannot be written: {reason}; "
            "set data.cache to a writable folder with enough space"
        ) from None


def _remember_foreground(label: np.ndarray, *, overlapping: bool = False) -> np.ndarray:
    """Rows (number of the label, *coordinates) of labelled voxels, the same on each call."""
    rng = np.random.default_rng(0)
    rows = [np.zeros((0, 1 + label.ndim), dtype=np.int32)]
    flat = label.reshape(-1)
    present = [index for index in values_in(flat) if index not in (0, IGNORE)]
    for index in range(1, MOST_OVERLAPPING + 1) if overlapping else present:
        places = np.flatnonzero(label_mask(flat, index, overlapping))
        if not len(places):
            continue
        if len(places) > _REMEMBERED_VOXELS:
            places = np.sort(rng.choice(places, _REMEMBERED_VOXELS, replace=False))
        voxels = np.stack(np.unravel_index(places, label.shape), axis=1)
        rows.append(np.concatenate([np.full((len(voxels), 1), index), voxels], axis=1).astype(np.int32))
    return np.concatenate(rows)
