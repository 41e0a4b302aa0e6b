"""Section ``network``: a network by name, its options, and the weights to start from."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from r2seg.config.schema.base import FilePath, Names, Section


class Network(Section):
    """Name of a network and its options; the class's signature is the schema of the rest."""

    model_config = ConfigDict(extra="allow")

    name: str = "R2UNet"
    output: Literal["softmax", "sigmoid"] = Field(
        "softmax", description="softmax: background and labels exclude each other"
    )
    weights: FilePath | None = Field(None, description="run or file of weights to start training from")
    reset: Names = Field(
        (), description="layers that keep their random start although weights are given, such as [head]"
    )

    @property
    def options(self) -> dict[str, Any]:
        """Keyword options for the class, as written in the config."""
        return dict(self.model_extra or {})
