"""The one way from a prepared image to class indices and probabilities: the Segmenter and validation both use it.

Reading and preparing images is not done here (segmenter.py), nor how windows are placed and blended (windows.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from r2seg.config import Config, Window
from r2seg.data.geometry import WorkingGrid, unresample
from r2seg.data.preprocessing import PreparedImage, SliceStack
from r2seg.devices import autocast, autocast_dtype
from r2seg.errors import UserError, entry_of
from r2seg.inference.postprocessing import postprocess
from r2seg.inference.slabs import SlicedImage
from r2seg.inference.windows import WindowInferer


def _softmax(logits: Tensor) -> Tensor:
    return logits.softmax(0)


def _largest(scores: Tensor, _: float) -> Tensor:
    return scores.argmax(0)


def _largest_above(scores: Tensor, threshold: float) -> Tensor:
    best, index = scores.max(0)
    return torch.where(best > threshold, index + 1, 0)


# For each value of network.output: logits (K, ...) -> probabilities, and scores (K, ...) with a threshold -> class indices (...).
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"softmax": _softmax, "sigmoid": torch.sigmoid}
DECISIONS: dict[str, Callable[[Tensor, float], Tensor]] = {"softmax": _largest, "sigmoid": _largest_above}


def to_probabilities(logits: Tensor, output: str) -> Tensor:
    """Probabilities (K, ...) of logits (K, ...): the only place with softmax and sigmoid."""
    return entry_of(ACTIVATIONS, output, "network.output")(logits)


def to_indices(scores: Tensor, output: str, threshold: float, overlapping: bool = False) -> Tensor:
    """Class indices (...) uint8 of scores (K, ...) that increase with the probabilities.

    Softmax: the largest. Sigmoid: the largest if it exceeds the threshold (in units of the scores), else background; with
    ``overlapping``, the bits (`label_mask`) of all labels that exceed it.
    """
    if overlapping:
        weights = 1 << torch.arange(len(scores), device=scores.device)
        return ((scores > threshold).movedim(0, -1) * weights).sum(-1).to(torch.uint8)
    return entry_of(DECISIONS, output, "network.output")(scores, threshold).to(torch.uint8)


def predict(
    network: nn.Module,
    image: SlicedImage,
    grid: WorkingGrid,
    inferer: WindowInferer,
    output: str,
    *,
    device: torch.device,
    overlapping: bool = False,
    dtype: torch.dtype | None = None,
    probabilities: bool = False,
    on_slab: Callable[[float], None] | None = None,
    on_probabilities: Callable[[tuple[slice, ...], Tensor], None] | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Class indices and, on request, probabilities of an image on its oriented grid.

    Windows are predicted slab by slab; if the grid was resampled, probabilities (not labels) are interpolated back.

    Args:
        network: In evaluation mode, on its device.
        image: The prepared image.
        grid: The way back from the working grid.
        inferer: Slides the windows.
        output: "softmax" or "sigmoid".
        device: Where the network is.
        overlapping: Whether labels may overlap: the indices then hold bits (`label_mask`).
        dtype: Lower-precision type of the network's arithmetic; everything after it is float32.
        probabilities: Also keep the probabilities, as float32.
        on_slab: Called with the fraction that is done, for progress.
        on_probabilities: Called with each slab's place in (*S) and its probabilities (K, ...), which are not kept.

    Returns:
        Indices (*S) uint8 and probabilities (K, *S) or None.

    Raises:
        UserError: The network's logits are not finite.
    """
    axis = inferer.stream_axis(grid.shape)
    indices = np.zeros(grid.oriented_shape, dtype=np.uint8)
    kept: np.ndarray | None = None
    # Without interpolation the argmax of logits is that of probabilities: skip the exponentials.
    raw = not (grid.resampled or probabilities or on_probabilities)

    def run_network(windows: Tensor) -> Tensor:
        with autocast(device, dtype):
            return network(windows)

    def scores() -> Iterator[tuple[slice, Tensor]]:
        for part, logits in inferer.stream(image, run_network, device=device):
            _check_finite(logits, part.start, axis, grid, dtype)
            yield part, logits if raw else to_probabilities(logits, output)

    for part, slab in unresample(scores(), grid, axis):
        place = (*(slice(None),) * axis, part)
        indices[place] = to_indices(slab, output, 0.0 if raw else 0.5, overlapping).cpu().numpy()
        if probabilities:
            if kept is None:
                kept = np.empty((len(slab), *grid.oriented_shape), dtype=np.float32)
            kept[(slice(None), *place)] = slab.cpu().numpy()
        if on_probabilities:
            on_probabilities(place, slab)
        if on_slab:
            on_slab(part.stop / grid.oriented_shape[axis])
    return indices, kept


def _check_finite(logits: Tensor, start: int, axis: int, grid: WorkingGrid, dtype: torch.dtype | None) -> None:
    """Refuses NaN and infinite logits, which would silently become background.

    Args:
        logits: A slab (K, ...) on the working grid.
        start: Where the slab begins along ``axis``.
        axis: The streaming axis.
        grid: The working grid, to name the voxel of the file.
        dtype: The precision that the network computed in.

    Raises:
        UserError: Some are; names the first voxel and what to try.
    """
    if logits.sum().isfinite():  # one pass without a mask; a sum that overflows is looked at closely
        return
    places = (~logits.isfinite()).any(0).nonzero()
    if not len(places):
        return
    index = places[0].tolist()
    index[axis] += start
    voxel = grid.file_voxel(index)
    if dtype is None:
        remedy = "the network computed in float32: look at the image's intensities there, or at the run's weights"
    else:
        name = str(dtype).removeprefix("torch.")
        remedy = f"the network computed in {name}: try infer.precision=float32 (r2seg-infer --precision float32)"
    raise UserError(f"the network's logits are NaN or infinite in the window around voxel {voxel}; {remedy}")


def segment_prepared(
    network: nn.Module,
    image: PreparedImage,
    grid: WorkingGrid,
    inferer: WindowInferer,
    config: Config,
    *,
    device: torch.device,
    precision: str | None = None,
    probabilities: bool = False,
    on_slab: Callable[[float], None] | None = None,
    on_probabilities: Callable[[tuple[slice, ...], Tensor], None] | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """``predict`` and the config's postprocessing: everything that inference and validation do to a prepared image.

    ``precision`` is by default the config's ``infer.precision``.
    """
    shown: SlicedImage = image
    if config.window.neighbours:
        shown = SliceStack(image, inferer.stream_axis(grid.shape), config.window.neighbours)
    indices, kept = predict(
        network,
        shown,
        grid,
        inferer,
        config.network.output,
        device=device,
        overlapping=config.data.overlapping,
        dtype=autocast_dtype(device, precision or config.infer.precision),
        probabilities=probabilities,
        on_slab=on_slab,
        on_probabilities=on_probabilities,
    )
    return postprocess(indices, config.postprocessing, config.data.labels, overlapping=config.data.overlapping), kept


def inferer_of(
    window: Window, image_dims: int, *, overlap: float | None = None, batch_size: int | None = None
) -> WindowInferer:
    """The inferer of a config's window section.

    Args:
        window: The section; 2-D windows without a plane lie axially in volumes.
        image_dims: 2 for pictures, 3 for volumes.
        overlap: Default: the section's.
        batch_size: Default: the section's.
    """
    plane = window.plane_in_volumes if len(window.size) < image_dims else None
    return WindowInferer(
        window.size,
        plane,
        overlap=window.overlap if overlap is None else overlap,
        batch_size=window.batch_size if batch_size is None else batch_size,
        blend=window.blend,
    )
