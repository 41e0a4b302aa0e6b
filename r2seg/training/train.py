"""train(config, output): trains the network of a config and leaves a run folder. Read it from top to bottom.

MONAI's engines run the loop; what they work with is made in ``assembly``, what is written after every epoch in ``journal``,
and what follows the last epoch in ``results``.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.handlers import ValidationHandler

from r2seg.case_sets import parts_of, split_of
from r2seg.config import Config
from r2seg.data.cases import Case
from r2seg.data.intensity_range import measure_ranges
from r2seg.data.sampling import WindowSampler
from r2seg.devices import resolve_device
from r2seg.errors import UserError, counted
from r2seg.run import CACHE, LAST, PLOTS, Run, environment, refuse_used
from r2seg.training.assembly import Assembly, assemble, explained_out_of_memory
from r2seg.training.cases import TrainingCases, cache_parts
from r2seg.training.journal import Journal
from r2seg.training.lock import run_lock
from r2seg.training.plots import plot_course
from r2seg.training.progress import TrainingProgress
from r2seg.training.results import score_best
from r2seg.training.resume import adopt_config, computed_on, differences, is_finished, run_to_resume

# At most so many training cases are measured for the intensity range, evenly chosen.
_MEASURED_CASES = 100


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
        config: What to train, and on which data.
        output: The run folder; it is made here, after everything that can be refused has been checked.
        resume: Continue the run in ``output`` after its last complete epoch, or start it if there is none yet. On a CPU the
            weights become those of an uninterrupted run, bit for bit.
        device: "auto", "cpu", "cuda", "cuda:N", "mps".
        progress: Receives what happens; by default nothing is shown.

    Raises:
        UserError: Data, config or hardware do not allow it; the run keeps its last good checkpoint.
    """
    output = Path(output)
    progress = progress or TrainingProgress()
    device = device if isinstance(device, torch.device) else resolve_device(device)
    existing = run_to_resume(config, output) if resume else None
    if existing and is_finished(existing, config):
        progress.message(f"{existing.path} is finished: {existing.manifest['epochs']} epochs; nothing to resume")
        return adopt_config(existing, config)
    if existing is None:
        refuse_used(output)
    is_new = not output.exists()
    with run_lock(output):
        return _train(config, output, resume, device, progress, is_new)


def _train(
    config: Config, output: Path, resume: bool, device: torch.device, progress: TrainingProgress, is_new: bool
) -> Run:
    """``train`` in a folder that no other process writes to."""
    existing = run_to_resume(config, output) if resume else None
    if resume and existing is None:
        progress.message(f"{output} holds no run, so there is nothing to resume: a new run is started")
    assembly, last = _prepare(config, output, existing, device, progress, is_new)
    run = _create_run(output, assembly) if existing is None else adopt_config(existing, config)

    recipe, sampler = config.training, assembly.sampler
    batches = _EpochBatches(sampler)
    trainer = assembly.make_trainer(batches, epochs=recipe.max_epochs, steps_per_epoch=sampler.steps_per_epoch)
    evaluator = assembly.make_evaluator("validation", progress) if assembly.cases.parts["validation"] else None
    if evaluator:
        ValidationHandler(interval=recipe.validate_every, validator=evaluator).attach(trainer)
    journal = Journal(
        run, tuple(config.data.labels), assembly.stateful, assembly.pretrained, validates=evaluator is not None
    )
    if last:
        trainer.state.epoch = journal.restore(last)
        trainer.state.iteration = trainer.state.epoch * sampler.steps_per_epoch
    if existing:
        begun = f"after epoch {trainer.state.epoch}" if last else "from its beginning: no epoch was complete"
        progress.message(f"resuming {run.path} {begun}")
        for line in differences(existing, config, device, trainer.state.iteration, sampler.steps_per_epoch):
            progress.message(f"warning: {line}")
        run.update_manifest(state="training", **computed_on(device))

    def stops_early() -> bool:
        return recipe.early_stopping is not None and journal.validations_since_best >= recipe.early_stopping

    @trainer.on(Events.EPOCH_STARTED)
    def begin_epoch(engine: Engine) -> None:
        batches.epoch = engine.state.epoch - 1
        journal.begin_epoch()

    @trainer.on(Events.ITERATION_COMPLETED)
    def after_step(engine: Engine) -> None:
        loss, done = journal.add_loss(engine.state.output["loss"])
        progress.training(engine.state.epoch, recipe.max_epochs, done, sampler.steps_per_epoch, loss)

    @trainer.on(Events.EPOCH_COMPLETED)  # after the ValidationHandler, which was attached before
    def end_epoch(engine: Engine) -> None:
        epoch = engine.state.epoch
        metrics = None
        if evaluator:
            validated = epoch % recipe.validate_every == 0
            if epoch == recipe.max_epochs and not validated:
                evaluator.run(epoch)
                validated = True
            metrics = evaluator.state.metrics if validated else None
        is_best = journal.end_epoch(epoch, metrics)
        progress.epoch(journal.rows[-1], recipe.max_epochs, is_best)
        if stops_early():
            engine.terminate()

    try:
        with explained_out_of_memory(config, device, kept=f"; the last good checkpoint is kept in {run.path}"):
            # A run that was stopped between its last epoch and its results has no further epoch.
            if trainer.state.epoch < recipe.max_epochs and not stops_early():
                trainer.run()
            if stops_early():
                progress.message(
                    f"stopped early: no better Dice in {journal.validations_since_best} validations "
                    f"since epoch {journal.best['epoch']}"
                )
            plot_course(journal.rows, run.path / PLOTS / "course.png")
            results = score_best(run, assembly, progress)
    finally:
        journal.close()
    run.update_manifest(state="finished", epochs=trainer.state.epoch, best=journal.best, results=results)
    if config.data.cache is None:
        shutil.rmtree(run.path / CACHE, ignore_errors=True)
    return run


