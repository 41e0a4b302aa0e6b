"""docs/config.md, made from the schema: every key with its type, default, unit, meaning and an example.

``python -m r2seg.config.reference > docs/config.md`` writes the page anew. The networks (and torch) are imported when it is made,
not with the module; their options come from the signatures and docstrings of their classes.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from r2seg.config.schema import Config, Section
from r2seg.config.words import in_words
from r2seg.config.yaml_text import Dumper

# Units that a description may end with, in brackets.
UNITS = (
    "HU",
    "components",
    "degrees",
    "epochs",
    "folds",
    "fraction",
    "fraction of the groups",
    "fraction of the window",
    "fraction of windows",
    "mm",
    "percent",
    "pixels",
    "pixels or voxels",
    "preprocessed intensities",
    "slices",
    "tiles",
    "times their mean count",
    "validations",
    "windows",
)

# An example of each option of a network; the schema's keys have theirs in their Field.
OPTION_EXAMPLES: dict[str, Any] = {
    "channels": [16, 32, 64, 128],
    "strides": [[2, 2, 1], 2, 2],
    "act": "leaky_relu",
    "norm": "instance",
    "dropout": 0.1,
    "upsample": "bilinear",
    "skip": "add",
    "checkpoint_activations": True,
    "steps": 3,
    "recurrence": "shared",
    "norm_per_step": False,
    "residual": False,
    "backbone": "resnet50",
    "pretrained": True,
    "freeze_backbone": True,
    "decoder_channels": [128, 64, 32, 16, 16],
    "decoder_norm": "instance",
    "skips": [4, 8, 16],
    "num_filters": 16,
    "backbone_options": {"channels": [16, 32, 64, 128], "steps": 2},
    "finest": 1,
    "pyramid_channels": 128,
    "pool_channels": 256,
    "pool_sizes": [1, 2, 4],
    "auxiliary": True,
}
# Examples for a network whose option of that name has other values.
_OTHER_EXAMPLES: dict[tuple[str, str], Any] = {
    **dict.fromkeys(
        (
            (name, "upsample")
            for name in ("PlainUNet", "ResidualUNet", "AttentionUNet", "RUNet", "R2UNet", "AttentionR2UNet")
        ),
        "nearest",
    ),
    ("RUNet", "residual"): True,
    ("TernausNet", "backbone"): "vgg16",
    ("UPerNet", "backbone"): "recurrent_residual",
}

_INTRODUCTION = """\
# The config

Every key, made from the schema by `python -m r2seg.config.reference > docs/config.md`; a test compares the two.
[recipes.md](recipes.md) has whole configs for common tasks.

