"""What a terminal shows while a training runs."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from r2seg.training.progress import LiveProgress, PlainProgress


@pytest.mark.parametrize("live", [True, False])
def test_lines_fit_a_terminal_and_the_bar_leaves_columns_for_an_interruption(live: bool) -> None:
    shown_text = io.StringIO()
    progress = (LiveProgress if live else PlainProgress)(Console(file=shown_text, force_terminal=live, width=80))
    row = {"epoch": 7, "loss": 1.25, "validation_dice": 0.9, "validation_iou": 0.8, "seconds": 1234.5}
    progress.reading_labels(2, 3)
    progress.reading_labels(3, 3)
    progress.preparing(3, 3)
    progress.training(7, 200, 3, 5, 1.25)
    progress.epoch(row, 200, True)
    progress.training(8, 200, 1, 5, 1.25)
    if live:
        progress.bar.refresh()
    progress.close()
    shown = [
        line for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown_text.getvalue()).replace("\r", "\n").splitlines()
    ]
    assert sum("3 label maps read to stratify the split" in line for line in shown) == 1
    assert any("epoch   7/200  loss 1.2500  validation Dice 0.9000" in line for line in shown)
    if live:
        assert max(map(len, shown)) <= 78  # ^C behind a full line would leave half a bar
        assert any("epoch 8/200" in line and "left" in line for line in shown)
    else:
        assert shown[-1].endswith(" left")
