"""``r2seg init``: a commented config from a folder of images and label maps."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from r2seg.cli.frame import DeviceOption, command, open_console, say, start


class Dims(StrEnum):
    """What ``--plan`` takes."""

    two = "2d"
    three = "3d"


@command
def init(
    folder: Annotated[
        Path, typer.Argument(help="Folder with images and label maps, however named.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="YAML", help="Config to write. [default: <folder's name>.yaml]"),
    ] = None,
    plan: Annotated[
        Dims | None,
        typer.Option("--plan", help="Slices or volumes. [default: as data and machine suggest]", show_default=False),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget", metavar="TIME", help="Time for the training: 15min, 2h, 1d. [default: 1h on a CPU, 8h on a GPU]"
        ),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the experiment. [default: the folder's]")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing config.")] = False,
    device: DeviceOption = "auto",
) -> None:
    """Look at a folder of images and label maps, plan a training, and write a commented config that trains as it is.

    Finds images, labels, fields of view, second observers and patients by name, the kind of images and the label values by
    content, and chooses voxel size, window, network, batch and length of the training, with the reason of each choice. Some
    steps are tried on this machine to estimate the time. What it is not sure of is listed. No file of the data is changed.

    Example: r2seg init my_scans -o my.yaml --budget 2h
    """
    from r2seg.errors import UserError
    from r2seg.planning.length import parse_budget

    seconds = None if budget is None else parse_budget(budget)
    path = output or Path(f"{folder.resolve().name}.yaml")
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise UserError(f"-o {path}: a config is YAML: give a name such as {path.with_suffix('.yaml')}")
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; give the folder that holds images and label maps")
    if path.exists() and not force:
        raise UserError(f"{path} exists already: give another name with -o, or --force to replace it")
    resolved = start(device, None)
    from r2seg.planning.initialize import Options, init_config

    options = Options({Dims.two: 2, Dims.three: 3}[plan] if plan else None, seconds, name, force)
    console = open_console(stderr=True)
    with console.status("looking at the names of the files") as status:
        written = init_config(
            folder,
            path,
            options,
            resolved,
            lambda what, done, total: status.update(f"{what} {done}/{total}" if total > 1 else what),
        )
    for line in written.found:
        say(f"  {line}")
    for line in written.doubts:
        say(f"not sure: {line}")
    from r2seg.planning.length import duration

    say(
        f"written: {written.path}{f', {written.table}' if written.table else ''}: about {duration(written.length.seconds)} of training"
    )
    config = shlex.quote(str(written.path))
    say(f"next: r2seg check {config}")
    say(f"next: r2seg-train {config}")
