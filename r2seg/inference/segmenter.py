"""Run folder + image -> label map on the image's own grid."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from r2seg.config import Config
from r2seg.data.contrast import num_channels_seen
from r2seg.data.field_of_view import find_field_of_view, read_field_of_view
from r2seg.data.images import Image, SeriesChoice, write_label_map, write_overlapping, write_probabilities
from r2seg.data.intensity_range import IntensityRange, ranges_of, unlike_training
from r2seg.data.preprocessing import PreparedImage, needs_field_of_view, prepare_image
from r2seg.devices import autocast_dtype, resolve_device
from r2seg.errors import UserError, counted
from r2seg.inference.inputs import read_input
from r2seg.inference.prediction import inferer_of, segment_prepared
from r2seg.metrics import label_mask
from r2seg.run import BEST, MANIFEST, Run


@dataclass(frozen=True)
class Found:
    """How much of a label was found.

    Attributes:
        voxels: Number of voxels or pixels.
        millilitres: Their volume; None for pictures and for volumes without geometry.
    """

    voxels: int
    millilitres: float | None = None


@dataclass(frozen=True)
class Segmentation:
    """A predicted label map.

    Attributes:
        indices: Class indices (*S) uint8 on the file's grid: 0 background, 1..K the labels in order; of labels that may overlap,
            bits: label k is bit k - 1, see `mask`.
        labels: Name -> value(s) in files.
        image: The input.
        probabilities: (channels, *S) float32 on the file's grid if they were requested: with softmax, background first.
        warnings: What may make the label map wrong: nothing was found, or intensities unlike those of the training cases.
        turned: Whether indices and probabilities have a picture's axes as (columns, rows), as a MetaTensor gave them.
        overlapping: Whether labels may overlap.
    """

    indices: np.ndarray
    labels: Mapping[str, tuple[int, ...]]
    image: Image = field(repr=False)
    probabilities: np.ndarray | None = field(default=None, repr=False)
    warnings: tuple[str, ...] = ()
    turned: bool = False
    overlapping: bool = False

    def mask(self, label: str) -> np.ndarray:
        """Where a label is, (*S) bool.

        Raises:
            KeyError: There is no such label.
        """
        if label not in self.labels:
            raise KeyError(label)
        return np.asarray(label_mask(self.indices, list(self.labels).index(label) + 1, self.overlapping))

    @property
    def found(self) -> dict[str, Found]:
        """How much of each label was found."""
        affine = self.image.affine if self.image.spatial_dims == 3 else None
        voxel_mm3 = None if affine is None else abs(float(np.linalg.det(affine[:3, :3])))
        found = {}
        for name in self.labels:
            voxels = int(np.count_nonzero(self.mask(name)))
            found[name] = Found(voxels, None if voxel_mm3 is None else voxels * voxel_mm3 / 1000)
        return found

    def write(self, path: Path) -> None:
        """Writes the label map with the input's own header; of labels that may overlap, as `write_overlapping` does."""
        write = write_overlapping if self.overlapping else write_label_map
        write(path, self._upright(self.indices), self.image, self.labels)

    def write_probabilities(self, path: Path) -> None:
        """Writes the probabilities, classes last, as uint16 with scale 1/65535.

        Raises:
            ValueError: They were not requested.
        """
        if self.probabilities is None:
            raise ValueError("there are no probabilities: segment with probabilities=True")
        write_probabilities(path, self._upright(self.probabilities), self.image)

    def _upright(self, array: np.ndarray) -> np.ndarray:
        return array.swapaxes(-1, -2) if self.turned else array


