"""Optimizers: the table of names that a config may give, and which parameters get which learning rate and weight decay.

A new optimizer is an entry of ``OPTIMIZERS`` and its name in ``training.optimizer`` of the config schema.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from r2seg.config import Config
from r2seg.errors import UserError

# Name in a config -> (parameter groups, lr=learning rate) -> optimizer.
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "sgd": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
}


def make_optimizer(network: nn.Module, config: Config, pretrained: Sequence[str] = ()) -> torch.optim.Optimizer:
    """The config's optimizer for the parameters that require gradients; no weight decay on biases and norms.

    Args:
        network: Its parameters are optimized.
        config: Its training section decides the optimizer, learning rates and weight decay.
        pretrained: Names of the parameters that take ``training.backbone_learning_rate`` if it is set.

    Raises:
        UserError: The optimizer is unknown, or a backbone's learning rate is set and nothing of the network is pretrained.
    """
    recipe = config.training
    if recipe.optimizer not in OPTIMIZERS:
        raise UserError(f"training.optimizer {recipe.optimizer!r} is unknown: valid are {', '.join(OPTIMIZERS)}")
    if recipe.backbone_learning_rate is not None and not pretrained:
        raise UserError(
            f"training.backbone_learning_rate is {recipe.backbone_learning_rate:g} but no part of {config.network.name} "
            "is pretrained: set network.pretrained or network.weights, or leave the rate out"
        )
    rates = {} if recipe.backbone_learning_rate is None else dict.fromkeys(pretrained, recipe.backbone_learning_rate)
    grouped: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            rate = rates.get(name, recipe.learning_rate)
            decay = recipe.weight_decay if parameter.ndim > 1 else 0.0  # biases and norms have one axis
            grouped.setdefault((rate, decay), []).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": members, "lr": rate, "weight_decay": decay} for (rate, decay), members in grouped.items()
    ]
    return OPTIMIZERS[recipe.optimizer](groups, lr=recipe.learning_rate)
