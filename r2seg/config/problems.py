"""Messages for what the schema refuses: the key, the value that was found, what is expected, the nearest valid name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import ValidationError

from r2seg.config.schema import Config, Problem, Section, shown, unknown_labels
from r2seg.errors import closest, nearest


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
    kind, message, context = error["type"], error["msg"], error.get("ctx", {})
    value: Any = error.get("input")
    if kind == "extra_forbidden":
        valid = [key for section in _sections_at(error["loc"][:-1]) for key in section.model_fields]
        close = closest(path[-1], valid)
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
        return str(context["text"])
    if kind == "union_tag_not_found":
        return f"needs the key {context['discriminator']}"
    if kind in ("union_tag_invalid", "literal_error"):
        expected = re.findall(r"'([^']*)'", str(context.get("expected_tags") or context.get("expected", "")))
        given = value.get(context["discriminator"].strip("'")) if kind == "union_tag_invalid" else value
        hint = nearest(given, expected) if isinstance(given, str) else f"valid here: {', '.join(expected)}"
        return f"{shown(given)} is not valid; {hint}"
    if kind in ("too_short", "too_long"):
        bound = f"at least {context['min_length']}" if kind == "too_short" else f"at most {context['max_length']}"
        return f"{shown(list(value))}: give {bound} entries"
    if kind == "string_type" and isinstance(value, int | float):
        return f"{shown(value)}: give a text: put it in quotes"
    remedy = _EXPECTED.get(kind) or message.removeprefix("Input ").replace("should be", "must be")
    return f"{shown(value)}: {remedy}"


def schema_problems(error: ValidationError, document: Mapping[str, Any]) -> list[Problem]:
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
    problems: list[Problem] = []
    for key, messages in found.items():
        # For a union, report the member that fits best: [101] is not a number, but it is a list whose first entry is not a text.
        if all(kind in _EXPECTED for kind, _ in messages) and any(
            other[: len(key)] == key for other in found if other != key
        ):
            continue
        texts = list(dict.fromkeys(text for _, text in messages))
        head, _, _ = texts[0].partition(": ")  # the value, shown once
        problems.append((key, ", or ".join([texts[0], *(text.removeprefix(f"{head}: ") for text in texts[1:])])))
    return problems


def label_problems(document: Mapping[str, Any]) -> list[Problem]:
    """``unknown_labels`` of a document that has other mistakes too."""
    data, steps = document.get("data"), document.get("postprocessing")
    labels = data.get("labels") if isinstance(data, dict) else None
    if not isinstance(labels, dict) or not isinstance(steps, list):
        return []
    return unknown_labels(labels, [step.get("label") if isinstance(step, dict) else None for step in steps])
