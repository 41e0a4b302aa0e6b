"""YAML as configs are written: version 1.2's plain values, the line of every key, no key given twice."""

from __future__ import annotations

import re
from typing import Any

import yaml

from r2seg.config.schema import Problem

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

    yaml_implicit_resolvers: dict[str, Any] = {}


class Dumper(yaml.SafeDumper):
    """Quotes text that either version of YAML would take for something else."""


for _name, _pattern, _first in _PLAIN_VALUES:
    for _class in (_Loader, Dumper):
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), [*_first, *([""] if _name == "null" else [])]
        )


# A list of a thousand case ids is a thousand values. Each alias counts as all that it stands for: ten lines of nine aliases each
# ("billion laughs") would be 3e9 values.
_MAX_VALUES = 200_000
_MAX_CHARACTERS = 4_000_000


class NotYaml(Exception):
    """Text that is not YAML, with the line of the error."""

    def __init__(self, text: str, line: int | None = None) -> None:
        super().__init__(text)
        self.line = line


def parse_yaml(text: str) -> tuple[Any, dict[tuple[str, ...], int], list[Problem]]:
    """The document as plain data, the line of every key, and keys that are given twice or are not text.

    Raises:
        NotYaml: The text cannot be read at all.
    """
    lines: dict[tuple[str, ...], int] = {}
    problems: list[Problem] = []

    def note_lines(node: yaml.Node, path: tuple[str, ...]) -> None:
        lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                line, child = key.start_mark.line + 1, (*path, str(key.value))
                if not isinstance(key, yaml.ScalarNode):
                    raise NotYaml("a key is a text, not a list or mapping", line)
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

    if len(text) > _MAX_CHARACTERS:
        raise NotYaml(f"it has {len(text)} characters; a config has at most {_MAX_CHARACTERS}")
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is not None:
                _refuse_bomb(node)
                note_lines(node, ())
            document = loader.construct_document(node) if node is not None else None
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise NotYaml(reason, mark.line + 1 if mark else None) from None
    except RecursionError:
        raise NotYaml("it is nested too deeply") from None
    except ValueError as error:  # such as !!int x
        raise NotYaml(str(error)) from None
    return document, lines, problems


def _refuse_bomb(root: yaml.Node) -> None:
    """Refuses a document whose aliases expand to more values than any config has, before anything is expanded.

    Raises:
        NotYaml: It does, or an alias contains itself.
    """
    sizes: dict[int, int] = {}  # node -> values it expands to; 0 while it is being counted

    def size_of(node: yaml.Node) -> int:
        if id(node) in sizes:
            if sizes[id(node)] == 0:
                raise NotYaml("an alias contains itself", node.start_mark.line + 1)
            return sizes[id(node)]
        sizes[id(node)] = 0
        size = 1
        if isinstance(node, yaml.MappingNode):
            size += sum(size_of(key) + size_of(value) for key, value in node.value)
        elif isinstance(node, yaml.SequenceNode):
            size += sum(map(size_of, node.value))
        if size > _MAX_VALUES:
            raise NotYaml(f"its aliases expand to more than {_MAX_VALUES} values", node.start_mark.line + 1)
        sizes[id(node)] = size
        return size

    size_of(root)
