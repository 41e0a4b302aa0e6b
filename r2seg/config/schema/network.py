"""Section ``network``: a network by name, its options, and the weights to start from."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from r2seg.config.schema.base import FilePath, Names, Section


class Network(Section):
    """Name of a network and its options; the class's signature is the schema of the rest."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(
        "R2UNet", description="one of the networks of r2seg, see docs/networks.md", examples=["ResidualUNet"]
    )
    output: Literal["softmax", "sigmoid"] = Field(
        "softmax",
        description="softmax: background and labels exclude each other; sigmoid: each label is decided on its own",
        examples=["sigmoid"],
    )
    weights: FilePath | None = Field(
        None,
        description="run folder, or file of weights, of the same network to start training from; relative to the config file",
        examples=["runs/lung_r2unet"],
    )
    reset: Names = Field(
        (),
        description="layers that keep their random start although weights are given; needed where their shapes differ",
        examples=[["head"]],
    )

    @property
    def options(self) -> dict[str, Any]:
        """Keyword options for the class, as written in the config."""
        return dict(self.model_extra or {})