def _prepare(
    config: Config, output: Path, existing: Run | None, device: torch.device, progress: TrainingProgress, is_new: bool
) -> tuple[Assembly, Mapping[str, Any] | None]:
    """The assembly, and the checkpoint to resume from if there is one. What is refused here leaves no new run folder."""
    warnings: Sequence[str] = ()
    if existing:
        parts = parts_of(existing, config)
        progress.message(", ".join(counted(len(members), f"{part} case") for part, members in parts.items()))
    else:
        refuse_used(output)
        split = split_of(config, progress.reading_labels)
        parts, warnings = split.parts, split.warnings
        progress.message(str(split))
    total, done = sum(map(len, parts.values())), 0

    def count(_: Case) -> None:
        nonlocal done
        done += 1
        progress.preparing(done, total)

    # Where cases cannot be read, those that can stay preprocessed for the next attempt.
    cached = cache_parts(parts, config, config.data.cache or output / CACHE, count)
    try:
        cases = TrainingCases.of(cached, config, warnings)
        if existing is None:  # earlier versions accepted such directions, and their runs can be resumed
            cases.check_flips(config)
        for line in cases.warnings:
            progress.message(f"warning: {line}")
        last = existing.load_checkpoint(LAST) if existing and (existing.path / LAST).is_file() else None
        return assemble(config, cases, device, progress, checkpoint=last), last
    except UserError:
        if is_new:
            shutil.rmtree(output / CACHE, ignore_errors=True)
        raise


def _create_run(output: Path, assembly: Assembly) -> Run:
    """The run folder, with all that is known before the first epoch."""
    config, cases = assembly.config, assembly.cases
    facts = {"in_channels": cases.in_channels, "image_dims": cases.image_dims, "labels": list(config.data.labels)}
    training = cases.parts["train"]
    measured = training[:: -(-len(training) // _MEASURED_CASES)]
    facts["intensity_range"] = measure_ranges((case.voxels, case.intensity) for case in measured)
    facts |= {"warnings": list(cases.warnings), **computed_on(assembly.device)}
    return Run.create(output, config, cases.ids, {**facts, "state": "training", "epochs": 0, **environment()})


class _EpochBatches:
    """The sampler as the iterable that ignite asks for: each pass is the epoch that was set before it."""

    def __init__(self, sampler: WindowSampler) -> None:
        self.sampler = sampler
        self.epoch = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.sampler.epoch(self.epoch)

    def __len__(self) -> int:
        return self.sampler.steps_per_epoch
