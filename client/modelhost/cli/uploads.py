"""The command that sends models: upload."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from . import progress, render
from .session import session_of


def upload(
    context: typer.Context,
    path: Annotated[
        Path,
        typer.Argument(
            help="What to send: a path on this machine, of a SavedModel, .tflite, .keras, or an archive of one "
            "(.tar, .tar.gz, .tgz, .zip).",
            metavar="PATH",
        ),
    ],
    scope: Annotated[str, typer.Option(help="The scope that may load it.", metavar="SCOPE")] = "default",
    version: Annotated[
        int | None, typer.Option(help="Of a directory of versions, the one to send. Default: the newest.", min=1)
    ] = None,
) -> None:
    """Send a model to the server, and print the source to load it by; only what the server lacks is sent."""
    session = session_of(context)
    shown = not session.json and sys.stderr.isatty()
    with session.client() as client, progress.bar(path.name, shown) as on_progress:
        source = client.upload(path, scope=scope, version=version, timeout=session.timeout, on_progress=on_progress)
    if session.json:
        render.print_json({"source": source})
    else:
        typer.echo(source)


def add_to(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command(epilog="Example: modelhost upload ./ranker --scope team-a")(upload)
