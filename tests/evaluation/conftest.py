"""What several test files of the evaluation share."""

import pytest

from r2seg.evaluation import plots


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without the plots, which take matplotlib a second, for tests of what else a page holds."""
    for name in ("distributions", "bland_altman", "curves"):
        monkeypatch.setattr(plots, name, lambda *_: None)
