"""``r2seg check``: the data of a config, and everything that is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from r2seg.cli.frame import command, counting_bar, open_console, say
from r2seg.errors import UserError


@command
def check(
    config: Annotated[
        Path, typer.Argument(help="YAML file of the experiment, such as configs/lung_r2unet.yaml.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FOLDER", help="Also write check.html and check.json into this folder."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a key of the config: --set data.root=other. Repeatable."
        ),
    ] = None,
) -> None:
    """Check the data of a config: read every file, show what is there and everything that is wrong, at once.

    Errors are what training would refuse, and end with exit status 2; warnings are worth a look. With -o, a page shows a
    picture of each case with its labels drawn in. Nothing is trained, and no file of the data is changed.

    Example: r2seg check configs/lung_r2unet.yaml -o lung_check
    """
    from r2seg.config import load_config

    settings = load_config(config, overrides or (), require_data=True)
    if output is not None:
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{output}: cannot be made: {error.strerror}; give another folder with -o") from None

    from r2seg.data_check.check import check_data
    from r2seg.data_check.tables import data_table, finding_lines, verdict_of

    with counting_bar("reading") as progress:
        found = check_data(settings, pictures=output is not None, on_case=progress)
    if found.cases:
        open_console().print(data_table(found))
    for severity, line in finding_lines(found):
        say(line, error=severity == "error")
    if output is not None:
        from r2seg.data_check.page import write_check

        say(f"written: {', '.join(map(str, write_check(found, output)))}")
    say(verdict_of(found))
    if found.errors:
        raise typer.Exit(2)
