"""Run folder + image -> label map on the image's own grid.

``predict`` is the one way from a prepared image to class indices: the Segmenter, and with it validation, go through it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from r2seg.config import Config, Window
from r2seg.data.geometry import WorkingGrid, unresample
from r2seg.data.images import Image, read_image, write_label_map, write_probabilities
from r2seg.data.preprocessing import PreparedImage, prepare_image
from r2seg.devices import autocast, autocast_dtype, resolve_device
from r2seg.errors import UserError
from r2seg.inference.postprocessing import postprocess
from r2seg.inference.windows import WindowInferer
from r2seg.run import BEST, Run


@dataclass(frozen=True)
class Segmentation:
    """A predicted label map.

    Attributes:
        indices: Class indices (*S) uint8 on the file's grid: 0 background, 1..K the labels in order.
        labels: Name -> value(s) in files.
        image: The input.
        probabilities: (channels, *S) float32 on the file's grid where they were asked for: with softmax, background first.
    """

    indices: np.ndarray
    labels: dict[str, tuple[int, ...]]
    image: Image = field(repr=False)
    probabilities: np.ndarray | None = field(default=None, repr=False)

    def write(self, path: Path) -> None:
        """Writes the label map with the input's own header."""
        write_label_map(path, self.indices, self.image, self.labels)

    def write_probabilities(self, path: Path) -> None:
        """Writes the probabilities, classes last, as uint16 of scale 1/65535."""
        write_probabilities(path, self.probabilities, self.image)


def to_probabilities(logits: Tensor, output: str) -> Tensor:
    """Probabilities (K, ...) of logits (K, ...): the one place of softmax and sigmoid."""
    return logits.softmax(0) if output == "softmax" else logits.sigmoid()


def to_indices(scores: Tensor, output: str, threshold: float) -> Tensor:
    """Class indices (...) uint8 of scores (K, ...) that rise with the probabilities.

    Softmax: the largest. Sigmoid: the largest where it exceeds the threshold (in the unit of the scores), else background.
    """
    if output == "softmax":
        return scores.argmax(0).to(torch.uint8)
    best, index = scores.max(0)
    return torch.where(best > threshold, index + 1, 0).to(torch.uint8)


