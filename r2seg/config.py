"""The config: one page of typed, frozen schema, and errors that name key, line and remedy.

What lives here: the schema, reading YAML with its line numbers, ``--set`` overrides, and the checks that need no data. What
does not: whether a folder's images are sound (data/), or how a network is built (networks/). Importing this module loads no
torch; ``load_config`` looks at the networks' signatures only to bind ``network`` options to them.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from r2seg.errors import UserError

if TYPE_CHECKING:
    from r2seg.networks.base import SegmentationNetwork


class ConfigError(UserError):
    """Everything that is wrong with a config, one line a mistake."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _one_or_many(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    if not isinstance(value, list | tuple):
        raise ValueError(f"{_shown(value)}: give a whole number, or a list of them")
    return tuple(value)


def _as_path(value: Any) -> Any:
    if not isinstance(value, str) or not value.strip():
        return value
    if "\0" in value:
        raise ValueError(f"{value!r}: no path holds a zero character")
    try:
        return Path(value).expanduser()
    except RuntimeError as error:  # ~nobody/data
        raise ValueError(f"{value!r}: {error}") from None


def _shown(value: Any) -> str:
    """A value as YAML writes it, cut where it is long."""
    text = (
        {None: "null", True: "true", False: "false"}[value]
        if value is None or value is True or value is False
        else repr(value)
    )
    return text if len(text) < 60 else text[:57] + "..."


Fraction = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
FilePath = Annotated[Path, BeforeValidator(_as_path)]
Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
LabelValues = Annotated[tuple[Annotated[int, Field(ge=1, le=255)], ...], BeforeValidator(_one_or_many)]
Plane = Literal["axial", "coronal", "sagittal"]
Precision = Literal["auto", "float32", "bf16", "fp16"]
Problem = tuple[tuple[str, ...], str]  # the key's path and what is wrong

# Class indices are uint8 with 0 for background and 255 for ignored pixels.
_MOST_LABELS = 254


