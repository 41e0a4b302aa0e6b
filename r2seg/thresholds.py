"""Thresholds that were chosen on validation cases, and the memory of which cases those were.

A file ``thresholds.json`` holds both. It lies in a report whose probabilities were scored, or in a run. Scoring one of the
cases that a threshold was chosen on makes every number an oracle's, and this room is where that is found out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from r2seg.errors import UserError

FILE = "thresholds.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Thresholds:
    """A probability for each label from which a pixel is predicted.

    Attributes:
        values: Label -> threshold.
        criterion: What was best at them, such as "pooled Dice".
        references: SHA-256 of the reference files they were chosen on, of those that hold a label: empty ones look alike.
    """

    values: Mapping[str, float]
    criterion: str = "given"
    references: frozenset[str] = frozenset()

    @classmethod
    def of(cls, given: float | Mapping[str, float] | Path) -> Thresholds:
        """Thresholds from a number for all labels (under the name ""), numbers by label, or a file or folder that holds them.

        Raises:
            UserError: There is no such file, it is not one of ours, or a number is not between 0 and 1.
        """
        if isinstance(given, Path):
            return cls._read(given)
        values = dict(given) if isinstance(given, Mapping) else {"": float(given)}
        for name, value in values.items():
            if not 0 < value <= 1:
                raise UserError(
                    f"threshold{f' of {name}' if name else ''} is {value:g}: give a probability above 0, at most 1"
                )
        return cls(values)

    @classmethod
    def _read(cls, path: Path) -> Thresholds:
        file = path / FILE if path.is_dir() else path
        try:
            held = json.loads(file.read_text("utf-8"))
            if held["schema_version"] != SCHEMA_VERSION:
                raise UserError(f"{file}: schema version {held['schema_version']}, and {SCHEMA_VERSION} is understood")
            values = {str(name): float(value) for name, value in held["values"].items()}
            return cls(values, str(held["criterion"]), frozenset(map(str, held["references"])))
        except FileNotFoundError:
            raise UserError(
                f"{file}: there are no thresholds; score validation cases with --measures probabilities -o REPORT, "
                "and name that report"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{file}: this is no file of thresholds ({type(error).__name__}: {error})") from None

    def json(self) -> str:
        """Text of the file."""
        held = {"schema_version": SCHEMA_VERSION, **asdict(self), "references": sorted(self.references)}
        return json.dumps(held, indent=1)

    def for_labels(self, labels: Iterable[str]) -> dict[str, float]:
        """Label -> threshold, every label having one.

        Raises:
            UserError: The labels differ.
        """
        labels = list(labels)
        if set(self.values) == {""}:
            return dict.fromkeys(labels, self.values[""])
        if set(self.values) != set(labels):
            raise UserError(
                f"thresholds are for {', '.join(sorted(self.values))} and the labels are {', '.join(sorted(labels))}"
            )
        return {label: self.values[label] for label in labels}

    def chosen_on(self, references: Iterable[Path]) -> list[Path]:
        """Those of the references that the thresholds were chosen on, wherever the files lie now."""
        return [path for path in references if self.references and fingerprint(path) in self.references]


def fingerprint(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
