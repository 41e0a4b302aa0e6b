"""What a training has reached, written into its run after every epoch: rows of metrics, the best Dice, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from r2seg.run import BEST, LAST, TENSORBOARD, Run

LAST_EPOCH = "last epoch: there are no validation cases"


class Journal:
    """Rows, best epoch and checkpoints of a run.

    Args:
        run: Where they are written.
        labels: Names of the labels, in order.
        stateful: The parts whose state a checkpoint holds, by name; "network" and "optimizer" are among them.
        pretrained: Names of the parameters that were trained before.
        validates: Whether there are validation cases. Without them the last epoch is taken for the best one.
    """

    def __init__(
        self,
        run: Run,
        labels: Sequence[str],
        stateful: Mapping[str, Any],
        pretrained: Sequence[str],
        *,
        validates: bool = True,
    ) -> None:
        self.run = run
        self.labels = labels
        self.stateful = stateful
        self.pretrained = list(pretrained)
        self.validates = validates
        self.rows: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {"dice": None, "epoch": 0}
        self.losses: list[float] = []
        self.started = time.monotonic()
        self.writer: SummaryWriter | None = None

    def restore(self, checkpoint: Mapping[str, Any]) -> int:
        """Restores everything to the end of the checkpoint's epoch, and returns that epoch."""
        for name, part in self.stateful.items():
            part.load_state_dict(checkpoint[name])
        self.rows, self.best = checkpoint["rows"], checkpoint["best"]
        return checkpoint["epoch"]

    def begin_epoch(self) -> None:
        """Starts the epoch's clock and its mean loss."""
        self.losses.clear()
        self.started = time.monotonic()

    def add_loss(self, loss: float) -> tuple[float, int]:
        """Adds the loss of a step; returns the mean loss and the number of steps of this epoch so far."""
        self.losses.append(loss)
        return self._mean_loss(), len(self.losses)

    def end_epoch(self, epoch: int, metrics: Mapping[str, Any] | None) -> bool:
        """Writes the epoch, and returns whether its Dice is the best so far.

        Args:
            epoch: Counted from 1.
            metrics: Those of the evaluator; None if it did not run in this epoch.
        """
        row = self._row(epoch, metrics)
        self.rows.append(row)
        dice = row.get("validation_dice", math.nan)
        is_best = not math.isnan(dice) and (self.best["dice"] is None or dice > self.best["dice"])
        if is_best:
            self.best = {"dice": dice, "epoch": epoch}
        elif not self.validates:
            self.best = {"dice": None, "epoch": epoch, "chosen_by": LAST_EPOCH}
        self._save_checkpoints(epoch, is_best or not self.validates)
        self.run.write_metrics(self.rows)
        self._write_tensorboard(row)
        return is_best

    @property
    def validations_since_best(self) -> int:
        """Validations after the one with the best Dice."""
        return sum(1 for row in self.rows if row["epoch"] > self.best["epoch"] and "validation_dice" in row)

    def close(self) -> None:
        """Closes the TensorBoard file."""
        if self.writer is not None:
            self.writer.close()

    def _mean_loss(self) -> float:
        return sum(self.losses) / len(self.losses)

    def _row(self, epoch: int, metrics: Mapping[str, Any] | None) -> dict[str, Any]:
        rates = [group["lr"] for group in self.stateful["optimizer"].param_groups]
        row = {"epoch": epoch, "learning_rate": max(rates), "loss": self._mean_loss()}
        if metrics is not None:
            row |= {"validation_dice": metrics["dice"], "validation_iou": metrics["iou"]}
            for score in ("dice", "iou"):
                means = metrics[f"{score}_cases"].nanmean(0).tolist()
                row |= {f"{score}_{name}": value for name, value in zip(self.labels, means, strict=True)}
        row["seconds"] = round(time.monotonic() - self.started, 3)
        return row

    def _save_checkpoints(self, epoch: int, to_predict: bool) -> None:
        state = {name: part.state_dict() for name, part in self.stateful.items()}
        state["network"] = {name: tensor.detach().cpu() for name, tensor in state["network"].items()}
        if to_predict:
            self.run.save_checkpoint(BEST, {"network": state["network"], **self.best})
        progress = {"epoch": epoch, "pretrained": self.pretrained, "rows": self.rows, "best": self.best}
        self.run.save_checkpoint(LAST, {**state, **progress})

    def _write_tensorboard(self, row: Mapping[str, Any]) -> None:
        if self.writer is None:
            self.writer = SummaryWriter(str(self.run.path / TENSORBOARD), purge_step=row["epoch"])
        for name, value in row.items():
            if name != "epoch":
                self.writer.add_scalar(name, value, row["epoch"])
        self.writer.flush()
