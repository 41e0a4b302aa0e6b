"""How the learning rate changes over the steps of a training."""

from __future__ import annotations

import math
from collections.abc import Callable


def learning_rate_factor(warmup_epochs: float, max_epochs: int, steps_per_epoch: int) -> Callable[[int], float]:
    """Step -> factor of the learning rate: linear warm-up, then half a cosine down to a hundredth.

    A function of the step alone, so that training can resume at any step (Loshchilov & Hutter, arXiv:1608.03983, one cycle).
    """
    total = max_epochs * steps_per_epoch
    warmup = min(round(warmup_epochs * steps_per_epoch), total - 1)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = min(1.0, (step - warmup) / max(1, total - warmup))
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))

    return factor