def predict(
    network: nn.Module,
    image: PreparedImage,
    grid: WorkingGrid,
    inferer: WindowInferer,
    output: str,
    *,
    device: torch.device,
    dtype: torch.dtype | None = None,
    probabilities: bool = False,
    on_slab: Callable[[float], None] | None = None,
    on_probabilities: Callable[[tuple[slice, ...], Tensor], None] | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Class indices and, on request, probabilities of an image on its oriented grid.

    Windows are predicted slab by slab; where the grid was resampled, probabilities (not labels) are interpolated back.

    Args:
        network: In evaluation mode, on its device.
        image: The prepared image.
        grid: The way back from the working grid.
        inferer: Slides the windows.
        output: "softmax" or "sigmoid".
        device: Where the network is.
        dtype: Lower-precision type of the network's arithmetic alone; what follows it is float32.
        probabilities: Also keep them, as float32.
        on_slab: Called with the share that is done, for progress.
        on_probabilities: Called with each slab's place in (*S) and its probabilities (K, ...), which are not kept.

    Returns:
        Indices (*S) uint8 and probabilities (K, *S) or None.
    """
    axis = inferer.stream_axis(grid.shape)
    indices = np.zeros(grid.oriented_shape, dtype=np.uint8)
    kept: np.ndarray | None = None
    # The argmax of logits and of probabilities is one where nothing is interpolated: skip the exponentials.
    raw = not (grid.resampled or probabilities or on_probabilities)

    def run_network(windows: Tensor) -> Tensor:
        with autocast(device, dtype):
            return network(windows)

    def scores() -> Iterator[tuple[slice, Tensor]]:
        for part, logits in inferer.stream(image, run_network, device=device):
            yield part, logits if raw else to_probabilities(logits, output)

    for part, slab in unresample(scores(), grid, axis):
        place = (*(slice(None),) * axis, part)
        indices[place] = to_indices(slab, output, 0.0 if raw else 0.5).cpu().numpy()
        if probabilities:
            if kept is None:
                kept = np.empty((len(slab), *grid.oriented_shape), dtype=np.float32)
            kept[(slice(None), *place)] = slab.cpu().numpy()
        if on_probabilities:
            on_probabilities(place, slab)
        if on_slab:
            on_slab(part.stop / grid.oriented_shape[axis])
    return indices, kept


def segment_prepared(
    network: nn.Module,
    image: PreparedImage,
    grid: WorkingGrid,
    inferer: WindowInferer,
    config: Config,
    *,
    device: torch.device,
    probabilities: bool = False,
    on_slab: Callable[[float], None] | None = None,
    on_probabilities: Callable[[tuple[slice, ...], Tensor], None] | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """``predict`` and the config's postprocessing: the whole of what inference and validation do to a prepared image."""
    indices, kept = predict(
        network,
        image,
        grid,
        inferer,
        config.network.output,
        device=device,
        dtype=autocast_dtype(device, config.infer.precision),
        probabilities=probabilities,
        on_slab=on_slab,
        on_probabilities=on_probabilities,
    )
    return postprocess(indices, config.postprocessing, config.data.labels), kept


def inferer_of(
    window: Window, image_dims: int, *, overlap: float | None = None, batch_size: int | None = None
) -> WindowInferer:
    """The inferer of a config's window section for pictures (2) or volumes (3); volumes without a plane are read axially."""
    plane = window.plane_in_volumes if len(window.size) < image_dims else None
    return WindowInferer(
        window.size,
        plane,
        overlap=window.overlap if overlap is None else overlap,
        batch_size=batch_size or window.batch_size,
        blend=window.blend,
    )


class Segmenter:
    """A trained network with the preprocessing and windows it was trained with.

    Args:
        network: Trained network.
        config: Its run's config.
        in_channels: Channels a case must have.
        image_dims: 2 for pictures, 3 for volumes: what it was trained on.
        device: Where it computes.
        overlap: Window overlap instead of the run's.
        batch_size: Windows at a time instead of the run's.
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
    ) -> None:
        self.network = network.to(device).eval()
        self.config = config
        self.in_channels = in_channels
        self.image_dims = image_dims
        self.device = device
        self.inferer = inferer_of(config.window, image_dims, overlap=overlap, batch_size=batch_size)
        autocast_dtype(device, config.infer.precision)  # a precision the device has not is told now

    @classmethod
    def from_run(
        cls,
        path: str | os.PathLike[str],
        device: str | torch.device = "auto",
        *,
        overlap: float | None = None,
        batch_size: int | None = None,
    ) -> Segmenter:
        """The segmenter of a run's best checkpoint. Needs neither the training data nor a network.

        Raises:
            UserError: The folder is no run, or its checkpoint is missing or damaged.
        """
        run = Run.open(path)
        network = run.build_network()
        checkpoint = run.load_checkpoint(BEST)
        try:
            network.load_state_dict(checkpoint["network"])
        except (KeyError, RuntimeError) as error:
            raise UserError(
                f"{run.path / BEST} does not fit the network of {run.path / 'config.yaml'}: {str(error).splitlines()[0]}"
            ) from error
        manifest = run.manifest
        return cls(
            network,
            run.config,
            in_channels=manifest["in_channels"],
            image_dims=manifest["image_dims"],
            device=device if isinstance(device, torch.device) else resolve_device(device),
            overlap=overlap,
            batch_size=batch_size,
        )

    @torch.inference_mode()
    def segment(
        self,
        image: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Image,
        *,
        probabilities: bool = False,
        on_slab: Callable[[float], None] | None = None,
    ) -> Segmentation:
        """The label map of one case.

        Args:
            image: A file, the files of the case's channels, or a read image.
            probabilities: Also return them.
            on_slab: Called with the share that is done, for progress.

        Raises:
            UserError: The image cannot be read, or has other channels or axes than the training's.
        """
        if not isinstance(image, Image):
            image = read_image(image)
        self._refuse_other_kind(image)
        prepared = prepare_image(image, self.config.preprocessing)
        indices, kept = segment_prepared(
            self.network,
            prepared,
            prepared.grid,
            self.inferer,
            self.config,
            device=self.device,
            probabilities=probabilities,
            on_slab=on_slab,
        )
        labels = self.config.data.labels
        restore = prepared.grid.restore_orientation
        return Segmentation(restore(indices), dict(labels), image, None if kept is None else restore(kept))

    def _refuse_other_kind(self, image: Image) -> None:
        if image.num_channels != self.in_channels:
            raise UserError(
                f"{image.path} has {image.num_channels} channel{'s' * (image.num_channels != 1)} and the run was trained on {self.in_channels}"
            )
        if image.spatial_dims != self.image_dims:
            kinds = {2: "a picture of two axes", 3: "a volume of three axes"}
            trained = {2: "pictures of two axes", 3: "volumes of three axes"}
            raise UserError(
                f"{image.path} is {kinds[image.spatial_dims]} and the run was trained on {trained[self.image_dims]}"
            )
