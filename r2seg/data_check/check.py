"""The check itself: from a config to everything that is known about its data, and all that is wrong, at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from r2seg.case_sets import split_of
from r2seg.config import Config
from r2seg.data.augmentation import refuse_missing_directions
from r2seg.data.cases import Case
from r2seg.data.fingerprint import CaseContents, CaseFacts, evenly_spread, facts_of, read_case
from r2seg.data.layouts import find_cases
from r2seg.data.layouts.tree import LayoutError
from r2seg.data.splits import PARTS, DrawnSplit
from r2seg.data_check.findings import Finding, Member, in_reading_order, remarks
from r2seg.data_check.rules import Traits, refusals
from r2seg.errors import UserError
from r2seg.labels import hexadecimal
from r2seg.palette import drawn_colors
from r2seg.pictures.contact_sheet import Tile, tile_of
from r2seg.workers import in_order

ALL = "all"
"""The part of every case where no split can be drawn."""

# Values kept of each channel for the histograms: as many quantiles.
_QUANTILES = np.linspace(0, 1, 2001)


@dataclass(frozen=True)
class CheckedCase(Member):
    """A case with what is shown of it.

    Attributes:
        quantiles: Of each channel, evenly spread ones from minimum to maximum.
        tile: Its small picture, or None.
    """

    quantiles: tuple[np.ndarray, ...] = ()
    tile: Tile | None = None


@dataclass(frozen=True)
class DataCheck:
    """What the data of a config are.

    Attributes:
        config: The config.
        cases: The cases of the split, by part and id.
        split: The split; None if it cannot be drawn.
        errors: What training would refuse, sorted.
        warnings: What a person should know, sorted.
        colours: Label -> the colour that it is drawn in.
    """

    config: Config
    cases: Sequence[CheckedCase]
    split: DrawnSplit | None
    errors: Sequence[Finding]
    warnings: Sequence[Finding]
    colours: dict[str, str]

    @property
    def parts(self) -> dict[str, list[CheckedCase]]:
        """Part -> its cases; only parts that have some."""
        return {
            part: members for part in (*PARTS, ALL) if (members := [case for case in self.cases if case.part == part])
        }

    def raise_errors(self) -> DrawnSplit:
        """The split, if there is no error.

        Raises:
            UserError: With every error, one line each.
        """
        if self.errors or self.split is None:
            raise UserError("\n".join(finding.text for finding in self.errors))
        return self.split


def check_data(
    config: Config,
    *,
    pictures: bool = False,
    workers: int | None = None,
    on_case: Callable[[int, int], None] | None = None,
) -> DataCheck:
    """Reads every case of a config and looks for all that is wrong; files are only read.

    Args:
        config: Its data, split, window and preprocessing sections are held against the files.
        pictures: Also make a small picture of each case.
        workers: Cases read at the same time; None for one per core, at most 4.
        on_case: Called with the number of cases done and of all cases after each.
    """
    errors: list[Finding] = []
    data = config.data
    colours = {name: hexadecimal(color) for name, color in drawn_colors(data.labels).items()}
    with _collected_warnings() as logged:
        try:
            found = find_cases(config.data)
        except LayoutError as error:
            errors += [Finding("names", line) for line in error.problems]
            found = list(error.cases)
        except UserError as error:
            errors += [Finding("names", line) for line in str(error).splitlines()]
            found = []
        # Without some of its cases a data set has another split, whose mistakes would be none of its own.
        split = None if errors else _split_of(found, config, errors)
        parts = split.parts if split else {ALL: found}
        chosen = [(part, case) for part, members in parts.items() for case in members]

        def look(item: tuple[str, Case]) -> CheckedCase:
            part, case = item
            contents = read_case(case, data.labels, data.ignore_label, overlapping=data.overlapping, series=data.series)
            checked = _checked(part, case, contents, config)
            return replace(checked, tile=_tile(contents, config, colours)) if pictures else checked

        cases = list(in_order(look, chosen, workers, on_case))
    for case in cases:
        errors += [Finding("file", text, case.case.id) for text in case.facts.problems]
    errors += _refused(cases, config)
    warnings = [Finding("reading", text) for text in logged]
    warnings += [Finding("split", text) for text in (split.warnings if split else ())]
    return DataCheck(
        config, cases, split, in_reading_order(errors), in_reading_order([*warnings, *remarks(cases, config)]), colours
    )


def _split_of(found: Sequence[Case], config: Config, errors: list[Finding]) -> DrawnSplit | None:
    try:
        return split_of(config, cases=found)
    except UserError as error:
        errors += [Finding("split", line) for line in str(error).splitlines()]
        return None


def _checked(part: str, case: Case, contents: CaseContents, config: Config) -> CheckedCase:
    facts: CaseFacts = facts_of(case, contents, config.data.labels, config.data.overlapping)
    channels = () if contents.image is None else tuple(contents.image.array)
    quantiles = tuple(np.quantile(evenly_spread(channel), _QUANTILES).astype(np.float32) for channel in channels)
    return CheckedCase(case, part, facts, quantiles)


def _tile(contents: CaseContents, config: Config, colours: dict[str, str]) -> Tile | None:
    if contents.image is None:
        return None
    window = config.preprocessing.intensity
    shown = (window.low, window.high) if window.kind == "hu_window" else None
    return tile_of(contents.image, contents.indices, list(colours.values()), shown, overlapping=config.data.overlapping)


def _refused(cases: Sequence[CheckedCase], config: Config) -> list[Finding]:
    """What training refuses of the cases that can be read."""
    parts: dict[str, list[Traits]] = {}
    for case in cases:
        facts = case.facts
        # A label that cannot be read must not be told as missing too.
        known = facts.foreground and not facts.problems
        held = (
            frozenset(index for index, count in enumerate(facts.foreground.values(), start=1) if count)
            if known
            else None
        )
        parts.setdefault(case.part, []).append(Traits(facts.id, len(facts.shape), facts.num_channels, held))
    found = refusals(parts, config)
    readable = [case for case in cases if case.facts.shape]
    if readable:
        try:
            refuse_missing_directions(
                config.augmentation.flip, config.window, pictures=len(readable[0].facts.shape) == 2
            )
        except UserError as error:
            found.append(str(error))
    return [Finding("together", text) for text in found]


@contextmanager
def _collected_warnings() -> Iterator[list[str]]:
    """Texts that r2seg's modules log as warnings meanwhile, instead of being printed among the progress."""
    texts: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            texts.append(record.getMessage())

    logger, handler = logging.getLogger("r2seg"), Collect(logging.WARNING)
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield texts
    finally:
        logger.removeHandler(handler)
        logger.propagate = before