A config is a YAML file (version 1.2) that holds only what differs from the defaults. Keys that are not listed here are refused, and
all mistakes are reported at once. Paths are relative to the config file. Every key can be changed on the command line:
`r2seg-train my.yaml --set training.max_epochs=50`. `required` in place of a default means that the key has to be given if its
section is.
"""

_HEADER = "| key | type | default | unit | meaning | example |\n|---|---|---|---|---|---|"


@dataclass(frozen=True)
class Key:
    """One key of the schema.

    Attributes:
        path: Keys from the top, such as ("window", "size").
        field: Its field of the schema.
    """

    path: tuple[str, ...]
    field: FieldInfo

    @property
    def meaning(self) -> str:
        """The description without its unit."""
        return _split_unit(self.field.description or "")[0]

    @property
    def unit(self) -> str:
        """The unit in brackets at the end of the description; the empty text if there is none."""
        return _split_unit(self.field.description or "")[1]


def _split_unit(description: str) -> tuple[str, str]:
    match = re.fullmatch(r"(.*\S)\s+\[([^\]]*)\]", description, flags=re.S)
    return (match[1], match[2]) if match and match[2] in UNITS else (description, "")


@dataclass(frozen=True)
class Part:
    """One table of the page: a section of the config, or one of several that may stand at its place.

    Attributes:
        path: Keys from the top, such as ("preprocessing", "intensity"); empty for the top itself.
        section: The class of the schema.
        choice: What chooses it among several, such as ("kind", "zscore"); None if it is the only one.
    """

    path: tuple[str, ...]
    section: type[Section]
    choice: tuple[str, str] | None = None

    @property
    def title(self) -> str:
        """The heading of its table."""
        if not self.path:
            return "At the top"
        return f"`{'.'.join(self.path)}`" + (f", `{self.choice[0]}: {self.choice[1]}`" if self.choice else "")

    @property
    def keys(self) -> list[Key]:
        """Its keys, without those that are sections of their own."""
        return [Key((*self.path, name), field) for name, field in self.section.model_fields.items() if not _only(field)]


def parts() -> list[Part]:
    """Every table of the page, in the order of the schema; a section that may stand at several places is there once."""
    first: dict[tuple[type[Section], tuple[str, str] | None], Part] = {}
    for part in _parts(Config, ()):
        first.setdefault((part.section, part.choice), part)
    return list(first.values())


def _parts(section: type[Section], path: tuple[str, ...]) -> Iterator[Part]:
    yield Part(path, section, None)
    for key, field in section.model_fields.items():
        inner = sections_in(field.annotation)
        name = (key, "NAME") if get_origin(field.annotation) is dict else (key,)
        for each in inner:
            choice = _choice(each, field) if len(inner) > 1 else None
            if choice is None:
                yield from _parts(each, (*path, *name))
            else:
                yield Part((*path, *name), each, choice)


def sections_in(hint: Any) -> list[type[Section]]:
    """The sections that a type names: itself, or members of a union, a list or a mapping."""
    if isinstance(hint, type) and issubclass(hint, Section):
        return [hint]
    return [section for inner in get_args(hint) for section in sections_in(inner)]


def _only(field: FieldInfo) -> bool:
    """Whether a field is one section and nothing else is said of it, so that its keys are a table and it needs no row."""
    return _whole(field) and field.description is None


def _whole(field: FieldInfo) -> bool:
    """Whether a field's type is one section."""
    return isinstance(field.annotation, type) and issubclass(field.annotation, Section)


def _choice(section: type[Section], field: FieldInfo) -> tuple[str, str] | None:
    """The key and value that choose a section among others: its fields of one allowed value, the first of them."""
    for name, each in section.model_fields.items():
        values = get_args(each.annotation)
        if len(values) == 1 and isinstance(values[0], str):
            return name, values[0]
    return None


def reference() -> str:
    """The text of docs/config.md."""
    listed = parts()
    blocks = [_INTRODUCTION, _contents(listed)]
    for part in listed:
        lines = [f"## {part.title}", "", _about(part.section), "", _HEADER, *(_row(key, listed) for key in part.keys)]
        blocks.append("\n".join(lines) + "\n")
        if part.path == ("network",):
            blocks.append(_network_options())
    return "\n".join(blocks)


def _contents(listed: Sequence[Part]) -> str:
    """Links to the tables; those that stand at one place have one link, to the first."""
    first: dict[tuple[str, ...], str] = {}
    for part in listed:
        anchor = re.sub(r"[^\w -]", "", part.title.lower()).replace(" ", "-")
        first.setdefault(part.path, f"[{'.'.join(part.path) or part.title.lower()}](#{anchor})")
    return f"{', '.join(first.values())}\n"


def _about(section: type[Section]) -> str:
    """The section's docstring in one paragraph."""
    return _markdown(" ".join((section.__doc__ or "").split()))


def _row(key: Key, listed: Sequence[Part]) -> str:
    field, name = key.field, key.path[-1]
    default = "required" if field.is_required() else f"`{flow(field.get_default(call_default_factory=True))}`"
    if isinstance(field.default, Section) and _whole(field):
        default = "see below"
    example = "; ".join(f"`{name}: {flow(value)}`" for value in field.examples or ())
    return _cells(f"`{name}`", _type_of(key, listed), default, key.unit, key.meaning, example)