class Segmenter:
    """A trained network with the preprocessing and windows it was trained with.

    Args:
        network: Trained network.
        config: Its run's config.
        in_channels: Channels a case must have, after ``preprocessing.color``.
        image_dims: 2 for pictures, 3 for volumes: what it was trained on.
        device: Where it computes.
        overlap: Window overlap; default: the run's.
        batch_size: Windows per call of the network; default: the run's.
        intensity_range: The training cases' range of each channel; without it, unlike intensities give no warning.
        precision: A key of ``r2seg.devices.PRECISIONS``; default: the run's ``infer.precision``.

    Raises:
        UserError: The device does not support the precision.
    """

    def __init__(
        self,
        network: nn.Module,
        config: Config,
        *,
        in_channels: int,
        image_dims: int,
        device: torch.device,
        overlap: float | None = None,
        batch_size: int | None = None,
        precision: str | None = None,
        intensity_range: Sequence[IntensityRange] | None = None,
    ) -> None:
        self.network = network.to(device).eval()
        self.config = config
        self.in_channels = in_channels
        self.image_dims = image_dims
        self.device = device
        self.intensity_range = intensity_range
        self.inferer = inferer_of(config.window, image_dims, overlap=overlap, batch_size=batch_size)
        self.precision = precision or config.infer.precision
        autocast_dtype(device, self.precision)  # fails early if unsupported

    @classmethod
    def from_run(
        cls,
        path: str | os.PathLike[str],
        device: str | torch.device = "auto",
        *,
        overlap: float | None = None,
        batch_size: int | None = None,
        precision: str | None = None,
    ) -> Segmenter:
        """The segmenter of a run's best checkpoint. Needs neither the training data nor a network.

        Args:
            path: Run folder.
            device: A name for ``resolve_device``, or a device.
            overlap: Window overlap; default: the run's.
            batch_size: Windows per call of the network; default: the run's.
            precision: "auto", "float32", "bf16" or "fp16"; default: the run's ``infer.precision``.

        Raises:
            UserError: The folder is not a run folder, or its checkpoint is missing or damaged.
        """
        run = Run.open(path)
        network = run.build_network()
        checkpoint = run.load_checkpoint(BEST)
        try:
            network.load_state_dict(checkpoint["network"])
        except (RuntimeError, TypeError, AttributeError) as error:
            raise UserError(
                f"{run.path / BEST} does not fit the network of {run.path / 'config.yaml'}: {str(error).splitlines()[0]}"
            ) from error
        return cls(
            network,
            run.config,
            in_channels=run.in_channels,
            image_dims=run.image_dims,
            device=device if isinstance(device, torch.device) else resolve_device(device),
            overlap=overlap,
            batch_size=batch_size,
            precision=precision,
            intensity_range=_ranges_of(run),
        )

    @torch.inference_mode()
    def segment(
        self,
        image: Any,
        *,
        affine: np.ndarray | None = None,
        series: SeriesChoice = (),
        mask: str | os.PathLike[str] | None = None,
        probabilities: bool = False,
        on_slab: Callable[[float], None] | None = None,
    ) -> Segmentation:
        """The label map of one case.

        Images in memory are taken by these rules, and pass the same checks as files:

        - numpy arrays and torch tensors are channel-first, (C, *S), or (*S) for one channel, with S (rows, columns) of pictures and
          (X, Y, Z) of volumes. They have no geometry: give ``affine``, else a volume's axes are taken to run to the right,
          anterior and superior without resampling, which a warning of the segmentation says.
        - MetaTensors are channel-first too; their affine is used, in MONAI's RAS+ or as their metadata say. Pictures that MONAI's
          PILReader read as (C, columns, rows) are segmented upright; the indices have the tensor's axes.
        - nibabel images (channels last) and SimpleITK images (components; LPS+ geometry) are as their files.

        Args:
            image: A file, a folder with a DICOM series, the files of the case's channels, an ``Image``, or one of the images in memory above.
            series: Of a folder with several DICOM series: numbers or UIDs, of which exactly one must be there.
            affine: Of an array or tensor: (4, 4), voxel index -> RAS+ millimetres.
            mask: File of the field of view, on the image's grid; only runs that measure intensities inside of it use it. Without
                one, such a run finds it in the picture, and a warning of the segmentation says so if it was trained with masks.
            probabilities: Also return the probabilities.
            on_slab: Called with the fraction that is done, for progress.

        Raises:
            UserError: The image or the mask cannot be read, does not have the channels or axes that the run was trained on, or the network's
                logits are not finite.
        """
        given = read_input(image, self.image_dims, affine, series=series)
        image = given.image
        self._refuse_other_kind(image, given.in_memory)
        if given.in_memory:
            self._refuse_saturated(image)
        field_of_view, told = self._field_of_view(image, mask)
        prepared = prepare_image(image, self.config.preprocessing, field_of_view)
        try:
            indices, kept = segment_prepared(
                self.network,
                prepared,
                prepared.grid,
                self.inferer,
                self.config,
                device=self.device,
                precision=self.precision,
                probabilities=probabilities,
                on_slab=on_slab,
            )
        except UserError as error:
            raise UserError(f"{image.path}: {error}") from error
        labels = self.config.data.labels

        def restore(array: np.ndarray) -> np.ndarray:
            array = prepared.grid.restore_orientation(array)
            return array.swapaxes(-1, -2) if given.turned else array

        return Segmentation(
            restore(indices),
            dict(labels),
            image,
            None if kept is None else restore(kept),
            given.warnings + told + self._warnings(prepared, indices),
            given.turned,
            self.config.data.overlapping,
        )

    def _field_of_view(
        self, image: Image, mask: str | os.PathLike[str] | None
    ) -> tuple[np.ndarray | None, tuple[str, ...]]:
        """The field of view if the run needs one and its preprocessing does not find it, and what is to be told about it."""
        preprocessing = self.config.preprocessing
        if not needs_field_of_view(preprocessing):
            return None, ()
        if mask is not None:
            return read_field_of_view(Path(mask), image).array[0] > 0, ()
        if preprocessing.field_of_view == "find" or image.spatial_dims == 3:
            return None, ()
        found = find_field_of_view(image.array)
        share = "the whole picture, which has no dark border" if found is None else f"{found.mean():.0%} of the picture"
        told = f"it has no mask, and the run was trained with masks: its field of view was found, {share}"
        return np.ones(image.shape, dtype=bool) if found is None else found, (told,)

    def _warnings(self, prepared: PreparedImage, indices: np.ndarray) -> tuple[str, ...]:
        warnings = []
        if self.intensity_range is not None:
            values = prepared.grid.restore_orientation(prepared.oriented)  # in the file's order, as in training
            unlike = unlike_training(values, prepared.intensity, self.intensity_range)
            warnings += [] if unlike is None else [unlike]
        if not indices.any():
            warnings.append(f"nothing was found: no voxel of the label map is {' or '.join(self.config.data.labels)}")
        return tuple(warnings)

    def _refuse_saturated(self, image: Image) -> None:
        """Real numbers in memory are often a picture's bytes after a conversion: intensity "unit" would clip them all to 1."""
        if (
            self.config.preprocessing.intensity.kind == "unit"
            and image.array.dtype.kind == "f"
            and image.array.max() > 1
        ):
            raise UserError(
                f"{image.path}: holds real numbers up to {float(image.array.max()):g}, but the run expects them from 0 to 1 "
                "(intensity unit), or the integers of the file: convert it"
            )

    def _refuse_other_kind(self, image: Image, in_memory: bool) -> None:
        if num_channels_seen(image.num_channels, self.config.preprocessing) != self.in_channels:
            raise UserError(
                f"{image.path} has {counted(image.num_channels, 'channel')}, but the run was trained on {self.in_channels}"
                + ("; arrays have their channels first" if in_memory else "")
            )
        if image.spatial_dims != self.image_dims:
            kinds = {2: "a picture of two axes", 3: "a volume of three axes"}
            trained = {2: "pictures of two axes", 3: "volumes of three axes"}
            raise UserError(
                f"{image.path} is {kinds[image.spatial_dims]}, but the run was trained on {trained[self.image_dims]}"
            )


def _ranges_of(run: Run) -> list[IntensityRange] | None:
    """The intensity range of a run's training cases; None for a run that does not state it."""
    stated = run.manifest.get("intensity_range")
    if stated is None:
        return None
    try:
        ranges = ranges_of(stated)
        if len(ranges) != run.in_channels:
            raise ValueError(f"intensity_range has {len(ranges)} channels, expected {run.in_channels}")
    except ValueError as error:
        raise UserError(f"{run.path / MANIFEST}: {error}: the run is damaged") from None
    return ranges
