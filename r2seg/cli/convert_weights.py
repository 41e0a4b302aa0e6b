"""``r2seg convert-weights``: a run from the weights of an original repository."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from r2seg.cli.frame import command, say


@command
def convert_weights(
    weights: Annotated[Path, typer.Argument(help="File that the original repository saved.", show_default=False)],
    origin: Annotated[
        str,
        typer.Option("--origin", help="leejunhyun, backboned-unet, ternausnet or csail-upernet.", show_default=False),
    ],
    config: Annotated[
        Path,
        typer.Option(
            "--config",
            help="YAML file with the labels, preprocessing and window that the network was trained with.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="RUN", help="Run folder to make.", show_default=False)
    ],
    volumes: Annotated[
        bool, typer.Option("--volumes/--pictures", help="Whether the network segments slices of volumes, or pictures.")
    ] = False,
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=1, help="leejunhyun: the t of R2U_Net, if the weights do not state it."),
    ] = None,
) -> None:
    """Turn weights trained with an original repository into a run that r2seg-infer can use.

    Example: r2seg convert-weights R2U_Net.pth --origin leejunhyun --config skin.yaml -o runs/old_skin
    """
    from r2seg.config import load_config
    from r2seg.inference.convert import convert_weights as convert

    run = convert(
        weights,
        load_config(config),
        output,
        origin=origin,
        image_dims=3 if volumes else 2,
        options={} if steps is None else {"steps": steps},
    )
    say(f"run folder: {run.path} ({run.config.network.name}, {run.config.network.output})")
    say(f"next: r2seg-infer {run.path} INPUT... -o OUT")