def _type_of(key: Key, listed: Sequence[Part]) -> str:
    field, inner = key.field, sections_in(key.field.annotation)
    choices = [choice for section in inner if (choice := _choice(section, field))]
    if len(inner) > 1 and len(choices) == len(inner):
        values = ", ".join(f"`{value}`" for _, value in choices)
        kinds = f"keys and values with `{choices[0][0]}` one of {values}"
        hint: Any = field.annotation
        while get_origin(hint) is Annotated:
            hint = get_args(hint)[0]
        return f"list of {kinds}" if get_origin(hint) is tuple else kinds
    words = in_words(field.annotation, field.metadata)
    shown = next((part for part in listed if inner == [part.section]), None)
    if shown is not None and shown.path[: len(key.path)] != key.path:
        words = words.replace("see below", f"as in {shown.title}")
    return words


def _cells(*cells: str) -> str:
    return "| " + " | ".join(re.sub(r"(?<!\\)\|", r"\\|", " ".join(cell.split())) for cell in cells) + " |"


def flow(value: Any) -> str:
    """A value as it stands in a config, in one line."""
    text = yaml.dump(
        _plain(value), Dumper=Dumper, default_flow_style=True, width=10_000, sort_keys=False, allow_unicode=True
    )
    return text.removesuffix("\n").removesuffix("\n...")


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return _plain(value.model_dump())
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _network_options() -> str:
    """One table of the networks' own options; a row for each option, type, default and meaning, with the networks that have it."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for network, option, parameter, meaning in network_options_with_meaning():
        row = (
            f"`{option}`",
            in_words(parameter.annotation),
            f"`{flow(parameter.default)}`",
            meaning,
            f"`{option}: {flow(option_example(network, option))}`",
        )
        rows.setdefault(row, []).append(network)
    lines = [
        "### Options of the networks",
        "",
        "These stand in `network` too, next to `name`. [networks.md](networks.md) compares the networks.",
        "",
        "| key | networks | type | default | meaning | example |",
        "|---|---|---|---|---|---|",
        *(_cells(row[0], ", ".join(networks), *row[1:]) for row, networks in rows.items()),
    ]
    return "\n".join(lines) + "\n"


def network_options_with_meaning() -> Iterator[tuple[str, str, inspect.Parameter, str]]:
    """Network, option, its parameter, and what the docstring of the class, or of the nearest base, says of it."""
    from r2seg.networks import NETWORKS, network_options

    for network, made_by in NETWORKS.items():
        documented: dict[str, str] = {}
        for each in made_by.__mro__:
            documented = {**_documented(each.__doc__ or ""), **documented}
        for option, parameter in network_options(network).items():
            yield network, option, parameter, documented.get(option, "")


def option_example(network: str, option: str) -> Any:
    """A value to show for an option of a network."""
    return _OTHER_EXAMPLES.get((network, option), OPTION_EXAMPLES.get(option))


def _documented(docstring: str) -> dict[str, str]:
    """Argument -> what a Google docstring says of it, as Markdown that starts in lower case and ends without a full stop."""
    block = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", inspect.cleandoc(docstring), flags=re.S | re.M)
    if block is None:
        return {}
    entries = re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", block[1], flags=re.S | re.M)
    return {name: _as_meaning(_markdown(" ".join(text.split()))) for name, text in entries}


def _as_meaning(text: str) -> str:
    text = text.removesuffix(".")
    return text[0].lower() + text[1:] if text[1:2].islower() else text


def _markdown(text: str) -> str:
    """reStructuredText's literals and references as Markdown's."""
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
    text = text.replace("``", "`")
    return re.sub(r"\bNone\b", "null", text)


if __name__ == "__main__":
    print(reference(), end="")
