"""Weights of ``LeeJunHyun/Image_Segmentation``: U_Net, R2U_Net, AttU_Net, R2AttU_Net.

Its recurrence has one kernel for input and state and one BatchNorm for all passes; it upsamples by nearest neighbours and a
convolution. Its convolutions have a bias even before a BatchNorm; ours have none there, so that the bias goes into the
running mean, which leaves evaluation and further training as they were.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from r2seg.networks.base import SegmentationNetwork
from r2seg.networks.legacy.renaming import fill
from r2seg.networks.r2unet import AttentionR2UNet, R2UNet
from r2seg.networks.unet import AttentionUNet, PlainUNet

logger = logging.getLogger(__name__)

NUM_LEVELS = 5
_NETWORKS = {
    (False, False): PlainUNet,
    (True, False): R2UNet,
    (False, True): AttentionUNet,
    (True, True): AttentionR2UNet,
}


def convert(state_dict: Mapping[str, Tensor], *, steps: int | None = None) -> SegmentationNetwork:
    """Return the network of a state dict, which shows which of the four it is.

    Args:
        state_dict: As saved by the original, without prefixes.
        steps: The t of R2U_Net and R2AttU_Net. None reads it off the weights' counters of batches; if these are absent or
            zero, as in a network that was never trained, it is the original's default, 2.

    Raises:
        ValueError: Entries that are missing, superfluous or do not fit; they are named.
    """
    recurrent = any(key.startswith("RRCNN1.") for key in state_dict)
    gated = any(key.startswith("Att5.") for key in state_dict)
    layers = list(_layers(recurrent, gated))
    _check_keys(state_dict, layers)
    first = "RRCNN{}.Conv_1x1.weight" if recurrent else "Conv{}.conv.0.weight"
    kernels = [state_dict[first.format(level)] for level in range(1, NUM_LEVELS + 1)]
    options: dict[str, Any] = (
        {"steps": steps or _count_steps(state_dict), "recurrence": "shared", "norm_per_step": False}
        if recurrent
        else {}
    )
    network = _NETWORKS[recurrent, gated](
        2,
        kernels[0].shape[1],
        state_dict["Conv_1x1.weight"].shape[0],
        channels=[kernel.shape[0] for kernel in kernels],
        upsample="nearest",
        **options,
    )
    converted: dict[str, Tensor] = {}
    for conv, norm, our_conv, our_norm in layers:
        converted[f"{our_conv}.weight"] = state_dict[f"{conv}.weight"]
        if not norm:
            converted[f"{our_conv}.bias"] = state_dict[f"{conv}.bias"]
            continue
        for entry in ("weight", "bias", "running_mean", "running_var"):
            converted[f"{our_norm}.{entry}"] = state_dict[f"{norm}.{entry}"]
        converted[f"{our_norm}.running_mean"] = state_dict[f"{norm}.running_mean"] - state_dict[f"{conv}.bias"]
        # PyTorch 0.4, which the original asks for, did not count batches yet.
        converted[f"{our_norm}.num_batches_tracked"] = state_dict.get(f"{norm}.num_batches_tracked", torch.tensor(0))
    fill(network, converted, "leejunhyun")
    return network


def _count_steps(state_dict: Mapping[str, Tensor]) -> int:
    """Return t: each batch passes a recurrent BatchNorm t + 1 times and an upsampling one once, and both count."""
    counts = [int(state_dict.get(f"{norm}.num_batches_tracked", 0)) for norm in ("RRCNN1.RCNN.0.conv.1", "Up5.up.2")]
    if not all(counts):
        logger.warning(
            "these weights do not show R2U_Net's number of steps: taking its default, 2; otherwise give steps"
        )
        return 2
    return counts[0] // counts[1] - 1


def _layers(recurrent: bool, gated: bool) -> Iterator[tuple[str, str, str, str]]:
    """Yield (their convolution, their norm or "", our convolution, our norm) for every layer."""

    def unit(theirs: str, ours: str) -> Iterator[tuple[str, str, str, str]]:
        for index in (0, 1):
            layer = f"{ours}.layers.{index}"
            if recurrent:
                conv, norm = f"{theirs}.RCNN.{index}.conv.0", f"{theirs}.RCNN.{index}.conv.1"
            else:
                conv, norm = f"{theirs}.conv.{3 * index}", f"{theirs}.conv.{3 * index + 1}"
            yield conv, norm, f"{layer}.feed_forward", f"{layer}.norm"
        if recurrent:
            yield f"{theirs}.Conv_1x1", "", f"{ours}.projection", ""

    name = "RRCNN" if recurrent else "Conv"
    up_name = "Up_RRCNN" if recurrent else "Up_conv"
    for level in range(1, NUM_LEVELS + 1):
        yield from unit(f"{name}{level}", f"encoder.units.{level - 1}")
    for level in range(NUM_LEVELS, 1, -1):
        stage = f"decoder.stages.{NUM_LEVELS - level}"
        yield f"Up{level}.up.1", f"Up{level}.up.2", f"{stage}.up.1", f"{stage}.up.2"
        yield from unit(f"{up_name}{level}", f"{stage}.unit")
        if gated:
            for theirs, ours in (("W_g", "gate"), ("W_x", "skip"), ("psi", "psi")):
                yield (
                    f"Att{level}.{theirs}.0",
                    f"Att{level}.{theirs}.1",
                    f"{stage}.gate.{ours}.0",
                    f"{stage}.gate.{ours}.1",
                )
    yield "Conv_1x1", "", "head", ""


def _check_keys(state_dict: Mapping[str, Tensor], layers: list[tuple[str, str, str, str]]) -> None:
    needed, optional = set(), set()
    for conv, norm, _, _ in layers:
        needed |= {f"{conv}.weight", f"{conv}.bias"}
        if norm:
            needed |= {f"{norm}.{entry}" for entry in ("weight", "bias", "running_mean", "running_var")}
            optional.add(f"{norm}.num_batches_tracked")
    missing, extra = sorted(needed - set(state_dict)), sorted(set(state_dict) - needed - optional)
    if missing or extra:
        texts = [f"{len(missing)} missing, such as {missing[0]}"] if missing else []
        texts += [f"{len(extra)} unknown, such as {extra[0]}"] if extra else []
        raise ValueError(
            f"these are not weights of leejunhyun's U_Net, R2U_Net, AttU_Net or R2AttU_Net: {'; '.join(texts)}: "
            "give the state dict of one of them"
        )
