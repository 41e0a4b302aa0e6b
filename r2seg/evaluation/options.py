"""What can be asked of an evaluation: every option with its type, default, documentation and checks, declared once.

The command, ``evaluate()`` and the settings in the report read the options from here. Nothing heavy is imported at the top,
because ``--help`` needs this module.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from r2seg.errors import UserError
from r2seg.labels import MOST_OVERLAPPING, IgnoreLabel, Label, Labels, values_of

if TYPE_CHECKING:
    from r2seg.thresholds import Thresholds

ID = "{id}"

MISSING = {
    "miss": "a case without a prediction is scored as if nothing was predicted",
    "skip": "such cases are left out",
}
UNDECLARED = {
    "error": "values in the files that are not a declared label are refused",
    "background": "such values count as background",
}

# Headings of the command's help, in this order.
HEADINGS = FILES, COUNTED, THRESHOLDS, COMPARISONS, REPORT, OTHER = (
    "Which files belong together",
    "What is counted",
    "Thresholds of probabilities",
    "Comparisons",
    "The report",
    "Options",
)


@dataclass(frozen=True)
class Option:
    """What is declared about one field of `EvaluationOptions`, beside its type and default.

    Attributes:
        help: Its documentation, in Python and on the command line; by default its choices and their meaning.
        heading: Heading of the command's help below which it stands; None if the command does not have the option.
        metavar: Stands for the value in the command's help.
        flag: Its name on the command line, if that is not the field's name.
        choices: The valid values and their meaning; empty if any value of the type is valid.
        minimum: The smallest valid number.
        recorded: Whether the report's settings show the value as it was given.
    """

    help: str = ""
    heading: str | None = None
    metavar: str | None = None
    flag: str | None = None
    choices: Mapping[str, str] = field(default_factory=dict)
    minimum: float | None = None
    recorded: bool = False

    def __post_init__(self) -> None:
        if self.choices:
            text = "; ".join(f"{value}: {meaning}" for value, meaning in self.choices.items())
            object.__setattr__(self, "help", f"{text}.")


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """What `evaluate` is asked, checked when it is made.

    Paths may be given as text. ``threshold`` is one number for all labels, a number for each label, or the path of a run or
    report that holds ``thresholds.json``. Thresholds that were chosen on cases that are scored are an oracle's, and the
    method's name says so. ``measures`` holds the names of single measures once the options are made.

    Raises:
        UserError: A value is not valid whichever files are scored.
    """

    prediction_name: Annotated[
        str,
        Option(
            "File name of a prediction without its suffix, around the case's id: '{id}_seg'.",
            FILES,
            "PATTERN",
            recorded=True,
        ),
    ] = ID
    reference_name: Annotated[
        str,
        Option("The same for a reference: '{id}_1stHO'. Other files are passed over.", FILES, "PATTERN", recorded=True),
    ] = ID
    mask_name: Annotated[str, Option("The same for a field of view.", FILES, "PATTERN", recorded=True)] = ID
    group: Annotated[
        str | None,
        Option(
            "Regular expression whose first group, found in a case's id, is the patient: '^(\\d+)'. Intervals are over patients.",
            FILES,
            "REGEX",
            recorded=True,
        ),
    ] = None
    labels: Annotated[
        Labels | None,
        Option(
            "Name of a label, and its value or values in the files [default: every value in the references is a label].",
            COUNTED,
            "NAME=VALUE[+VALUE]",
            flag="--label",
        ),
    ] = None
    ignore_label: Annotated[
        IgnoreLabel | None,
        Option("Value in the references of pixels that are not counted.", COUNTED, "N", recorded=True),
    ] = None
    overlapping: Annotated[
        bool,
        Option(
            "Labels may overlap: a file holds one channel per label, or is a picture that r2seg-infer wrote of such labels.",
            COUNTED,
            recorded=True,
        ),
    ] = False
    masks: Annotated[
        Path | None,
        Option(
            "Folder of fields of view; pixels outside are not counted. Replaces a config's own masks.", COUNTED, "DIR"
        ),
    ] = None
    measures: Annotated[
        Sequence[str],
        Option(
            "Families of measures (all, counts, volumes, surfaces, components, centerlines, probabilities) or single ones.",
            COUNTED,
            "NAME,NAME",
        ),
    ] = ("counts", "volumes")
    tolerance_mm: Annotated[
        float,
        Option(
            "Tolerance of the surface Dice in mm; in pixels for pictures.", COUNTED, "F", minimum=0.0, recorded=True
        ),
    ] = 1.0
    missing: Annotated[str, Option(heading=COUNTED, metavar="RULE", choices=MISSING, recorded=True)] = "miss"
    undeclared: Annotated[str, Option(heading=COUNTED, metavar="RULE", choices=UNDECLARED, recorded=True)] = "error"
    resample: Annotated[
        bool,
        Option(
            "Resample predictions on another grid to the reference's (nearest neighbour) instead of refusing them.",
            COUNTED,
            recorded=True,
        ),
    ] = False
    probabilities: Annotated[
        Path | None, Option("Folder of probability maps [default: PREDICTIONS/probabilities].", THRESHOLDS, "DIR")
    ] = None
    threshold: Annotated[
        float | Mapping[str, float] | Path | None,
        Option(
            "Probability from which a pixel is predicted, in place of the label maps; labels may then overlap.",
            THRESHOLDS,
            "F",
        ),
    ] = None
    against: Annotated[
        Sequence[Path],
        Option("Folder of another method's label maps, compared on the same cases.", COMPARISONS, "DIR", recorded=True),
    ] = ()
    observer: Annotated[
        Path | None,
        Option(
            "Folder of a second reference, scored against the first like a method.", COMPARISONS, "DIR", recorded=True
        ),
    ] = None
    observer_name: Annotated[
        str, Option("Its file names without suffix, around the case's id: '{id}_2ndHO'.", COMPARISONS, "PATTERN")
    ] = ID
    images: Annotated[
        Path | None,
        Option("Folder of the images, shown in report.html. Replaces a config's own images.", REPORT, "DIR"),
    ] = None
    series: Annotated[
        Sequence[int | str],
        Option("Number or UID of the DICOM series to take from image folders that hold several.", REPORT, "NUMBER|UID"),
    ] = ()
    image_name: Annotated[
        str, Option("File name of an image without its suffix, around the case's id.", REPORT, "PATTERN")
    ] = ID
    workers: Annotated[
        int | None, Option("Cases read at the same time [default: one per core, at most 4].", OTHER, "N", minimum=1)
    ] = None
    device: Annotated[str, Option("Where pixels are counted: auto, cpu, cuda, cuda:N or mps.")] = "auto"
    name: Annotated[str | None, Option("Name of the first method in all tables [default: the end of its path].")] = None
    provenance: Annotated[
        Mapping[str, Any] | None, Option("Facts by name that the report's settings shall also show.")
    ] = None

    def __post_init__(self) -> None:
        for name in ("masks", "probabilities", "observer", "images", "threshold"):
            value = getattr(self, name)
            self._set(name, Path(value) if isinstance(value, str) else value)
        self._set("against", tuple(map(Path, self.against)))
        for name, about in DECLARED.items():
            value = getattr(self, name)
            if about.choices and value not in about.choices:
                raise UserError(f"{name} is {value!r}: give one of {', '.join(about.choices)}")
            if about.minimum is not None and value is not None and value < about.minimum:
                raise UserError(f"{name} is {value:g}: give at least {about.minimum:g}")
            if name.endswith("_name"):
                _check_pattern(name, value)
        if self.group is not None:
            _check_group(self.group)
        if self.labels is not None:
            self._set("labels", _checked_labels(self.labels, self.ignore_label, self.overlapping))
        elif self.overlapping:
            raise UserError(
                "overlapping labels have to be named, in the order of the channels: --label disc=1 --label cup=1"
            )
        self.read_thresholds()
        from r2seg.metrics.catalogue import choose_measures

        self._set("measures", choose_measures(self.measures))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def read_thresholds(self) -> Thresholds | None:
        """The thresholds that ``threshold`` names, or None.

        Raises:
            UserError: There is no such file, it is damaged, or a number is not a probability.
        """
        from r2seg.thresholds import Thresholds

        return None if self.threshold is None else Thresholds.of(self.threshold)

    @property
    def uses_probabilities(self) -> bool:
        """Whether probability maps are needed."""
        from r2seg.metrics.catalogue import MEASURES

        return self.threshold is not None or any(MEASURES[key].family == "probabilities" for key in self.measures)

    def recorded(self) -> dict[str, Any]:
        """The options that the report's settings show as they were given."""
        return {name: getattr(self, name) for name, about in DECLARED.items() if about.recorded}


