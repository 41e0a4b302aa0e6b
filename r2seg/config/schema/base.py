"""What all sections of the schema share: the frozen base class, and types of values that several sections use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _as_path(value: Any) -> Any:
    if not isinstance(value, str) or not value.strip():
        return value
    if "\0" in value:
        raise ValueError(f"{value!r}: no path holds a zero character")
    try:
        return Path(value).expanduser()
    except RuntimeError as error:  # ~nobody/data
        raise ValueError(f"{value!r}: {error}") from None


def shown(value: Any) -> str:
    """A value as YAML writes it, cut where it is long."""
    text = (
        {None: "null", True: "true", False: "false"}[value]
        if value is None or value is True or value is False
        else repr(value)
    )
    return text if len(text) < 60 else text[:57] + "..."


@dataclass(frozen=True)
class InWords:
    """Marks a type, in its ``Annotated``, with the words that docs/config.md has for it where the type alone says too little."""

    text: str


Fraction = Annotated[float, Field(ge=0, lt=1)]

Probability = Annotated[float, Field(ge=0, le=1)]

FilePath = Annotated[Path, BeforeValidator(_as_path)]

AsTuple = BeforeValidator(as_tuple)

Names = Annotated[tuple[str, ...], AsTuple]

Plane = Literal["axial", "coronal", "sagittal"]

Precision = Literal["auto", "float32", "bf16", "fp16"]

Problem = tuple[tuple[str, ...], str]  # the key's path and what is wrong


class Section(BaseModel):
    """Base of every section: frozen, strict types, finite numbers, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())
