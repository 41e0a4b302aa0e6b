"""The config: one page of typed, frozen schema, and errors that name key, line and remedy.

What lives here: the schema, reading YAML with its line numbers, ``--set`` overrides, and the checks that need no data. What
does not: whether a folder's images are sound (data/), or how a network is built (networks/). Importing this module loads no
torch; ``load_config`` looks at the networks' signatures only to bind ``network`` options to them.
"""

from __future__ import annotations

import difflib
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
    field_serializer,
    model_validator,
)

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
    return (value,) if isinstance(value, int) and not isinstance(value, bool) else _as_tuple(value)


def _as_path(value: Any) -> Any:
    return Path(value) if isinstance(value, str) else value


Fraction = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
FilePath = Annotated[Path, BeforeValidator(_as_path)]
Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
LabelValues = Annotated[tuple[Annotated[int, Field(ge=1, le=255)], ...], BeforeValidator(_one_or_many)]
Plane = Literal["axial", "coronal", "sagittal"]
Precision = Literal["auto", "float32", "bf16", "fp16"]


class Section(BaseModel):
    """Base of every section: frozen, strict types, unknown keys refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, protected_namespaces=(), ser_json_inf_nan="strings"
    )


class Split(Section):
    """Which cases train, which choose the checkpoint and which are held out. Groups (patients) are never divided."""

    validation: Fraction | Names = Field(0.2, description="share of the groups, or the ids of cases or groups")
    test: Fraction | Names = Field(0.0, description="share of the groups, or the ids of cases or groups")
    train: Names | None = Field(None, description="ids of cases or groups; all that remain where it is left out")
    by: Literal["group", "case"] = "group"

    @model_validator(mode="after")
    def _leaves_something(self) -> Split:
        shares = [share for share in (self.validation, self.test) if isinstance(share, float)]
        if sum(shares) >= 1:
            raise ValueError(f"validation and test take {sum(shares):g} of the cases: leave some to train on")
        return self


class Data(Section):
    """Where the cases are and what their labels mean."""

    layout: Literal["folder"] = "folder"
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

    @model_validator(mode="after")
    def _labels_are_distinct(self) -> Data:
        if not self.labels:
            raise ValueError("labels is empty: name at least one, such as {lung: 1}")
        seen: dict[int, str] = {}
        for name, values in self.labels.items():
            if not values:
                raise ValueError(f"labels.{name} has no value")
            for value in values:
                if value in seen:
                    raise ValueError(f"labels.{name} and labels.{seen[value]} both take the value {value}")
                seen[value] = name
        if self.ignore_label in seen:
            raise ValueError(f"ignore_label {self.ignore_label} is also the label {seen[self.ignore_label]}")
        if self.group is not None:
            try:
                groups = re.compile(self.group).groups
            except re.error as error:
                raise ValueError(f"group {self.group!r} is no regular expression: {error}") from None
            if groups < 1:
                raise ValueError(
                    f"group {self.group!r} has no parentheses: put them around the patient's part of the id"
                )
        return self

    @field_serializer("labels")
    def _plain_labels(self, labels: dict[str, tuple[int, ...]]) -> dict[str, int | list[int]]:
        return {name: values[0] if len(values) == 1 else list(values) for name, values in labels.items()}


class HuWindow(Section):
    """Clip to [low, high] Hounsfield units, then map linearly to [0, 1]."""

    kind: Literal["hu_window"]
    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> HuWindow:
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}")
        return self


class Percentile(Section):
    """Clip each channel to two percentiles of the case, then map linearly to [0, 1]."""

    kind: Literal["percentile"]
    low: Annotated[float, Field(ge=0, le=100)] = 0.5
    high: Annotated[float, Field(ge=0, le=100)] = 99.5

    @model_validator(mode="after")
    def _ordered(self) -> Percentile:
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}")
        return self


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
    spacing_mm: Annotated[tuple[PositiveFloat, PositiveFloat, PositiveFloat], BeforeValidator(_as_tuple)] | None = (
        Field(None, description="voxel size [R-L, A-P, S-I] of the working grid; the files' own where it is left out")
    )


class Window(Section):
    """The window that training draws and inference slides: one setting for both."""

    size: Annotated[tuple[PositiveInt, ...], BeforeValidator(_as_tuple), Field(min_length=2, max_length=3)]
    plane: Plane | None = Field(None, description="plane of 2-D windows in volumes")
    overlap: Fraction = 0.25
    batch_size: PositiveInt = 8
    blend: Literal["gaussian", "constant"] = "gaussian"

    @model_validator(mode="after")
    def _plane_goes_with_two_dims(self) -> Window:
        if self.plane is not None and len(self.size) == 3:
            raise ValueError(
                f"plane {self.plane} goes with a 2-D size, and size {list(self.size)} is 3-D: leave one of them out"
            )
        return self


class Network(Section):
    """Name of a network and its options; the class's signature is the schema of the rest."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, protected_namespaces=())

    name: str = "R2UNet"
    output: Literal["softmax", "sigmoid"] = Field(
        "softmax", description="softmax: background and labels exclude each other"
    )

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

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    seed: Annotated[int, Field(ge=0)] = 0
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
        for index, step in enumerate(self.postprocessing):
            if step.label not in self.data.labels:
                names = ", ".join(self.data.labels)
                raise ValueError(f"postprocessing[{index}].label {step.label!r} is none of data.labels ({names})")
        return self


