"""docs/config.md is the schema in words: the committed page is the generated one, and every key on it is explained."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from r2seg.config.reference import UNITS, Key, network_options_with_meaning, option_example, parts, reference
from r2seg.config.schema import Config
from r2seg.config.words import in_words

PAGE = Path(__file__).parents[1] / "docs" / "config.md"
KEYS = [(part, key) for part in parts() for key in part.keys]
IDS = [f"{part.title} {key.path[-1]}" for part, key in KEYS]


@pytest.fixture(scope="module")
def page() -> str:
    return reference()


def test_the_committed_page_is_the_generated_one(page: str) -> None:
    assert PAGE.read_text("utf-8") == page, "write it anew: python -m r2seg.config.reference > docs/config.md"


@pytest.mark.parametrize("key", [key for _, key in KEYS], ids=IDS)
def test_every_key_says_what_it_does(key: Key) -> None:
    assert key.meaning, "give its Field a description"
    assert not key.meaning.endswith("."), "a description ends without a full stop"
    assert not key.meaning[0].isupper() or key.meaning.split()[0].isupper(), "a description starts in lower case"
    assert not re.search(r"\[[^\]]*\]$", key.meaning), f"the unit in brackets at the end is none of {', '.join(UNITS)}"


@pytest.mark.parametrize("key", [key for _, key in KEYS], ids=IDS)
def test_a_key_that_ends_with_its_unit_has_it(key: Key) -> None:
    unit = {"mm": "mm", "degrees": "degrees", "epochs": "epochs", "hu": "HU"}.get(key.path[-1].rsplit("_", 1)[-1])
    assert unit is None or key.unit == unit


SMALLEST: dict[str, Any] = {
    "name": "smallest",
    "data": {"root": "x", "labels": {"lung": 1}},
    "window": {"size": [32, 32]},
}


# What else a section needs so that one of its keys may be given.
NEEDED: dict[str, dict[str, Any]] = {
    "preprocessing.resize.keep_aspect": {"size": [224, 224]},
    "data.labels.NAME.color": {"value": 7},
    "data.labels.NAME.code": {"value": 7},
    "data.split.fold": {"folds": 5},
    "data.files": {"layout": "files"},
    "data.files.image": {"label": "{id}_label.png"},
    "data.files.label": {"image": "{group}/{id}_image.png"},
    "data.files.mask": {"image": "{id}_image.png", "label": "{id}_label.png"},
    "data.files.observers": {"image": "{id}_image.png", "label": "{id}_label.png"},
}
# What another section must say.
ELSEWHERE: dict[str, dict[str, Any]] = {"data.overlapping": {"network": {"output": "sigmoid"}}}


def placed(part: Any, key: Key, value: Any) -> dict[str, Any]:
    """The smallest config with a value at a key; what else its section requires is taken from the examples there."""
    document = copy.deepcopy({**SMALLEST, **ELSEWHERE.get(".".join(key.path), {})})
    if part.path[:2] == ("data", "labels"):
        document["data"]["labels"] = {}  # one label is enough
    section = document
    for depth, name in enumerate(part.path, start=1):
        section.update(NEEDED.get(".".join(part.path[:depth]), {}))
        section = section.setdefault(name, {})
    section.update(NEEDED.get(".".join(key.path), {}))
    if part.path not in ((), ("data",), ("window",)):  # which are complete
        section.update({each.path[-1]: each.field.examples[0] for each in part.keys if each.field.is_required()})
        section.update([part.choice] if part.choice else [])
    section[key.path[-1]] = value
    if isinstance(document.get("postprocessing"), dict):
        document["postprocessing"] = [document["postprocessing"]]
    return document


@pytest.mark.parametrize(("part", "key"), KEYS, ids=IDS)
def test_every_key_has_an_example_that_a_config_may_hold(part: Any, key: Key) -> None:
    examples = key.field.examples
    assert examples, "give its Field examples=[...]"
    for example in examples:
        Config.model_validate(yaml.safe_load(yaml.safe_dump(placed(part, key, example))))
        if not key.field.is_required() and not part.choice:
            assert example != key.field.default, "the default is shown anyway: give another value"


def test_every_section_of_the_schema_is_on_the_page(page: str) -> None:
    for name in Config.model_fields:
        assert f"## `{name}`" in page or f"| `{name}` |" in page
    assert len(KEYS) >= 50


def test_every_option_of_a_network_has_a_meaning_and_an_example_that_it_takes(page: str) -> None:
    from r2seg.networks import build_network
    from r2seg.networks.options import check_values

    seen = list(network_options_with_meaning())
    assert len(seen) > 60
    for network, option, parameter, meaning in seen:
        assert meaning, f"{network}.{option}: document it under Args in the class or a base"
        example = option_example(network, option)
        assert example != parameter.default, f"{network}.{option}"
        check_values(network, {option: parameter}, {option: example})
        assert f"| `{option}` |" in page
    build_network("R2UNet", spatial_dims=3, in_channels=1, out_channels=2, channels=[2, 4, 8], strides=[[2, 2, 1], 2])


@pytest.mark.parametrize(
    ("section", "name", "words"),
    [
        ("Window", "size", "list of 2 to 3 whole numbers (1 or more)"),
        ("Window", "overlap", "number (0 to below 1)"),
        ("Window", "plane", "`axial`, `coronal` or `sagittal`, or null"),
        ("Split", "test", "number (0 to below 1), or list of texts, or keys and values, see below"),
        ("Training", "learning_rate", "number (above 0)"),
        ("Data", "root", "path"),
    ],
)
def test_types_are_in_words(section: str, name: str, words: str) -> None:
    from r2seg.config import schema

    field = getattr(schema, section, None).model_fields[name]
    assert in_words(field.annotation, field.metadata) == words