class Section(BaseModel):
    """Base of every section: frozen, strict types, finite numbers, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())


class Split(Section):
    """Which cases train, which choose the checkpoint and which are held out. Groups (patients) are never divided."""

    validation: Fraction | Names = Field(0.2, description="share of the groups, or the ids of cases or groups")
    test: Fraction | Names = Field(0.0, description="share of the groups, or the ids of cases or groups")
    train: Names | None = Field(None, description="ids of cases or groups; all that remain where it is left out")
    by: Literal["group", "case"] = "group"

    @field_validator("test")
    @classmethod
    def _leaves_something(cls, test: float | tuple[str, ...], info: ValidationInfo) -> float | tuple[str, ...]:
        shares = [share for share in (info.data.get("validation"), test) if isinstance(share, float)]
        if sum(shares) >= 1:
            raise ValueError(f"validation and test take {sum(shares):g} of the cases: leave some to train on")
        return test


class Data(Section):
    """Where the cases are and what their labels mean."""

    layout: Literal["folder", "voc"] = Field("folder", description="how files are named and paired: see data/cases.py")
    root: FilePath = Field(
        description="folder with images/ and labels/ (masks/ for fields of view); relative to the config file"
    )
    labels: dict[str, LabelValues] = Field(
        description="foreground labels: name -> value(s) in the files; 0 is background"
    )
    ignore_label: Annotated[int, Field(ge=1, le=255)] | None = Field(
        None, description="file value that is neither trained nor scored"
    )
    group: str | None = Field(
        None, description="regular expression whose first group, found in the case id, is the patient"
    )
    split: Split = Split()
    cache: FilePath | None = Field(
        None, description="folder for preprocessed cases; inside the run where it is left out"
    )

    @field_validator("labels")
    @classmethod
    def _labels_are_distinct(cls, labels: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        if not labels:
            raise ValueError("name at least one label, such as {lung: 1}")
        if len(labels) > _MOST_LABELS:
            raise ValueError(
                f"{len(labels)} labels: at most {_MOST_LABELS} fit a label map beside background and ignored"
            )
        taken: dict[int, str] = {}
        for name, values in labels.items():
            if not name.strip():
                raise ValueError("a label has an empty name")
            if not values:
                raise ValueError(f"{name} has no value")
            for value in values:
                if value in taken:
                    both = (
                        f"{name} holds {value} twice"
                        if taken[value] == name
                        else f"{taken[value]} and {name} both take the value {value}"
                    )
                    raise ValueError(both)
                taken[value] = name
        return labels

    @field_validator("ignore_label")
    @classmethod
    def _ignored_is_no_label(cls, ignore_label: int | None, info: ValidationInfo) -> int | None:
        for name, values in info.data.get("labels", {}).items():
            if ignore_label in values:
                raise ValueError(f"{ignore_label} is also a value of the label {name}")
        return ignore_label

    @field_validator("group")
    @classmethod
    def _pattern_has_a_group(cls, group: str | None) -> str | None:
        if group is None:
            return None
        try:
            groups = re.compile(group).groups
        except re.error as error:
            raise ValueError(f"{group!r} is no regular expression: {error}") from None
        if groups < 1:
            raise ValueError(f"{group!r} has no parentheses: put them around the patient's part of the id")
        return group

    @field_serializer("labels")
    def _plain_labels(self, labels: dict[str, tuple[int, ...]]) -> dict[str, int | list[int]]:
        return {name: values[0] if len(values) == 1 else list(values) for name, values in labels.items()}


def _above_low(high: float, info: ValidationInfo) -> float:
    low = info.data.get("low")
    if low is not None and low >= high:
        raise ValueError(f"{high:g} is not above low, {low:g}")
    return high


class HuWindow(Section):
    """Clip to [low, high] Hounsfield units, then map linearly to [0, 1]."""

    kind: Literal["hu_window"]
    low: float
    high: float

    _ordered = field_validator("high")(_above_low)


class Percentile(Section):
    """Clip each channel to two percentiles of the case, then map linearly to [0, 1]."""

    kind: Literal["percentile"]
    low: Annotated[float, Field(ge=0, le=100)] = 0.5
    high: Annotated[float, Field(ge=0, le=100, validate_default=True)] = 99.5

    _ordered = field_validator("high")(_above_low)


class ZScore(Section):
    """Each channel of a case to mean 0 and standard deviation 1."""

    kind: Literal["zscore"] = "zscore"


class Unit(Section):
    """The whole range of the file's integer type to [0, 1]: 255 of a uint8 picture becomes 1."""

    kind: Literal["unit"]


Intensity = Annotated[HuWindow | Percentile | ZScore | Unit, Field(discriminator="kind")]


class Preprocessing(Section):
    """The deterministic chain: orientation and spacing, then intensity."""

    intensity: Intensity = ZScore()
    spacing_mm: (
        Annotated[tuple[PositiveFloat, ...], BeforeValidator(_as_tuple), Field(min_length=3, max_length=3)] | None
    ) = Field(None, description="voxel size [R-L, A-P, S-I] of the working grid; the files' own where it is left out")


class Window(Section):
    """The window that training draws and inference slides: one setting for both."""

    size: Annotated[tuple[PositiveInt, ...], BeforeValidator(_as_tuple), Field(min_length=2, max_length=3)]
    plane: Plane | None = Field(None, description="plane of 2-D windows in volumes")
    overlap: Fraction = 0.25
    batch_size: PositiveInt = 8
    blend: Literal["gaussian", "constant"] = "gaussian"

    @field_validator("plane")
    @classmethod
    def _plane_goes_with_two_dims(cls, plane: str | None, info: ValidationInfo) -> str | None:
        size = info.data.get("size", ())
        if plane is not None and len(size) == 3:
            raise ValueError(
                f"{plane} goes with a 2-D window, and window.size {list(size)} is 3-D: leave plane out, or give two numbers"
            )
        return plane


class Network(Section):
    """Name of a network and its options; the class's signature is the schema of the rest."""

    model_config = ConfigDict(extra="allow")

    name: str = "R2UNet"
    output: Literal["softmax", "sigmoid"] = Field(
        "softmax", description="softmax: background and labels exclude each other"
    )
    weights: FilePath | None = Field(None, description="a run, or a file of weights, that training starts from")
    reset: Names = Field((), description="layers that start afresh although weights are given, such as [head]")

    @property
    def options(self) -> dict[str, Any]:
        """Keyword options for the class, as written in the config."""
        return dict(self.model_extra or {})


