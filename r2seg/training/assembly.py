"""Everything that a training needs, made from its config in one place, for a real run and for its dry run alike.

Network, optimizer, schedule, scaler, loss, sampler and inferer, and from them MONAI's engines. The cases come from ``cases``,
what the engines do in one iteration from ``steps``. Nothing here loops or writes to a run folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from r2seg.config import Config, build_configured_network
from r2seg.data.cache import CachedCase
from r2seg.data.sampling import WindowSampler
from r2seg.devices import autocast_dtype
from r2seg.errors import UserError
from r2seg.inference.prediction import inferer_of, segment_prepared
from r2seg.inference.windows import WindowInferer
from r2seg.metrics.ignite import CaseScores, MeanScore, PooledEvidence
from r2seg.networks.weights import load_weights
from r2seg.run import BEST
from r2seg.training.cases import TrainingCases
from r2seg.training.losses import SegmentationLoss
from r2seg.training.optimizers import make_optimizer
from r2seg.training.progress import TrainingProgress
from r2seg.training.schedules import learning_rate_factor
from r2seg.training.steps import make_train_step, make_validation_step


@dataclass(frozen=True)
class Assembly:
    """What a training works with.

    Attributes:
        config: The config it was made from.
        device: Where the network computes.
        cases: The cases.
        network: On its device.
        pretrained: Names of the parameters that were trained before.
        sampler: Draws the training windows.
        loss: (logits, label) -> loss.
        optimizer: Of the network's parameters.
        schedule: Sets the optimizer's learning rates after every step.
        scaler: Of gradients in float16; disabled for other types.
        dtype: Lower-precision type of the forward pass; None for float32.
        inferer: Slides the windows over whole cases in validation.
    """

    config: Config
    device: torch.device
    cases: TrainingCases
    network: nn.Module
    pretrained: Sequence[str]
    sampler: WindowSampler
    loss: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: LambdaLR
    scaler: torch.amp.GradScaler
    dtype: torch.dtype | None
    inferer: WindowInferer

    @property
    def stateful(self) -> dict[str, Any]:
        """The parts whose ``state_dict`` a checkpoint holds, by their names in it."""
        return {
            "network": self.network,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "scaler": self.scaler,
        }

    def make_trainer(self, batches: Any, *, epochs: int, steps_per_epoch: int) -> SupervisedTrainer:
        """The engine that trains the network and sets its learning rate, over batches as the sampler draws them."""
        recipe = self.config.training
        trainer = SupervisedTrainer(
            device=self.device,
            max_epochs=epochs,
            train_data_loader=batches,
            epoch_length=steps_per_epoch,
            network=self.network,
            optimizer=self.optimizer,
            loss_function=self.loss,
            iteration_update=make_train_step(
                seed=self.config.seed,
                dtype=self.dtype,
                scaler=self.scaler,
                gradient_clip=recipe.gradient_clip,
                auxiliary_weight=recipe.auxiliary_weight,
            ),
            decollate=False,
            train_handlers=[LrScheduleHandler(self.schedule, print_lr=False, epoch_level=False)],
        )
        trainer.logger.setLevel("CRITICAL")
        return trainer

    def make_evaluator(
        self, part: str, progress: TrainingProgress, *, probabilities: bool = False
    ) -> SupervisedEvaluator:
        """The engine that segments and scores the whole cases of a part.

        Its metrics: "dice" and "iou" (means), "dice_cases" and "iou_cases" (cases, K), and with ``probabilities`` also
        "histograms", from which thresholds are chosen.
        """
        cases = self.cases.parts[part]
        histograms = {"histograms": PooledEvidence("probabilities")} if probabilities else {}
        evaluator = SupervisedEvaluator(
            device=self.device,
            val_data_loader=cases,
            epoch_length=len(cases),
            network=self.network,
            iteration_update=make_validation_step(
                self.segment,
                len(self.config.data.labels),
                families=("counts", "probabilities") if probabilities else ("counts",),
                overlapping=self.config.data.overlapping,
            ),
            key_val_metric={"dice": MeanScore("dice")},
            additional_metrics={
                "iou": MeanScore("iou"),
                "dice_cases": CaseScores("dice"),
                "iou_cases": CaseScores("iou"),
                **histograms,
            },
            decollate=False,
        )
        evaluator.add_event_handler(
            Events.ITERATION_COMPLETED, lambda engine: progress.validating(engine.state.iteration, len(cases))
        )
        evaluator.logger.setLevel("CRITICAL")
        return evaluator

    def segment(self, case: CachedCase, on_probabilities: Any = None) -> np.ndarray:
        """Class indices (*S) of a whole case on its oriented grid, as validation predicts them."""
        try:
            return segment_prepared(
                self.network,
                case.prepared,
                case.grid,
                self.inferer,
                self.config,
                device=self.device,
                on_probabilities=on_probabilities,
            )[0]
        except UserError as error:
            raise UserError(f"case {case.id}: {error}") from error


def assemble(
    config: Config,
    cases: TrainingCases,
    device: torch.device,
    progress: TrainingProgress,
    *,
    checkpoint: Mapping[str, Any] | None = None,
) -> Assembly:
    """Everything that a training works with. Whatever the config asks for and cannot be had is refused here.

    Args:
        config: What to train.
        cases: The cases to train and validate on.
        device: Where the network computes.
        progress: Receives a message about the weights that training starts from.
        checkpoint: The last checkpoint of a run to resume, if any: then no pretrained weights are read. `Journal.restore`
            loads its states.

    Raises:
        UserError: The device, the weights or the options of the network do not allow it.
    """
    recipe = config.training
    dtype = autocast_dtype(device, recipe.precision, trains_dims=config.spatial_dims)
    autocast_dtype(device, config.infer.precision)  # validation infers: fail before the first epoch, not after it
    torch.manual_seed(config.seed)
    network = build_configured_network(config, cases.in_channels, pretrained=checkpoint is None)
    if checkpoint is None:
        _start_from_weights(network, config, progress)
    pretrained = _pretrained_names(network) if checkpoint is None else checkpoint["pretrained"]
    network = network.to(device)
    sampler = WindowSampler(
        cases.parts["train"], config.window, config.sampling, config.augmentation, seed=config.seed, device=device
    )
    optimizer = make_optimizer(network, config, pretrained)
    return Assembly(
        config=config,
        device=device,
        cases=cases,
        network=network,
        pretrained=pretrained,
        sampler=sampler,
        loss=SegmentationLoss(recipe.loss, config.network.output, overlapping=config.data.overlapping),
        optimizer=optimizer,
        schedule=LambdaLR(
            optimizer, learning_rate_factor(recipe.warmup_epochs, recipe.max_epochs, sampler.steps_per_epoch)
        ),
        scaler=torch.amp.GradScaler(device.type, enabled=dtype is torch.float16),
        dtype=dtype,
        inferer=inferer_of(config.window, cases.image_dims),
    )


def _start_from_weights(network: nn.Module, config: Config, progress: TrainingProgress) -> None:
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


def _pretrained_names(network: nn.Module) -> list[str]:
    """Names of the parameters that were trained before; none where the network has no backbone."""
    pretrained = {id(parameter) for parameter in getattr(network, "pretrained_parameters", tuple)()}
    return [name for name, parameter in network.named_parameters() if id(parameter) in pretrained]


@contextmanager
def explained_out_of_memory(config: Config, device: torch.device, kept: str = "") -> Iterator[None]:
    """Turns CUDA's out-of-memory error into one line with the settings to lower; ``kept`` says what remains."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        peak = torch.cuda.max_memory_allocated(device) / 2**30
        raise UserError(
            f"{device} is out of memory with window.batch_size {config.window.batch_size} and window.size "
            f"{list(config.window.size)} (peak {peak:.1f} GiB): lower one of them, or network.channels{kept}"
        ) from error