# Keys of ``network`` that the config sets itself and no one may write.
_DERIVED = ("in_channels", "out_channels")


class _Loader(yaml.SafeLoader):
    """YAML 1.1 without its traps: 1e-4 is a number, and a key given twice is an error."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def _read_yaml(text: str, origin: str) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    """The document as plain data, and the line of every key."""
    lines: dict[tuple[str, ...], int] = {}
    problems: list[str] = []

    def note_lines(node: yaml.Node, path: tuple[str, ...]) -> None:
        lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                child = (*path, str(key.value))
                if child in lines:
                    problems.append(
                        f"{origin}:{key.start_mark.line + 1}: {'.'.join(child)} is given twice, first in line {lines[child]}"
                    )
                lines[child] = key.start_mark.line + 1
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
            document = loader.construct_document(node) if node is not None else {}
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{origin}:{mark.line + 1}" if mark else origin
        raise ConfigError([f"{place}: this is no YAML: {getattr(error, 'problem', None) or error}"]) from None
    except RecursionError:
        raise ConfigError([f"{origin}: nested too deeply"]) from None
    if problems:
        raise ConfigError(problems)
    if not isinstance(document, dict):
        raise ConfigError(
            [f"{origin}: a config is a mapping of keys to values, and this is a {type(document).__name__}"]
        )
    return document, lines


def _apply_override(document: dict[str, Any], override: str) -> tuple[str, ...]:
    """Sets KEY=VALUE in the document and returns the key's path."""
    key, separator, value = override.partition("=")
    path = tuple(key.strip().split("."))
    if not separator or not all(path):
        raise ConfigError([f"--set {override}: write KEY=VALUE, such as --set training.max_epochs=5"])
    try:
        parsed = yaml.load(value, Loader=_Loader)
    except yaml.YAMLError:
        raise ConfigError([f"--set {override}: the value is no YAML; quote it"]) from None
    place = document
    for part in path[:-1]:
        inner = place.get(part)
        if inner is None:
            inner = place[part] = {}
        if not isinstance(inner, dict):
            raise ConfigError([f"--set {override}: {part} holds {inner!r}, which has no keys"])
        place = inner
    place[path[-1]] = parsed
    return path


def _section_keys(model: type[BaseModel]) -> dict[str, type[BaseModel] | None]:
    """Keys of a section, each with its own section where it has one."""
    return {name: _section_of(field.annotation) for name, field in model.model_fields.items()}


def _section_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) is not None:
        found = [section for section in map(_section_of, get_args(annotation)) if section]
        return found[0] if len(found) == 1 else None
    return None


def nearest(name: str, choices: Iterable[str]) -> str:
    """The part of a message that names what was probably meant, or every choice."""
    choices = list(choices)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"valid here: {', '.join(sorted(choices))}"


def _all_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, section in _section_keys(model).items():
        keys.append(prefix + name)
        if section:
            keys += _all_keys(section, f"{prefix}{name}.")
    return keys


def _describe(error: Mapping[str, Any], path: tuple[str, ...]) -> str:
    """One line for one of pydantic's errors: what came and what is expected."""
    kind, message, value = error["type"], error["msg"], error.get("input")
    if kind == "extra_forbidden":
        siblings: type[BaseModel] | None = Config
        for part in path[:-1]:
            siblings = _section_keys(siblings).get(part) if siblings else None
        near_by = [".".join((*path[:-1], key)) for key in _section_keys(siblings)] if siblings else []
        close = difflib.get_close_matches(".".join(path), near_by, n=1, cutoff=0.75)
        # A key that is right in another section is a common slip: look there before listing this section's keys.
        elsewhere = [key for key in _all_keys(Config) if key.rsplit(".", 1)[-1] == path[-1]]
        if close or elsewhere:
            return f"unknown key; did you mean {(close or elsewhere)[0]}?"
        return f"unknown key; {nearest(path[-1], [key.rsplit('.', 1)[-1] for key in near_by])}"
    if kind == "missing":
        return "is missing"
    message = message.removeprefix("Value error, ").removeprefix("Input ").replace("should be", "must be")
    if kind == "value_error":
        return message
    if kind in ("union_tag_invalid", "literal_error"):
        expected = re.findall(
            r"'([^']*)'", str(error.get("ctx", {}).get("expected_tags") or error.get("ctx", {}).get("expected", ""))
        )
        given = value.get(error["ctx"]["discriminator"].strip("'")) if kind == "union_tag_invalid" else value
        hint = nearest(str(given), expected) if isinstance(given, str) else f"valid here: {', '.join(expected)}"
        return f"{given!r} is not valid; {hint}"
    shown = repr(value)
    return f"{shown if len(shown) < 60 else shown[:57] + '...'}: {message}"