class Sampling(Section):
    """How windows are drawn from the training cases."""

    windows_per_epoch: PositiveInt = Field(256, description="windows, not cases; an epoch is this many draws")
    foreground: Probability = Field(0.5, description="share of windows that surely hold a labelled pixel")


class Augmentation(Section):
    """Random changes of the training windows; all strengths 0 or empty turn it off."""

    flip: Annotated[tuple[Literal["left-right", "front-back", "up-down"], ...], BeforeValidator(_as_tuple)] = Field(
        (), description="axes to mirror; pictures have left-right and up-down"
    )
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 10.0
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.1
    brightness: Annotated[float, Field(ge=0)] = 0.05
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.1
    noise: Annotated[float, Field(ge=0)] = 0.02


class Training(Section):
    """The recipe."""

    max_epochs: PositiveInt = 100
    learning_rate: PositiveFloat = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    warmup_epochs: Annotated[float, Field(ge=0)] = 1.0
    optimizer: Literal["adamw", "sgd"] = "adamw"
    loss: Literal["dice_ce", "ce", "dice"] = "dice_ce"
    gradient_clip: PositiveFloat | None = Field(1.0, description="largest norm of the gradient")
    backbone_learning_rate: PositiveFloat | None = Field(
        None,
        description="of what network.pretrained or network.weights gave the backbone; else learning_rate holds for all",
    )
    auxiliary_weight: Annotated[float, Field(ge=0)] = Field(
        0.4, description="of the loss of an auxiliary head, where the network has one"
    )
    precision: Precision = "auto"
    validate_every: PositiveInt = Field(1, description="epochs between validations on whole cases")
    early_stopping: PositiveInt | None = Field(None, description="validations without a better Dice before it stops")


class Infer(Section):
    """How a trained run predicts."""

    precision: Precision = "auto"


class LargestComponents(Section):
    """Keep the ``count`` largest connected components of a label."""

    step: Literal["largest_components"]
    label: str
    count: PositiveInt = 1


class FillHoles(Section):
    """Fill the holes of a label that background does not reach."""

    step: Literal["fill_holes"]
    label: str


PostprocessingStep = Annotated[LargestComponents | FillHoles, Field(discriminator="step")]


class Config(Section):
    """A whole experiment. See configs/ for examples."""

    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    data: Data
    preprocessing: Preprocessing = Preprocessing()
    window: Window
    network: Network = Network()
    sampling: Sampling = Sampling()
    augmentation: Augmentation = Augmentation()
    training: Training = Training()
    infer: Infer = Infer()
    postprocessing: Annotated[tuple[PostprocessingStep, ...], BeforeValidator(_as_tuple)] = ()

    @property
    def spatial_dims(self) -> int:
        """2 where windows are slices or pictures, 3 where they are boxes."""
        return len(self.window.size)

    @property
    def out_channels(self) -> int:
        """Channels of the logits: labels and background for softmax, labels alone for sigmoid."""
        return len(self.data.labels) + (self.network.output == "softmax")

    @model_validator(mode="after")
    def _steps_name_labels(self) -> Config:
        for path, text in _unknown_labels(self.data.labels, [step.label for step in self.postprocessing]):
            raise PydanticCustomError("at_key", "{text}", {"path": path, "text": text})
        return self


def _unknown_labels(labels: Iterable[str], named: Iterable[Any]) -> list[Problem]:
    """Postprocessing steps whose label is not declared."""
    return [
        (("postprocessing", str(index), "label"), f"{label!r} is none of data.labels; {nearest(label, labels)}")
        for index, label in enumerate(named)
        if isinstance(label, str) and label not in labels
    ]


# Keys of ``network`` that the config sets itself and no one may write.
_DERIVED = ("in_channels", "out_channels")


# YAML 1.2's plain values, not 1.1's: 1e-4 and -.5 are numbers; yes, on, 010, 1:30 and 2020-01-01 are text.
_PLAIN_VALUES = (
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)", "-+.0123456789"),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
    ("merge", r"<<", "<"),
)


class _Loader(yaml.SafeLoader):
    """Plain data only, by the rules of YAML 1.2."""

    yaml_implicit_resolvers: dict = {}


