"""train(config, output): a run from a config, to be read from top to bottom.

MONAI's engines run the loop; what they run is in engines.py, what they are fed in data/, what they leave behind in run.py.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler, ValidationHandler
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.tensorboard import SummaryWriter

from r2seg.config import Config, build_configured_network, dump_config
from r2seg.data.cache import CachedCase, cache_cases
from r2seg.data.cases import Case, find_cases
from r2seg.data.sampling import WindowSampler
from r2seg.data.splits import split_cases
from r2seg.errors import UserError
from r2seg.inference.devices import autocast_dtype, resolve_device
from r2seg.inference.segmenter import inferer_of, segment_prepared
from r2seg.metrics import best_threshold
from r2seg.metrics.catalogue import MEASURES
from r2seg.run import BEST, CACHE, CONFIG, LAST, PLOTS, TENSORBOARD, Run, environment, parts_of, refuse_used, write_text
from r2seg.thresholds import FILE as THRESHOLDS
from r2seg.thresholds import Thresholds, fingerprint
from r2seg.training.engines import CaseScores, MeanScore, PooledEvidence, make_train_step, make_validation_step
from r2seg.training.losses import SegmentationLoss
from r2seg.training.plots import Panel, panel_of, plot_course, plot_panels
from r2seg.training.progress import TrainingProgress


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
    run, cached = _prepare_run(config, Path(output), resume, progress)
    if run.manifest["state"] == "finished" and run.manifest["epochs"] >= config.training.max_epochs:
        progress.message(f"{run.path} is finished: {run.manifest['epochs']} epochs; nothing to resume")
        return run
    in_channels, image_dims = run.manifest["in_channels"], run.manifest["image_dims"]
    labels = list(config.data.labels)
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

    def segment(case: CachedCase, on_probabilities=None):
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

    rows: list[dict[str, Any]] = []
    best: dict[str, Any] = {"dice": None, "epoch": 0}
    if resumes:
        network.load_state_dict(last["network"])
        optimizer.load_state_dict(last["optimizer"])
        schedule.load_state_dict(last["schedule"])
        scaler.load_state_dict(last["scaler"])
        rows, best = last["rows"], last["best"]
        trainer.state.epoch = last["epoch"]
        trainer.state.iteration = last["epoch"] * sampler.steps_per_epoch
        progress.message(f"resuming {run.path} after epoch {last['epoch']}")
    writer = SummaryWriter(str(run.path / TENSORBOARD), purge_step=trainer.state.epoch + 1)
    losses: list[float] = []
    started = time.monotonic()

    @trainer.on(Events.EPOCH_STARTED)
    def begin_epoch(engine) -> None:
        nonlocal started
        batches.epoch = engine.state.epoch - 1
        losses.clear()
        started = time.monotonic()

    @trainer.on(Events.ITERATION_COMPLETED)
    def after_step(engine) -> None:
        losses.append(engine.state.output["loss"])
        progress.training(
            engine.state.epoch, recipe.max_epochs, len(losses), sampler.steps_per_epoch, sum(losses) / len(losses)
        )

    @trainer.on(Events.EPOCH_COMPLETED)
    def end_epoch(engine) -> None:
        nonlocal best
        epoch = engine.state.epoch
        row = {
            "epoch": epoch,
            "learning_rate": max(group["lr"] for group in optimizer.param_groups),
            "loss": sum(losses) / len(losses),
        }
        is_best = False
        if epoch % recipe.validate_every == 0 or epoch == recipe.max_epochs:
            if epoch % recipe.validate_every:
                evaluator.run(epoch)
            row |= _validation_columns(evaluator.state.metrics, labels)
            is_best = row["validation_dice"] == row["validation_dice"] and (
                best["dice"] is None or row["validation_dice"] > best["dice"]
            )
        row["seconds"] = round(time.monotonic() - started, 3)
        rows.append(row)
        weights = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
        if is_best:
            best = {"dice": row["validation_dice"], "epoch": epoch}
            run.save_checkpoint(BEST, {"network": weights, **best})
        run.save_checkpoint(
            LAST,
            {
                "epoch": epoch,
                "network": weights,
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "scaler": scaler.state_dict(),
                "pretrained": pretrained,
                "rows": rows,
                "best": best,
            },
        )
        run.write_metrics(rows)
        for name, value in row.items():
            if name != "epoch":
                writer.add_scalar(name, value, epoch)
        writer.flush()
        progress.epoch(row, recipe.max_epochs, is_best)
        waited = sum(1 for past in rows if past["epoch"] > best["epoch"] and "validation_dice" in past)
        if recipe.early_stopping is not None and waited >= recipe.early_stopping:
            progress.message(f"stopped early: no better Dice in {waited} validations since epoch {best['epoch']}")
            engine.terminate()

    try:
        if trainer.state.epoch < recipe.max_epochs:
            trainer.run()
        plot_course(rows, run.path / PLOTS / "course.png")
        results = _final_results(run, config, network, cached, make_evaluator, progress)
    except torch.cuda.OutOfMemoryError as error:
        peak = torch.cuda.max_memory_allocated(device) / 2**30
        raise UserError(
            f"{device} is out of memory with window.batch_size {config.window.batch_size} and window.size "
            f"{list(config.window.size)} (peak {peak:.1f} GiB): lower one of them, or network.channels; "
            f"the last good checkpoint is kept in {run.path}"
        ) from error
    finally:
        writer.close()
    run.update_manifest(state="finished", epochs=trainer.state.epoch, best=best, results=results)
    if config.data.cache is None:
        shutil.rmtree(run.path / CACHE, ignore_errors=True)
    return run


class _EpochBatches:
    """The sampler as the iterable ignite asks for: each pass is the epoch that was set before it."""

    def __init__(self, sampler: WindowSampler) -> None:
        self.sampler = sampler
        self.epoch = 0

    def __iter__(self):
        return self.sampler.epoch(self.epoch)

    def __len__(self) -> int:
        return self.sampler.steps_per_epoch


def start_from_weights(network: nn.Module, config: Config, progress: TrainingProgress) -> None:
    """Loads ``network.weights`` into a new network, all but the layers of ``network.reset``."""
    source = config.network.weights
    if source is None:
        if config.network.reset:
            raise UserError(f"network.reset {list(config.network.reset)} goes with network.weights, which is not set")
        return
    from r2seg.networks.weights import load_weights

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


def learning_rate_factor(warmup_epochs: float, max_epochs: int, steps_per_epoch: int):
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


def _prepare_run(
    config: Config, output: Path, resume: bool, progress: TrainingProgress
) -> tuple[Run, dict[str, list[CachedCase]]]:
    """The run, new or opened, and its cases, preprocessed."""
    going_on = resume and (output / CONFIG).is_file()
    if going_on:
        run = Run.open(output)
        _refuse_other_config(run, config)
        parts = parts_of(run, config)
    else:
        refuse_used(output)
        parts = split_cases(find_cases(config.data), config.data.split, config.seed)
    folder = config.data.cache or output / CACHE
    total, done = sum(map(len, parts.values())), 0
    progress.message(", ".join(f"{len(members)} {part} cases" for part, members in parts.items()))

    def count(_: Case) -> None:
        nonlocal done
        done += 1
        progress.preparing(done, total)

    everything = cache_cases([case for members in parts.values() for case in members], config, folder, count)
    by_id = {case.id: case for case in everything}
    cached = {part: [by_id[case.id] for case in members] for part, members in parts.items()}
    facts = check_cached(cached, config)
    if not going_on:
        run = Run.create(
            output,
            config,
            {part: [case.id for case in members] for part, members in parts.items()},
            {**facts, "labels": list(config.data.labels), "state": "training", "epochs": 0, **environment()},
        )
    elif run.manifest["state"] != "finished" or run.manifest["epochs"] < config.training.max_epochs:
        run.update_manifest(state="training")
    return run, cached


def check_cached(cached: Mapping[str, Sequence[CachedCase]], config: Config) -> dict[str, int]:
    """Facts that all cases share, ``in_channels`` and ``image_dims``; refuses what cannot be trained or validated on."""
    everything = [case for members in cached.values() for case in members]
    first = everything[0]
    for case in everything:
        if case.label.ndim != first.label.ndim:
            raise UserError(
                f"case {case.id} has {case.label.ndim} axes and case {first.id} has {first.label.ndim}: keep pictures and volumes apart"
            )
        if len(case.voxels) != len(first.voxels):
            raise UserError(
                f"case {case.id} has {len(case.voxels)} channels and case {first.id} has {len(first.voxels)}: all need the same"
            )
    if config.window.plane and first.label.ndim == 2:
        raise UserError(
            f"window.plane is {config.window.plane} and the cases are pictures, not volumes: leave window.plane out"
        )
    for part in ("train", "validation"):
        found = {index for case in cached[part] for index in case.foreground}
        for index, name in enumerate(config.data.labels, start=1):
            if index not in found and (part == "train" or not found):
                raise UserError(
                    f"no {part} case holds the label {name} ({len(cached[part])} cases): check data.labels and data.split"
                )
    return {"in_channels": len(first.voxels), "image_dims": first.label.ndim}


# What may differ between a run's config and the one it is resumed with: where data lie, and for how long to train.
_MAY_CHANGE = {("data", "root"), ("data", "cache"), ("training", "max_epochs"), ("training", "early_stopping")}


def _refuse_other_config(run: Run, config: Config) -> None:
    """A resumed run keeps its config; what may change is written into it."""

    def flat(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
        if isinstance(value, Mapping):
            return {key: leaf for name, inner in value.items() for key, leaf in flat(inner, (*path, name)).items()}
        return {path: value}

    old, new = flat(run.config.model_dump(mode="json")), flat(config.model_dump(mode="json"))
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    refused = [f"{'.'.join(key)} ({old.get(key)!r}, now {new.get(key)!r})" for key in changed if key not in _MAY_CHANGE]
    if refused:
        raise UserError(
            f"{run.path} was trained with another config: {', '.join(refused)}; start another run with -o RUN"
        )
    if changed:
        write_text(run.path / CONFIG, dump_config(config))


def _validation_columns(metrics: Mapping[str, Any], labels: Sequence[str]) -> dict[str, float]:
    row = {"validation_dice": metrics["dice"], "validation_iou": metrics["iou"]}
    for score in ("dice", "iou"):
        for name, value in zip(labels, metrics[f"{score}_cases"].nanmean(0).tolist(), strict=True):
            row[f"{score}_{name}"] = value
    return row


def _final_results(
    run: Run,
    config: Config,
    network: nn.Module,
    cached: Mapping[str, Sequence[CachedCase]],
    make_evaluator: Any,
    progress: TrainingProgress,
) -> dict[str, Any]:
    """Dice and IoU of the best checkpoint per part, label and case; stores the thresholds that are best on validation."""
    if not (run.path / BEST).is_file():
        raise UserError(f"{run.path}: no validation gave a Dice, so there is no best checkpoint; train longer")
    network.load_state_dict(run.load_checkpoint(BEST)["network"])
    results: dict[str, Any] = {}
    for part in ("validation", "test"):
        if not cached[part]:
            continue
        evaluator = make_evaluator(cached[part], probabilities=part == "validation")
        panels: list[Panel] = []

        @evaluator.on(Events.ITERATION_COMPLETED)
        def show(engine, panels=panels) -> None:
            output = engine.state.output
            dice = float(MEASURES["dice"].score(output["evidence"]["counts"]).nanmean())
            panels.append(panel_of(output["case"], output["prediction"], dice, config.window.plane))

        evaluator.run()
        plot_panels(panels, run.path / PLOTS / f"{part}.png")
        if part == "validation":
            _store_thresholds(run, config, cached[part], evaluator.state.metrics["histograms"], progress)
        scores = {name: evaluator.state.metrics[f"{name}_cases"] for name in ("dice", "iou")}
        results[part] = {
            label: {
                **{name: _or_none(table[:, index].nanmean()) for name, table in scores.items()},
                "num_scored": int((~scores["dice"][:, index].isnan()).sum()),
                "num_empty": int(scores["dice"][:, index].isnan().sum()),
                "cases": {
                    case.id: {name: _or_none(table[row, index]) for name, table in scores.items()}
                    for row, case in enumerate(cached[part])
                },
            }
            for index, label in enumerate(config.data.labels)
        }
    return results


def _store_thresholds(
    run: Run, config: Config, cases: Sequence[CachedCase], histograms: torch.Tensor, progress: TrainingProgress
) -> None:
    """Writes the threshold of each label with the best pooled Dice on the validation cases, and which cases those were."""
    labels = list(config.data.labels)
    empty = [label for label, histogram in zip(labels, histograms, strict=True) if not histogram[1].any()]
    if empty:
        progress.message(f"no thresholds are stored: no validation case holds {', '.join(empty)}")
        return
    files = {case.id: case.label for case in parts_of(run, config)["validation"]}
    thresholds = Thresholds(
        {label: best_threshold(histogram)[0] for label, histogram in zip(labels, histograms, strict=True)},
        "pooled Dice",
        frozenset(fingerprint(files[case.id]) for case in cases if case.foreground),
    )
    write_text(run.path / THRESHOLDS, thresholds.json())


def _or_none(value: torch.Tensor) -> float | None:
    return None if value.isnan() else round(float(value), 6)
