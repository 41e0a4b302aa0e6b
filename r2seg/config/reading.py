"""From a YAML file and overrides to a Config, or to every mistake at once; and back to YAML."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from r2seg.config.network import network_problems
from r2seg.config.problems import label_problems, schema_problems
from r2seg.config.schema import Config, HeldOut, Network, Problem, Split, shown
from r2seg.config.schema.split import SHORT_FORMS
from r2seg.config.yaml_text import Dumper, NotYaml, parse_yaml
from r2seg.errors import UserError, closest


class ConfigError(UserError):
    """Everything that is wrong with a config, one line per mistake."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def _apply_override(document: dict[str, Any], override: str) -> tuple[str, ...]:
    """Sets KEY=VALUE in the document and returns the key's path.

    Raises:
        ConfigError: The text is not KEY=VALUE.
    """
    key, separator, value = override.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not separator or not all(path):
        raise ConfigError([f"--set {override}: write KEY=VALUE, such as --set training.max_epochs=5"])
    try:
        parsed, _, problems = parse_yaml(value)
    except NotYaml as error:
        raise ConfigError([f"--set {override}: the value is not YAML ({error}); quote it"]) from None
    if problems:
        raise ConfigError([f"--set {override}: {'.'.join((*path, *inner))}: {text}" for inner, text in problems])
    place = document
    for depth, part in enumerate(path[:-1], start=1):
        if place.get(part) is None:
            place[part] = {}
        place = place[part]
        if not isinstance(place, dict):
            raise ConfigError([f"--set {override}: {'.'.join(path[:depth])} is {shown(place)}, which has no keys"])
    place[path[-1]] = parsed
    return path


def _write_out_split(document: dict[str, Any]) -> None:
    """Writes a short form of ``data.split`` out, so that an override can set one of its keys."""
    data = document.get("data")
    if isinstance(data, dict) and isinstance(short := data.get("split"), str) and short in SHORT_FORMS:
        data["split"] = dict(SHORT_FORMS[short])


def load_config(path: str | os.PathLike[str], overrides: Sequence[str] = (), *, require_data: bool = False) -> Config:
    """The config in a YAML file, checked as a whole.

    Args:
        path: YAML file. Relative paths inside are relative to its folder.
        overrides: "training.max_epochs=5" and the like; the value is YAML.
        require_data: Also refuse folders and files that do not exist, such as ``data.root``. Training needs them; inference does
            not.

    Raises:
        ConfigError: With every mistake that was found, one line each: file, line, dotted key and remedy.
    """
    path = Path(path)
    origin = str(path)
    document, lines, problems = _read_document(path)
    overridden: dict[tuple[str, ...], str] = {}
    messages: list[str] = []
    for override in overrides:
        _write_out_split(document)
        try:
            overridden[_apply_override(document, override)] = override
        except ConfigError as error:
            messages += error.problems

    config = None
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        problems += schema_problems(error, document)
        problems += [problem for problem in label_problems(document) if problem not in problems]
    problems += network_problems(document)
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
        messages.append(f"{place_of(key)[1]}: {'.'.join(key)}{': ' if key else ''}{text}")
    if messages:
        raise ConfigError([line.replace("\n", "\\n") for line in messages])
    assert config is not None  # else pydantic's mistakes were among the messages
    return config


def _read_document(path: Path) -> tuple[dict[str, Any], dict[tuple[str, ...], int], list[Problem]]:
    """The keys and values of a config file, the line of every key, and what is wrong with the keys themselves."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError([f"{path}: there is no such config file{_other_configs(path)}"]) from None
    except IsADirectoryError:
        raise ConfigError([f"{path} is a folder: name a config file{_other_configs(path / 'x')}"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"{path}: this is not a text file; a config is YAML"]) from None
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from None
    try:
        document, lines, problems = parse_yaml(text)
    except NotYaml as error:
        place = f"{path}:{error.line}" if error.line else path
        raise ConfigError([f"{place}: this is not YAML: {error}"]) from None
    document = {} if document is None else document
    if not isinstance(document, dict):
        raise ConfigError([f"{path}: a config is a mapping of keys to values, and this is {shown(document)}"])
    return document, lines, problems


# Keys that hold files or folders, relative to the config.
_ROOT, _TEST_ROOT, _SPLIT_FILE = ("data", "root"), ("data", "split", "test", "root"), ("data", "split", "file")
_PRETRAINED, _WEIGHTS = ("network", "pretrained"), ("network", "weights")


def _with_absolute_paths(config: Config, folder: Path) -> Config:
    def absolute(path: Path) -> Path:
        return (folder / path).resolve()

    data, network = config.data, config.network
    split = _with_absolute_split(data.split, absolute)
    cache = data.cache and absolute(data.cache)
    data = data.model_copy(update={"root": absolute(data.root), "split": split, "cache": cache})
    network = network.model_copy(update={"weights": network.weights and absolute(network.weights)})
    if isinstance(pretrained := network.options.get("pretrained"), str):
        written = {**network.model_dump(), "pretrained": str(absolute(Path(pretrained).expanduser()))}
        network = Network.model_validate(written)
    return config.model_copy(update={"data": data, "network": network})


def _with_absolute_split(split: Split, absolute: Callable[[Path], Path]) -> Split:
    test = split.test
    if isinstance(test, HeldOut):
        test = test.model_copy(update={"root": absolute(test.root)})
    return split.model_copy(update={"test": test, "file": split.file and absolute(split.file)})


def _missing_files(document: Mapping[str, Any], folder: Path, wrong: set[tuple[str, ...]]) -> list[Problem]:
    """Files that training needs and that do not exist."""
    problems: list[Problem] = []
    wanted = (
        (_ROOT, "folder", Path.is_dir),
        (_TEST_ROOT, "folder", Path.is_dir),
        (_SPLIT_FILE, "file", Path.is_file),
        (_PRETRAINED, "file", Path.is_file),
        (_WEIGHTS, "run or file", Path.exists),
    )
    for key, kind, is_there in wanted:
        value: Any = document
        for part in key:
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, str) and key not in wrong and value.strip():
            path = (folder / Path(value).expanduser()).resolve()
            if not is_there(path):
                problems.append((key, f"there is no {kind} {path}; it is taken relative to the config file"))
    return problems


def _other_configs(path: Path) -> str:
    """What a wrong path may have meant: the configs in the same folder."""
    found = sorted(entry.name for entry in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
    close = closest(path.name, found)
    if close:
        return f"; did you mean {path.parent / close[0]}?"
    return f"; {path.parent} holds {', '.join(found[:8])}" if found else ""


def dump_config(config: Config) -> str:
    """The resolved config as YAML, with every default written out and paths absolute."""
    plain = _plain(config.model_dump())
    return yaml.dump(plain, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)


def _plain(value: Any) -> Any:
    """Only what YAML has: mappings, lists, numbers, text."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value