class _Dumper(yaml.SafeDumper):
    """Quotes text that either version of YAML would take for something else."""


for _name, _pattern, _first in _PLAIN_VALUES:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), [*_first, *([""] if _name == "null" else [])]
        )


class _NoYaml(Exception):
    """Text that is no YAML, with the line where that shows."""

    def __init__(self, text: str, line: int | None = None) -> None:
        super().__init__(text)
        self.line = line


def _parse_yaml(text: str) -> tuple[Any, dict[tuple[str, ...], int], list[Problem]]:
    """The document as plain data, the line of every key, and keys that are given twice or are no text.

    Raises:
        _NoYaml: The text cannot be read at all.
    """
    lines: dict[tuple[str, ...], int] = {}
    problems: list[Problem] = []

    def note_lines(node: yaml.Node, path: tuple[str, ...]) -> None:
        lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                line, child = key.start_mark.line + 1, (*path, str(key.value))
                if not isinstance(key, yaml.ScalarNode):
                    raise _NoYaml("a key is a text, not a list or mapping", line)
                if key.tag == "tag:yaml.org,2002:merge":
                    continue
                if key.tag != "tag:yaml.org,2002:str":
                    problems.append((child, "a key is a text: put it in quotes"))
                    key.tag = "tag:yaml.org,2002:str"
                elif child in lines:
                    problems.append((child, f"is given twice, in lines {lines[child]} and {line}"))
                lines[child] = line
                note_lines(value, child)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                note_lines(value, (*path, str(index)))

    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is not None:
                note_lines(node, ())
            document = loader.construct_document(node) if node is not None else None
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise _NoYaml(reason, mark.line + 1 if mark else None) from None
    except RecursionError:
        raise _NoYaml("it is nested too deeply") from None
    except ValueError as error:  # such as !!int x
        raise _NoYaml(str(error)) from None
    return document, lines, problems


def _apply_override(document: dict[str, Any], override: str) -> tuple[str, ...]:
    """Sets KEY=VALUE in the document and returns the key's path.

    Raises:
        ConfigError: The text is no KEY=VALUE.
    """
    key, separator, value = override.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not separator or not all(path):
        raise ConfigError([f"--set {override}: write KEY=VALUE, such as --set training.max_epochs=5"])
    try:
        parsed, _, problems = _parse_yaml(value)
    except _NoYaml as error:
        raise ConfigError([f"--set {override}: the value is no YAML ({error}); quote it"]) from None
    if problems:
        raise ConfigError([f"--set {override}: {'.'.join((*path, *inner))}: {text}" for inner, text in problems])
    place = document
    for depth, part in enumerate(path[:-1], start=1):
        if place.get(part) is None:
            place[part] = {}
        place = place[part]
        if not isinstance(place, dict):
            raise ConfigError([f"--set {override}: {'.'.join(path[:depth])} is {_shown(place)}, which has no keys"])
    place[path[-1]] = parsed
    return path