def _schema_problems(error: ValidationError, document: Mapping[str, Any]) -> list[tuple[tuple[str, ...], str]]:
    """Path and text of each mistake; pydantic's names of union members are not keys of the file and are left out."""
    found: dict[tuple[str, ...], list[str]] = {}
    for item in error.errors(include_url=False):
        path: list[str] = []
        place: Any = document
        location = list(item["loc"])
        for index, part in enumerate(location):
            last = index == len(location) - 1
            if isinstance(place, dict) and (part in place or (last and item["type"] == "missing")):
                path.append(str(part))
                place = place.get(part)
            elif isinstance(place, list) and isinstance(part, int) and part < len(place):
                path.append(str(part))
                place = place[part]
        if item["type"] == "union_tag_not_found":
            item = {**item, "msg": f"needs the key {item['ctx']['discriminator']}"}
        found.setdefault(tuple(path), []).append(_describe(item, tuple(path)))
    problems = []
    for path, texts in found.items():
        unique = list(dict.fromkeys(texts))
        if len(unique) > 1:  # members of a union: one line, the first value shown once
            head, _, _ = unique[0].partition(": ")
            unique = [unique[0], *(text.removeprefix(f"{head}: ") for text in unique[1:])]
        problems.append((path, ", or ".join(unique)))
    return problems


def _network_problems(config: Config) -> list[tuple[tuple[str, ...], str]]:
    """Mistakes in ``network``, told by the class's own signature."""
    from r2seg.networks import NETWORKS, network_options

    name = config.network.name
    if name not in NETWORKS:
        return [(("network", "name"), f"{name!r} is no network; {nearest(name, NETWORKS)}")]
    problems = []
    valid = network_options(name)
    dims = NETWORKS[name].supported_spatial_dims
    size = list(config.window.size)
    if config.spatial_dims not in dims:
        problems.append(
            (
                ("window", "size"),
                f"{size} is {config.spatial_dims}-D and {name} is {dims[0]}-D only: give {dims[0]} numbers",
            )
        )
    for key, value in config.network.options.items():
        if key == "spatial_dims":
            if value != config.spatial_dims:
                problems.append(
                    (
                        ("window", "size"),
                        f"{size} is {config.spatial_dims}-D but network.spatial_dims is {value}: "
                        f"give {value} numbers, or set network.spatial_dims: {config.spatial_dims}",
                    )
                )
        elif key in _DERIVED:
            problems.append((("network", key), "follows from the data and its labels: leave it out"))
        elif key not in valid:
            choices = ["name", "output", *valid]
            problems.append((("network", key), f"{name} has no such option; {nearest(key, choices)}"))
    if problems:
        return problems
    import torch

    try:
        with torch.device("meta"):  # costs no memory, and tries every option
            build_configured_network(config, in_channels=1)
    except UserError as error:
        problems.append((("network",), str(error)))
    return problems


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
    document, lines = _read_yaml(text, origin)
    overridden = {_apply_override(document, override): override for override in overrides}

    def place(path: tuple[str, ...]) -> str:
        for length in range(len(path), 0, -1):
            if path[:length] in overridden:
                return f"--set {overridden[path[:length]]}"
            if path[:length] in lines:
                return f"{origin}:{lines[path[:length]]}"
        return f"{origin}:1"

    def told(problems: Iterable[tuple[tuple[str, ...], str]]) -> list[str]:
        return [f"{place(key)}: {'.'.join(key)}{': ' if key else ''}{text}" for key, text in problems]

    problems: list[tuple[tuple[str, ...], str]] = []
    config = None
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        problems += _schema_problems(error, document)
    if config is not None:
        problems += _network_problems(config)
        root = (path.parent / config.data.root.expanduser()).resolve()
        cache = config.data.cache and (path.parent / config.data.cache.expanduser()).resolve()
        config = config.model_copy(update={"data": config.data.model_copy(update={"root": root, "cache": cache})})
    if require_data:
        written = document.get("data")
        root_text = written.get("root") if isinstance(written, dict) else None
        if isinstance(root_text, str):
            root = path.parent / Path(root_text).expanduser()
            if not root.is_dir():
                problems.append(
                    (("data", "root"), f"there is no folder {root.resolve()}; it is taken relative to the config file")
                )
    if problems:
        raise ConfigError(told(problems))
    return config


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
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)


def _plain(value: Any) -> Any:
    """Only what YAML has: mappings, lists, numbers, text."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value
