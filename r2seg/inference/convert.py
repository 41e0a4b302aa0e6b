"""Weights that another repository trained, as a run that inference can use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from r2seg.config import Config
from r2seg.errors import UserError
from r2seg.networks.legacy import convert_state_dict
from r2seg.networks.weights import read_state_dict
from r2seg.run import BEST, Run, environment, refuse_used


def convert_weights(
    weights: Path,
    config: Config,
    output: Path,
    *,
    origin: str,
    image_dims: int,
    options: Mapping[str, Any] | None = None,
) -> Run:
    """A run with the converted network, the config's labels, preprocessing and window.

    The network and its options are derived from the weights; they replace those of the config.

    Args:
        weights: File of ``torch.save`` that the original repository wrote.
        config: Labels, preprocessing and window that the network was trained with; its data need not exist.
        output: Run folder to make.
        origin: A key of ``r2seg.networks.legacy.ORIGINS``.
        image_dims: 2 if the network is for pictures, 3 if it is for slices of volumes.
        options: What cannot be derived from the weights, such as ``steps``.

    Raises:
        UserError: The weights are not that origin's, or their number of classes is not that of the config's labels.
    """
    refuse_used(output)
    try:
        network = convert_state_dict(read_state_dict(weights), origin, **(options or {}))
    except ValueError as error:
        raise UserError(str(error)) from error
    num_labels = len(config.data.labels)
    outputs = {num_labels: "sigmoid", num_labels + 1: "softmax"}
    if network.out_channels not in outputs:
        raise UserError(
            f"{weights} has {network.out_channels} output channels, but the config declares {num_labels} labels "
            f"({', '.join(config.data.labels)}): data.labels needs {network.out_channels} for sigmoid "
            f"or {network.out_channels - 1} for softmax"
        )
    section = {"name": type(network).__name__, "output": outputs[network.out_channels], **network.given_options}
    section.pop("pretrained", None)
    section = {name: list(value) if isinstance(value, tuple) else value for name, value in section.items()}
    adapted = config.model_copy(update={"network": type(config.network).model_validate(section)})
    run = Run.create(
        output,
        adapted,
        {"train": [], "validation": [], "test": []},
        {
            "in_channels": network.in_channels,
            "image_dims": image_dims,
            "labels": list(config.data.labels),
            "state": "converted",
            "epochs": 0,
            "origin": origin,
            **environment(),
        },
    )
    run.save_checkpoint(BEST, {"network": network.state_dict(), "dice": None, "epoch": 0})
    run.build_network().load_state_dict(run.load_checkpoint(BEST)["network"])  # what inference will do
    return run