def _sections_of(annotation: Any) -> list[type[Section]]:
    """The sections an annotation names: one, or the members of a union."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for inner in get_args(annotation) for section in _sections_of(inner)]


def _sections_at(location: Sequence[str | int]) -> list[type[Section]]:
    """The sections that may lie at one of pydantic's locations, whose parts are keys, indices and union members' tags."""
    sections: list[type[Section]] = [Config]
    for part in location:
        fields = [section.model_fields[part] for section in sections if part in section.model_fields]
        if fields:
            sections = _sections_of(fields[0].annotation)
        elif isinstance(part, str):
            tagged = [s for s in sections if any(part in get_args(f.annotation) for f in s.model_fields.values())]
            sections = tagged or sections
    return sections


def nearest(name: str, choices: Iterable[str]) -> str:
    """The part of a message that names what was probably meant, or every choice."""
    choices = list(choices)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"valid here: {', '.join(sorted(choices))}"


def _all_keys(model: type[Section], prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        for section in _sections_of(field.annotation) if get_origin(field.annotation) is not tuple else ():
            keys += _all_keys(section, f"{prefix}{name}.")
    return list(dict.fromkeys(keys))


# What to say for pydantic's kinds of wrong types.
_EXPECTED = {
    "int_type": "give a whole number",
    "int_from_float": "give a whole number",
    "float_type": "give a number",
    "finite_number": "give a finite number",
    "string_type": "give a text",
    "bool_type": "give true or false",
    "tuple_type": "give a list",
    "dict_type": "give keys and values",
    "model_type": "give keys and values, or leave the section out",
    "model_attributes_type": "give keys and values, or leave the section out",
    "is_instance_of": "give a path",
    "string_pattern_mismatch": "give letters, digits, _, . and -, with a letter or digit first",
}


def _describe(error: Mapping[str, Any], path: tuple[str, ...]) -> str:
    """One line for one of pydantic's errors: what came and what is expected."""
    kind, message, value, context = error["type"], error["msg"], error.get("input"), error.get("ctx", {})
    if kind == "extra_forbidden":
        valid = [key for section in _sections_at(error["loc"][:-1]) for key in section.model_fields]
        close = difflib.get_close_matches(path[-1], valid, n=1)
        # A key that is right in another section is a common slip: look there before listing this section's keys.
        elsewhere = [key for key in _all_keys(Config) if key.rsplit(".", 1)[-1] == path[-1]]
        if close or elsewhere:
            return f"unknown key; did you mean {'.'.join((*path[:-1], close[0])) if close else elsewhere[0]}?"
        return f"unknown key; {nearest(path[-1], valid)}"
    if kind == "missing":
        return "is missing"
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    if kind == "at_key":
        return context["text"]
    if kind == "union_tag_not_found":
        return f"needs the key {context['discriminator']}"
    if kind in ("union_tag_invalid", "literal_error"):
        expected = re.findall(r"'([^']*)'", str(context.get("expected_tags") or context.get("expected", "")))
        given = value.get(context["discriminator"].strip("'")) if kind == "union_tag_invalid" else value
        hint = nearest(given, expected) if isinstance(given, str) else f"valid here: {', '.join(expected)}"
        return f"{_shown(given)} is not valid; {hint}"
    if kind in ("too_short", "too_long"):
        bound = f"at least {context['min_length']}" if kind == "too_short" else f"at most {context['max_length']}"
        return f"{_shown(list(value))}: give {bound} entries"
    if kind == "string_type" and isinstance(value, int | float):
        return f"{_shown(value)}: give a text: put it in quotes"
    expected = _EXPECTED.get(kind) or message.removeprefix("Input ").replace("should be", "must be")
    return f"{_shown(value)}: {expected}"


def _schema_problems(error: ValidationError, document: Mapping[str, Any]) -> list[Problem]:
    """Path and text of each mistake; pydantic's names of union members are not keys of the file and are left out."""
    found: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for item in error.errors(include_url=False):
        path: list[str] = []
        place: Any = document
        for index, part in enumerate(item["loc"]):
            last = index == len(item["loc"]) - 1
            if isinstance(place, dict) and (part in place or (last and item["type"] == "missing")):
                path.append(str(part))
                place = place.get(part)
            elif isinstance(place, list) and isinstance(part, int) and part < len(place):
                path.append(str(part))
                place = place[part]
        if item["type"] == "at_key":
            path = list(item["ctx"]["path"])
        found.setdefault(tuple(path), []).append((item["type"], _describe(item, tuple(path))))
    problems = []
    for path, told in found.items():
        # Of a union the member that fits best has the say: [101] is no number, but a list whose first entry is no text.
        if all(kind in _EXPECTED for kind, _ in told) and any(
            other[: len(path)] == path for other in found if other != path
        ):
            continue
        texts = list(dict.fromkeys(text for _, text in told))
        head, _, _ = texts[0].partition(": ")  # the value, shown once
        problems.append((path, ", or ".join([texts[0], *(text.removeprefix(f"{head}: ") for text in texts[1:])])))
    return problems


