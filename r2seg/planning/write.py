"""A plan as YAML: every setting with its reason as a comment, sections in the schema's order, what is unsure at the top."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from r2seg.config.schema import Config
from r2seg.config.yaml_text import Dumper
from r2seg.planning.facts import Choice

_WIDTH = 120


def config_document(choices: Sequence[Choice]) -> dict[str, Any]:
    """The choices as a nested mapping, in their order."""
    document: dict[str, Any] = {}
    for choice in choices:
        *above, last = choice.key.split(".")
        place = document
        for part in above:
            place = place.setdefault(part, {})
        place[last] = choice.value
    return document


def config_text(heading: Sequence[str], choices: Sequence[Choice]) -> str:
    """The config as commented YAML.

    Args:
        heading: Lines of the comment at the top.
        choices: Every setting; sections are put into the schema's order.
    """
    lines = [f"# {line}".rstrip() for text in heading for line in _wrapped(text, _WIDTH - 2)]
    reasons = {tuple(choice.key.split(".")): choice.reason for choice in choices}
    document = config_document(choices)
    sections = [name for name in Config.model_fields if name in document]
    for name in sections:
        lines += _lines((name,), document[name], reasons, 0)
    return "\n".join(lines) + "\n"


def _wrapped(text: str, width: int) -> list[str]:
    """A paragraph in lines; the indent of a list's item is kept."""
    indent = "  " if text.startswith("- ") else ""
    return textwrap.wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) or [""]


def _lines(path: tuple[str, ...], value: Any, reasons: Mapping[tuple[str, ...], str], depth: int) -> list[str]:
    """A key with its value: a mapping with commented keys of its own as a block, all else on one line."""
    indent, key = "  " * depth, _flow(path[-1])
    if isinstance(value, Mapping) and path not in reasons:
        inner = [line for name in value for line in _lines((*path, str(name)), value[name], reasons, depth + 1)]
        return [f"{indent}{key}:", *inner]
    reason = reasons.get(path, "")
    text = f"{indent}{key}: {_flow(value)}"
    if not reason:
        return [text]
    if len(text) + len(reason) + 4 <= _WIDTH:
        return [f"{text}  # {reason}"]
    return [*(f"{indent}# {line}" for line in _wrapped(reason, _WIDTH - len(indent) - 2)), text]


def _flow(value: Any) -> str:
    """A value on one line, however long."""
    text = yaml.dump(value, Dumper=Dumper, default_flow_style=True, width=10**6, sort_keys=False, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
