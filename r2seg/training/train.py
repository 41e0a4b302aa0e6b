"""train(config, output): a run from a config, to be read from top to bottom.

MONAI's engines run the loop; what they run is in engines.py, what comes before the first step in preparation.py and
optimization.py, what comes after the last one in results.py.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler, ValidationHandler
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.tensorboard import SummaryWriter

from r2seg.config import Config, build_configured_network
from r2seg.data.cache import CachedCase
from r2seg.data.sampling import WindowSampler
from r2seg.devices import autocast_dtype, resolve_device
from r2seg.errors import UserError
from r2seg.inference.prediction import inferer_of, segment_prepared
from r2seg.run import BEST, CACHE, LAST, PLOTS, TENSORBOARD, Run
from r2seg.training.engines import CaseScores, MeanScore, PooledEvidence, make_train_step, make_validation_step
from r2seg.training.losses import SegmentationLoss
from r2seg.training.optimization import learning_rate_factor, make_optimizer, pretrained_names, start_from_weights
from r2seg.training.plots import plot_course
from r2seg.training.preparation import finished_run, prepare_run
from r2seg.training.progress import TrainingProgress
from r2seg.training.results import score_best


def train(
    config: Config,
    output: str | Path,
    *,
    resume: bool = False,
    device: str | torch.device = "auto",
    progress: TrainingProgress | None = None,
) -> Run:
    """Trains the config's network and returns the run: its checkpoints, metrics and results.

    Args:
        config: What to train, on what.
        output: The run folder; made here.
        resume: Go on with the run in ``output`` (or begin, where there is none yet). On a CPU the weights become those of
            an uninterrupted run, bit for bit.
        device: "auto", "cpu", "cuda", "cuda:N", "mps".
        progress: Told what happens.

    Raises:
        UserError: Data, config or hardware do not allow it; the run keeps its last good checkpoint.
    """
    progress = progress or TrainingProgress()
    device = device if isinstance(device, torch.device) else resolve_device(device)
    if resume and (finished := finished_run(config, Path(output))):
        progress.message(f"{finished.path} is finished: {finished.manifest['epochs']} epochs; nothing to resume")
        return finished
    run, cached = prepare_run(config, Path(output), resume, progress)
    in_channels, image_dims = run.manifest["in_channels"], run.manifest["image_dims"]
    labels = tuple(config.data.labels)
    recipe = config.training
    dtype = autocast_dtype(device, recipe.precision, trains_dims=config.spatial_dims)

    torch.manual_seed(config.seed)
    resumes = resume and (run.path / LAST).is_file()
    network = build_configured_network(config, in_channels, pretrained=not resumes)
    if not resumes:
        start_from_weights(network, config, progress)
    network = network.to(device)
    sampler = WindowSampler(
        cached["train"], config.window, config.sampling, config.augmentation, seed=config.seed, device=device
    )
    batches = _EpochBatches(sampler)
    last = run.load_checkpoint(LAST) if resumes else None
    pretrained = last["pretrained"] if resumes else pretrained_names(network)
    optimizer = make_optimizer(network, config, pretrained)
    schedule = LambdaLR(
        optimizer, learning_rate_factor(recipe.warmup_epochs, recipe.max_epochs, sampler.steps_per_epoch)
    )
    scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
    inferer = inferer_of(config.window, image_dims)

    def segment(case: CachedCase, on_probabilities: Any = None) -> np.ndarray:
        return segment_prepared(
            network, case.prepared, case.grid, inferer, config, device=device, on_probabilities=on_probabilities
        )[0]

    def make_evaluator(cases: Sequence[CachedCase], *, probabilities: bool = False) -> SupervisedEvaluator:
        histograms = {"histograms": PooledEvidence("probabilities")} if probabilities else {}
        evaluator = SupervisedEvaluator(
            device=device,
            val_data_loader=cases,
            epoch_length=len(cases),
            network=network,
            iteration_update=make_validation_step(
                segment, len(labels), families=("counts", "probabilities") if probabilities else ("counts",)
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

    evaluator = make_evaluator(cached["validation"])
    trainer = SupervisedTrainer(
        device=device,
        max_epochs=recipe.max_epochs,
        train_data_loader=batches,
        epoch_length=sampler.steps_per_epoch,
        network=network,
        optimizer=optimizer,
        loss_function=SegmentationLoss(recipe.loss, config.network.output),
        iteration_update=make_train_step(
            seed=config.seed,
            dtype=dtype,
            scaler=scaler,
            gradient_clip=recipe.gradient_clip,
            auxiliary_weight=recipe.auxiliary_weight,
        ),
        decollate=False,
        train_handlers=[
            LrScheduleHandler(schedule, print_lr=False, epoch_level=False),
            ValidationHandler(interval=recipe.validate_every, validator=evaluator),
        ],
    )
    trainer.logger.setLevel("CRITICAL")

    journal = Journal(
        run, labels, {"network": network, "optimizer": optimizer, "schedule": schedule, "scaler": scaler}, pretrained
    )
    if resumes:
        trainer.state.epoch = journal.restore(last)
        trainer.state.iteration = trainer.state.epoch * sampler.steps_per_epoch
        progress.message(f"resuming {run.path} after epoch {trainer.state.epoch}")

    def waited_enough() -> bool:
        return recipe.early_stopping is not None and journal.validations_since_best >= recipe.early_stopping

    @trainer.on(Events.EPOCH_STARTED)
    def begin_epoch(engine: Engine) -> None:
        batches.epoch = engine.state.epoch - 1
        journal.begin_epoch()

    @trainer.on(Events.ITERATION_COMPLETED)
    def after_step(engine: Engine) -> None:
        loss, done = journal.add_loss(engine.state.output["loss"])
        progress.training(engine.state.epoch, recipe.max_epochs, done, sampler.steps_per_epoch, loss)

    @trainer.on(Events.EPOCH_COMPLETED)
    def end_epoch(engine: Engine) -> None:
        epoch = engine.state.epoch
        validated = epoch % recipe.validate_every == 0
        if epoch == recipe.max_epochs and not validated:
            evaluator.run(epoch)
            validated = True
        is_best = journal.end_epoch(epoch, evaluator.state.metrics if validated else None)
        progress.epoch(journal.rows[-1], recipe.max_epochs, is_best)
        if waited_enough():
            engine.terminate()

    try:
        # A run that was ended between its last epoch and its results has no further epoch.
        if trainer.state.epoch < recipe.max_epochs and not waited_enough():
            trainer.run()
        if waited_enough():
            progress.message(
                f"stopped early: no better Dice in {journal.validations_since_best} validations "
                f"since epoch {journal.best['epoch']}"
            )
        plot_course(journal.rows, run.path / PLOTS / "course.png")
        results = score_best(run, config, network, cached, make_evaluator, progress)
    except torch.cuda.OutOfMemoryError as error:
        peak = torch.cuda.max_memory_allocated(device) / 2**30
        raise UserError(
            f"{device} is out of memory with window.batch_size {config.window.batch_size} and window.size "
            f"{list(config.window.size)} (peak {peak:.1f} GiB): lower one of them, or network.channels; "
            f"the last good checkpoint is kept in {run.path}"
        ) from error
    finally:
        journal.close()
    run.update_manifest(state="finished", epochs=trainer.state.epoch, best=journal.best, results=results)
    if config.data.cache is None:
        shutil.rmtree(run.path / CACHE, ignore_errors=True)
    return run


class _EpochBatches:
    """The sampler as the iterable ignite asks for: each pass is the epoch that was set before it."""

    def __init__(self, sampler: WindowSampler) -> None:
        self.sampler = sampler
        self.epoch = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.sampler.epoch(self.epoch)

    def __len__(self) -> int:
        return self.sampler.steps_per_epoch


class Journal:
    """What a training has reached, written into its run after every epoch: rows of metrics, the best Dice, checkpoints.

    Args:
        run: Where it is written.
        labels: Names of the labels, in order.
        parts: What a checkpoint holds the state of: "network", "optimizer", "schedule", "scaler".
        pretrained: Names of the parameters that came trained.
    """

    def __init__(self, run: Run, labels: Sequence[str], parts: Mapping[str, Any], pretrained: Sequence[str]) -> None:
        self.run = run
        self.labels = labels
        self.parts = parts
        self.pretrained = list(pretrained)
        self.rows: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {"dice": None, "epoch": 0}
        self.losses: list[float] = []
        self.started = time.monotonic()
        self.writer: SummaryWriter | None = None

    def restore(self, checkpoint: Mapping[str, Any]) -> int:
        """Puts everything back to the end of the checkpoint's epoch, and returns that epoch."""
        for name, part in self.parts.items():
            part.load_state_dict(checkpoint[name])
        self.rows, self.best = checkpoint["rows"], checkpoint["best"]
        return checkpoint["epoch"]

    def begin_epoch(self) -> None:
        """Starts the epoch's clock and its mean loss."""
        self.losses.clear()
        self.started = time.monotonic()

    def add_loss(self, loss: float) -> tuple[float, int]:
        """The epoch's mean loss with this one, and its number of steps."""
        self.losses.append(loss)
        return sum(self.losses) / len(self.losses), len(self.losses)

    def end_epoch(self, epoch: int, metrics: Mapping[str, Any] | None) -> bool:
        """Writes the epoch; ``metrics`` are the evaluator's where it ran. Returns whether its Dice is the best so far."""
        rates = [group["lr"] for group in self.parts["optimizer"].param_groups]
        row = {"epoch": epoch, "learning_rate": max(rates), "loss": sum(self.losses) / len(self.losses)}
        if metrics is not None:
            row |= {"validation_dice": metrics["dice"], "validation_iou": metrics["iou"]}
            for score in ("dice", "iou"):
                means = metrics[f"{score}_cases"].nanmean(0).tolist()
                row |= {f"{score}_{name}": value for name, value in zip(self.labels, means, strict=True)}
        dice = row.get("validation_dice", math.nan)
        is_best = not math.isnan(dice) and (self.best["dice"] is None or dice > self.best["dice"])
        row["seconds"] = round(time.monotonic() - self.started, 3)
        self.rows.append(row)

        state = {name: part.state_dict() for name, part in self.parts.items()}
        state["network"] = {name: tensor.detach().cpu() for name, tensor in state["network"].items()}
        if is_best:
            self.best = {"dice": dice, "epoch": epoch}
            self.run.save_checkpoint(BEST, {"network": state["network"], **self.best})
        kept = {"epoch": epoch, "pretrained": self.pretrained, "rows": self.rows, "best": self.best}
        self.run.save_checkpoint(LAST, {**state, **kept})
        self.run.write_metrics(self.rows)
        if self.writer is None:
            self.writer = SummaryWriter(str(self.run.path / TENSORBOARD), purge_step=epoch)
        for name, value in row.items():
            if name != "epoch":
                self.writer.add_scalar(name, value, epoch)
        self.writer.flush()
        return is_best

    @property
    def validations_since_best(self) -> int:
        """Validations after the one with the best Dice."""
        return sum(1 for row in self.rows if row["epoch"] > self.best["epoch"] and "validation_dice" in row)

    def close(self) -> None:
        """Ends the TensorBoard file."""
        if self.writer is not None:
            self.writer.close()
