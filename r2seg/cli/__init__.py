"""The commands, one file each; torch and monai are imported only when a command runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from r2seg.cli.convert_weights import convert_weights
from r2seg.cli.evaluate import evaluate
from r2seg.cli.frame import GroupedHelp
from r2seg.cli.infer import infer
from r2seg.cli.train import train

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


def app_of(*commands: Callable[..., None]) -> typer.Typer:
    """An application of these commands; of a single one, the application is that command."""
    app = typer.Typer(
        context_settings=_CONTEXT,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    for function in commands:
        app.command(cls=GroupedHelp, context_settings=_CONTEXT, no_args_is_help=True)(function)
    return app


def _version(value: bool) -> None:
    if value:
        from r2seg import __version__

        typer.echo(f"r2seg {__version__}")
        raise typer.Exit


def main() -> None:
    """``r2seg COMMAND``."""
    app = app_of(train, infer, evaluate, convert_weights)

    @app.callback()
    def about(
        version: Annotated[
            bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
        ] = False,
    ) -> None:
        """Medical image segmentation with R2U-Net and related networks, on MONAI."""

    app()


def train_main() -> None:
    """``r2seg-train``."""
    app_of(train)()


def infer_main() -> None:
    """``r2seg-infer``."""
    app_of(infer)()


def evaluate_main() -> None:
    """``r2seg-evaluate``."""
    app_of(evaluate)()