DECLARED: dict[str, Option] = {
    name: hint.__metadata__[0] for name, hint in get_type_hints(EvaluationOptions, include_extras=True).items()
}
"""Name -> declaration of every option."""

EvaluationOptions.__doc__ = (EvaluationOptions.__doc__ or "").rstrip() + "\n\n    Attributes:\n" + "".join(
    f"        {name}: {about.help}\n" for name, about in DECLARED.items()
)  # fmt: skip


def _checked_labels(labels: Labels, ignore_label: IgnoreLabel | None, overlapping: bool) -> Labels:
    if not labels:
        raise UserError("labels is empty: name at least one, such as lung=1")
    seen: dict[IgnoreLabel, str] = {0: "the background"}
    if ignore_label is not None:
        seen[ignore_label] = "ignore_label"
    if overlapping and len(labels) > MOST_OVERLAPPING:
        raise UserError(f"there are {len(labels)} labels: at most {MOST_OVERLAPPING} can overlap")
    for name, values in labels.items():
        if overlapping:  # each has a channel of its own
            seen = {value: owner for value, owner in seen.items() if not owner.startswith("label ")}
        for value in values_of(values):
            if value in seen:
                raise UserError(f"label {name} takes the value {value}, which is that of {seen[value]}")
            seen[value] = f"label {name}"
    return {
        # A label of a config keeps its colours.
        name: values
        if isinstance(values, Label)
        else int(values)
        if isinstance(values, Integral)
        else values_of(values)
        for name, values in labels.items()
    }


def _check_pattern(option: str, pattern: str) -> None:
    if pattern.count(ID) != 1 or "/" in pattern:
        raise UserError(f"{option.replace('_', ' ')} {pattern!r}: write {ID} once, and no folder, such as '{ID}_1stHO'")


def _check_group(pattern: str) -> None:
    try:
        complete = re.compile(pattern).groups > 0
    except re.error:
        complete = False
    if not complete:
        raise UserError(f"--group {pattern!r}: give a regular expression with one group, such as '^(.+)_slice'")