def _network_problems(document: Mapping[str, Any]) -> list[Problem]:
    """Mistakes in ``network``, told by the class's own signature; whatever else is wrong in the document may be."""
    section, window = document.get("network", {}), document.get("window")
    name = section.get("name", Network.model_fields["name"].default) if isinstance(section, Mapping) else None
    if not isinstance(name, str):
        return []
    from r2seg.networks import NETWORKS, build_network, check_options, network_options

    if name not in NETWORKS:
        return [(("network", "name"), f"{name!r} is no network; {nearest(name, NETWORKS)}")]
    problems: list[Problem] = []
    size = window.get("size") if isinstance(window, Mapping) else None
    size = (
        size if isinstance(size, list) and len(size) in (2, 3) and all(type(n) is int and n > 0 for n in size) else None
    )
    words = {2: "two", 3: "three"}
    dims = NETWORKS[name].supported_spatial_dims
    if size and len(size) not in dims:
        text = f"{size} is {len(size)}-D and {name} is {dims[0]}-D only: give {words[dims[0]]} numbers"
        problems.append((("window", "size"), text))
    valid = [*Network.model_fields, *network_options(name)]
    options = {str(key): value for key, value in section.items() if key not in Network.model_fields}
    for key, value in options.items():
        text = None
        if key == "spatial_dims":
            if type(value) is not int or value not in words:
                text = f"{_shown(value)} is not valid; leave it out, it follows from window.size"
            elif size and value != len(size):
                text = (
                    f"{value}, but window.size {size} is {len(size)}-D: give window.size {words[value]} numbers, "
                    f"or set network.spatial_dims: {len(size)}"
                )
        elif key in _DERIVED:
            text = "follows from the data and its labels: leave it out"
        elif key not in valid:
            text = f"{name} has no such option; {nearest(key, valid)}"
        elif _not_finite(value):
            text = f"{_shown(value)}: give a finite number"
        else:
            try:
                check_options(name, {key: value})
            except ValueError as error:
                text = str(error)
        if text:
            problems.append((("network", key), text))
    if problems:
        return problems
    import torch

    options = {key: value for key, value in options.items() if key not in ("spatial_dims", "pretrained")}
    try:
        with torch.device("meta"):  # costs no memory, and tries every option
            network = build_network(name, spatial_dims=len(size or dims), in_channels=1, out_channels=2, **options)
    except (ValueError, TypeError) as error:
        named = next((key for key in options if re.search(rf"\b{re.escape(key)}\b", str(error))), None)
        return [(("network", named) if named else ("network",), str(error))]
    if size and any(given < least for given, least in zip(size, network.least_size, strict=True)):
        return [
            (("window", "size"), f"{size} is too small for this {name}, which needs {list(network.least_size)} or more")
        ]
    return []


def _not_finite(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_not_finite, value))
    return isinstance(value, float) and not math.isfinite(value)


def build_configured_network(config: Config, in_channels: int, *, pretrained: bool = False) -> SegmentationNetwork:
    """The network of a config for images of so many channels.

    Args:
        config: Its network, window and labels decide the network.
        in_channels: Channels of a case's image.
        pretrained: Honour the config's ``network.pretrained``. Only training does: a trained run has its own weights.

    Raises:
        UserError: An option or a combination that the network refuses.
    """
    from r2seg.networks import build_network

    options = {key: value for key, value in config.network.options.items() if key != "spatial_dims"}
    if not pretrained:
        options.pop("pretrained", None)
    try:
        return build_network(
            config.network.name,
            spatial_dims=config.spatial_dims,
            in_channels=in_channels,
            out_channels=config.out_channels,
            **options,
        )
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from error


