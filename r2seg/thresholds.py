"""Thresholds that were chosen on validation cases, and a record of which cases those were.

A file ``thresholds.json`` holds both. It lies in a run, or in a report whose probabilities were scored. If a case that a
threshold was chosen on is scored with it, the numbers are those of an oracle; `Thresholds.chosen_on` detects that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from r2seg.data.formats.dicom_files import label_file_of
from r2seg.errors import UserError

FILE = "thresholds.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Thresholds:
    """For each label, the probability from which a pixel is predicted.

    Attributes:
        values: Label -> threshold; empty in a file that says why none were chosen.
        criterion: What they maximize, such as "pooled Dice".
        references: SHA-256 of the reference files they were chosen on; only of files that hold a label, as empty ones look alike.
    """

    values: Mapping[str, float]
    criterion: str = "given"
    references: frozenset[str] = frozenset()

    @classmethod
    def of(cls, given: float | Mapping[str, float] | Path) -> Thresholds:
        """Thresholds from one number for all labels (under the name ""), a number for each, or a file or folder that holds them.

        Raises:
            UserError: There is no such file, it is not a file of thresholds, or a number is not a probability above 0.
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
                raise UserError(
                    f"{file}: schema version {held['schema_version']}, but this version of r2seg reads {SCHEMA_VERSION}"
                )
            values = {str(name): float(value) for name, value in held["values"].items()}
            if not values:
                raise UserError(
                    f"{file}: holds no thresholds ({held['criterion']}); give one, such as --threshold 0.5, or choose them on "
                    "validation cases"
                )
            return cls(values, str(held["criterion"]), frozenset(map(str, held["references"])))
        except FileNotFoundError:
            raise UserError(
                f"{file}: there are no thresholds; score validation cases with --measures probabilities -o REPORT, "
                "and name that report"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{file}: this is not a file of thresholds ({type(error).__name__}: {error})") from None

    def json(self) -> str:
        """Text of the file."""
        held = {"schema_version": SCHEMA_VERSION, **asdict(self), "references": sorted(self.references)}
        return json.dumps(held, indent=1)

    def for_labels(self, labels: Iterable[str]) -> dict[str, float]:
        """Label -> threshold, for all of these labels.

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
    """SHA-256 of a label file's bytes; of a folder, those of the DICOM label in it."""
    found = label_file_of(path) if path.is_dir() else None
    with open(found[0] if found else path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
