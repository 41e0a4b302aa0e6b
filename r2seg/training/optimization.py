"""What turns gradients into weights: where training starts from, the optimizer, the learning rate over steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from r2seg.config import Config
from r2seg.errors import UserError
from r2seg.networks.weights import load_weights
from r2seg.run import BEST
from r2seg.training.progress import TrainingProgress


def start_from_weights(network: nn.Module, config: Config, progress: TrainingProgress) -> None:
    """Loads ``network.weights`` into a new network, all but the layers of ``network.reset``."""
    source = config.network.weights
    if source is None:
        if config.network.reset:
            raise UserError(f"network.reset {list(config.network.reset)} goes with network.weights, which is not set")
        return
    try:
        kept = load_weights(network, source / BEST if source.is_dir() else source, reset=config.network.reset)
    except ValueError as error:
        raise UserError(f"network.weights: {error}") from error
    fresh = f", {', '.join(kept)} start afresh" if kept else ""
    progress.message(f"network starts from {source}{fresh}")


def pretrained_names(network: nn.Module) -> list[str]:
    """Names of the parameters that came trained; none where the network has no backbone."""
    pretrained = {id(parameter) for parameter in getattr(network, "pretrained_parameters", tuple)()}
    return [name for name, parameter in network.named_parameters() if id(parameter) in pretrained]


def make_optimizer(network: nn.Module, config: Config, pretrained: Sequence[str] = ()) -> torch.optim.Optimizer:
    """AdamW, or SGD with Nesterov momentum 0.9; no weight decay on biases and norms, which have one axis.

    Args:
        network: Its parameters that require gradients are optimized.
        config: The training section.
        pretrained: Names of the parameters for which ``training.backbone_learning_rate`` holds where it is set.

    Raises:
        UserError: A backbone's learning rate is set and nothing of the network is pretrained.
    """
    recipe = config.training
    if recipe.backbone_learning_rate is not None and not pretrained:
        raise UserError(
            f"training.backbone_learning_rate is {recipe.backbone_learning_rate:g} but no part of {config.network.name} "
            "is pretrained: set network.pretrained or network.weights, or leave the rate out"
        )
    slow = set(pretrained) if recipe.backbone_learning_rate is not None else set()
    grouped: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            rate = recipe.backbone_learning_rate if name in slow else recipe.learning_rate
            decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
            grouped.setdefault((rate, decay), []).append(parameter)
    groups = [{"params": members, "lr": rate, "weight_decay": decay} for (rate, decay), members in grouped.items()]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def learning_rate_factor(warmup_epochs: float, max_epochs: int, steps_per_epoch: int) -> Callable[[int], float]:
    """Step -> factor of the learning rate: linear warm-up, then half a cosine down to a hundredth.

    A function of the step alone, so that it can be continued anywhere (Loshchilov & Hutter, arXiv:1608.03983, one cycle).
    """
    total = max_epochs * steps_per_epoch
    warmup = min(round(warmup_epochs * steps_per_epoch), total - 1)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = min(1.0, (step - warmup) / max(1, total - warmup))
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))

    return factor
