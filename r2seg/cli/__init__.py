"""The commands, one file each; a command is imported when it is called, torch and monai only when it runs."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

import typer

from r2seg.cli.frame import GroupedHelp

COMMANDS = ("init", "check", "train", "infer", "evaluate", "convert_weights")
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


def app_of(*names: str) -> typer.Typer:
    """An application of the named commands; of a single one, the application is that command."""
    app = typer.Typer(
        context_settings=_CONTEXT,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    for name in names:
        function = getattr(import_module(f"r2seg.cli.{name}"), name)
        app.command(cls=GroupedHelp, context_settings=_CONTEXT, no_args_is_help=True)(function)
    return app


def _version(value: bool) -> None:
    if value:
        from r2seg import __version__

        typer.echo(f"r2seg {__version__}")
        raise typer.Exit


def main() -> None:
    """``r2seg COMMAND``."""
    app = app_of(*COMMANDS)

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
    app_of("train")()


def infer_main() -> None:
    """``r2seg-infer``."""
    app_of("infer")()


def evaluate_main() -> None:
    """``r2seg-evaluate``."""
    app_of("evaluate")()