def load_config(path: str | os.PathLike[str], overrides: Sequence[str] = (), *, require_data: bool = False) -> Config:
    """The config in a YAML file, checked as a whole.

    Args:
        path: YAML file. Relative paths inside are relative to its folder.
        overrides: "training.max_epochs=5" and the like; the value is YAML.
        require_data: Also refuse a ``data.root`` that is not there. Training asks for it; inference does without data.

    Raises:
        ConfigError: With every mistake that was found, a line each: file, line, dotted key and remedy.
    """
    path = Path(path)
    origin = str(path)
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError([f"{origin}: there is no such config file{_other_configs(path)}"]) from None
    except IsADirectoryError:
        raise ConfigError([f"{origin} is a folder: name a config file{_other_configs(path / 'x')}"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"{origin}: this is no text file; a config is YAML"]) from None
    except OSError as error:
        raise ConfigError([f"{origin}: cannot be read: {error.strerror}"]) from None
    try:
        document, lines, problems = _parse_yaml(text)
    except _NoYaml as error:
        place = f"{origin}:{error.line}" if error.line else origin
        raise ConfigError([f"{place}: this is no YAML: {error}"]) from None
    document = {} if document is None else document
    if not isinstance(document, dict):
        raise ConfigError([f"{origin}: a config is a mapping of keys to values, and this is {_shown(document)}"])
    overridden: dict[tuple[str, ...], str] = {}
    told: list[str] = []
    for override in overrides:
        try:
            overridden[_apply_override(document, override)] = override
        except ConfigError as error:
            told += error.problems

    config = None
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        problems += _schema_problems(error, document)
        problems += [problem for problem in _label_problems(document) if problem not in problems]
    problems += _network_problems(document)
    if config is not None:
        config = _with_absolute_paths(config, path.parent)
    if require_data:
        problems += _missing_files(document, path.parent, {path for path, _ in problems})

    def place_of(key: tuple[str, ...]) -> tuple[int, str]:
        for length in range(len(key), 0, -1):
            if key[:length] in overridden:
                return 0, f"--set {overridden[key[:length]]}"
        for length in range(len(key), 0, -1):
            if key[:length] in lines:
                return lines[key[:length]], f"{origin}:{lines[key[:length]]}"
            for other in overridden:
                if other[:length] == key[:length]:
                    return 0, f"--set {overridden[other]}"
        return 1, f"{origin}:1"

    for key, text in sorted(problems, key=lambda problem: place_of(problem[0])[0]):
        told.append(f"{place_of(key)[1]}: {'.'.join(key)}{': ' if key else ''}{text}")
    if told:
        raise ConfigError([line.replace("\n", "\\n") for line in told])
    return config


def _label_problems(document: Mapping[str, Any]) -> list[Problem]:
    """``_unknown_labels`` of a document that has other mistakes too."""
    data, steps = document.get("data"), document.get("postprocessing")
    labels = data.get("labels") if isinstance(data, dict) else None
    if not isinstance(labels, dict) or not isinstance(steps, list):
        return []
    return _unknown_labels(labels, [step.get("label") if isinstance(step, dict) else None for step in steps])


# Keys that hold files or folders, relative to the config.
_ROOT, _PRETRAINED, _WEIGHTS = ("data", "root"), ("network", "pretrained"), ("network", "weights")


def _with_absolute_paths(config: Config, folder: Path) -> Config:
    def absolute(path: Path) -> Path:
        return (folder / path).resolve()

    data, network = config.data, config.network
    data = data.model_copy(update={"root": absolute(data.root), "cache": data.cache and absolute(data.cache)})
    network = network.model_copy(update={"weights": network.weights and absolute(network.weights)})
    if isinstance(pretrained := network.options.get("pretrained"), str):
        written = {**network.model_dump(), "pretrained": str(absolute(Path(pretrained).expanduser()))}
        network = Network.model_validate(written)
    return config.model_copy(update={"data": data, "network": network})


def _missing_files(document: Mapping[str, Any], folder: Path, wrong: set[tuple[str, ...]]) -> list[Problem]:
    """Files that training needs and that are not there."""
    problems = []
    wanted = (
        (_ROOT, "folder", Path.is_dir),
        (_PRETRAINED, "file", Path.is_file),
        (_WEIGHTS, "run or file", Path.exists),
    )
    for key, kind, is_there in wanted:
        section = document.get(key[0])
        value = section.get(key[1]) if isinstance(section, dict) else None
        if isinstance(value, str) and key not in wrong and value.strip():
            path = (folder / Path(value).expanduser()).resolve()
            if not is_there(path):
                problems.append((key, f"there is no {kind} {path}; it is taken relative to the config file"))
    return problems


def _other_configs(path: Path) -> str:
    """What a wrong path could have meant: the configs beside it."""
    found = sorted(entry.name for entry in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, found, n=1)
    if close:
        return f"; did you mean {path.parent / close[0]}?"
    return f"; {path.parent} holds {', '.join(found[:8])}" if found else ""


def dump_config(config: Config) -> str:
    """The resolved config as YAML, with every default written out and paths absolute."""
    plain = _plain(config.model_dump())
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)


def _plain(value: Any) -> Any:
    """Only what YAML has: mappings, lists, numbers, text."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value
