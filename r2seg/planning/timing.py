"""What a planned training takes on this machine, measured: a few cases are preprocessed, some steps trained, a case validated.

The training is assembled as ``train`` assembles it; the weights are thrown away.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from ignite.engine import Engine, Events

from r2seg.config import Config
from r2seg.data.cache import CachedCase
from r2seg.data.cases import Case
from r2seg.errors import UserError
from r2seg.planning.length import Costs
from r2seg.training.assembly import Assembly, assemble
from r2seg.training.cases import TrainingCases, cache_parts
from r2seg.training.progress import TrainingProgress

# Importing, reading names, writing the last files.
_SECONDS_TO_START = 10.0
_WARM_UP, _LEAST_STEPS, _MOST_STEPS, _SECONDS = 3, 4, 40, 12.0
# Scoring the best checkpoint also keeps probabilities and draws pictures.
_SCORING = 1.5
_TRIED_CASES = 2


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        costs: In seconds.
        peak_memory: Bytes at the peak of training on a GPU; None on a CPU.
        num_steps: How many steps were timed.
    """

    costs: Costs
    peak_memory: int | None
    num_steps: int


def measure(config: Config, parts: Mapping[str, Sequence[Case]], device: torch.device) -> Measured:
    """Times a few real steps and one real validation of a config.

    Args:
        config: The planned training.
        parts: The cases of its split.
        device: Where it is to train.

    Raises:
        UserError: The cases cannot be used, or the memory is not enough (`OutOfMemory`).
    """
    validated = list(parts["validation"]) or list(parts["train"])
    tried = {
        "train": _medium(parts["train"], _TRIED_CASES),
        "validation": _medium(validated, 1),
        "test": [],
    }
    with tempfile.TemporaryDirectory(prefix="r2seg-init-") as folder:
        begun = time.perf_counter()
        cached = cache_parts(tried, config, Path(folder))
        preprocessing = (time.perf_counter() - begun) / sum(map(len, tried.values()))
        first = cached["train"][0]
        cases = TrainingCases(cached, in_channels=len(first.voxels), image_dims=first.label.ndim)
        cases.check_flips(config)
        try:
            assembly = assemble(config, cases, device, TrainingProgress())
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            step, num_steps = _time_steps(assembly)
            peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
            validation = _time_validation(assembly, cached["validation"][0])
        except torch.cuda.OutOfMemoryError:
            raise OutOfMemory(
                f"{device} is out of memory with window.size {list(config.window.size)} and window.batch_size {config.window.batch_size}"
            ) from None
        finally:
            if device.type == "cuda":
                torch.cuda.empty_cache()
    counts = {part: len(members) for part, members in parts.items()}
    num_validated = len(parts["validation"])
    return Measured(
        Costs(
            start=_SECONDS_TO_START + preprocessing * sum(counts.values()),
            step=step,
            validation=validation * num_validated,
            finish=_SCORING * validation * (num_validated + counts["test"]),
        ),
        peak,
        num_steps,
    )


class OutOfMemory(UserError):
    """The device cannot hold the planned batch."""


def _medium(cases: Sequence[Case], number: int) -> list[Case]:
    """Cases of medium file size, which stand for the others."""
    ordered = sorted(cases, key=lambda case: sum(path.stat().st_size for path in case.images if path.is_file()))
    start = max(0, (len(ordered) - number) // 2)
    return ordered[start : start + number]


def _time_steps(assembly: Assembly) -> tuple[float, int]:
    """Seconds from step to step, windows drawn beside it as in a real epoch, and how many steps were timed."""
    batches = (batch for epoch in range(_WARM_UP + _MOST_STEPS) for batch in assembly.sampler.epoch(epoch))
    trainer = assembly.make_trainer(batches, epochs=1, steps_per_epoch=_WARM_UP + _MOST_STEPS)
    ends: list[float] = []

    @trainer.on(Events.ITERATION_COMPLETED)
    def after_step(engine: Engine) -> None:
        ends.append(_now(assembly.device))
        timed = len(ends) - _WARM_UP
        if timed >= _LEAST_STEPS and ends[-1] - ends[_WARM_UP - 1] > _SECONDS:
            engine.terminate()

    trainer.run()
    batches.close()
    return (ends[-1] - ends[_WARM_UP - 1]) / (len(ends) - _WARM_UP), len(ends) - _WARM_UP


def _time_validation(assembly: Assembly, case: CachedCase) -> float:
    """Seconds to predict and score one case, once the network is warm."""
    evaluator = assembly.make_evaluator("validation", TrainingProgress())
    seconds = []
    for _ in range(2):
        begun = _now(assembly.device)
        evaluator.run()
        seconds.append(_now(assembly.device) - begun)
        if seconds[0] > _SECONDS:
            break
    return min(seconds)


def _now(device: torch.device) -> float:
    """The time in seconds, after all that the device was asked to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
