"""Commands about models: load, unload, ls, show, watch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from .._types import LoadProgress
from . import render
from .session import session_of

Model = Annotated[
    str, typer.Argument(help="MODEL or SCOPE/MODEL, with @3 or @stable for one version.", metavar="MODEL")
]


def load(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(help="MODEL or SCOPE/MODEL, with @3 for the version's number.", metavar="MODEL")
    ],
    source: Annotated[
        str,
        typer.Argument(
            help="What to load: a URI, or a path on the server's machine, of a SavedModel or .keras.", metavar="SOURCE"
        ),
    ],
    version: Annotated[
        int | None, typer.Option(help="Number of the version. Default: one more than the highest so far.", min=1)
    ] = None,
    label: Annotated[list[str] | None, typer.Option(help="Label to move to the version; may be repeated.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help='Tag of the MetaGraph to load; may be repeated. Default: "serve".')
    ] = None,
    keep_older: Annotated[
        bool, typer.Option("--keep-older", help="Keep older versions; else those without a label are unloaded.")
    ] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until the version is available.")] = False,
) -> None:
    """Load a version of a model, and wait until it answers predictions."""
    session = session_of(context)
    show_progress = not (session.json or no_wait) and sys.stderr.isatty()
    with session.client() as client, _progress_bar(model, show_progress) as on_progress:
        loaded = client.load(
            model,
            source,
            version=version,
            labels=label or (),
            tags=tag or (),
            keep_older=keep_older,
            wait=not no_wait,
            timeout=session.timeout,
            on_progress=on_progress,
        )
    if session.json:
        render.print_json(loaded)
    else:
        typer.echo(f"{loaded.scope}/{loaded.model}@{loaded.version} is {loaded.state}")


def unload(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(help="MODEL or SCOPE/MODEL for all versions, with @3 or @stable for one.", metavar="MODEL")
    ],
    missing_ok: Annotated[bool, typer.Option("--missing-ok", help="Succeed when there is nothing to unload.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until the memory is given back.")] = False,
) -> None:
    """Unload a version of a model, or all of them; predictions under way are finished."""
    session = session_of(context)
    with session.client() as client:
        versions = client.unload(model, missing_ok=missing_ok, wait=not no_wait, timeout=session.timeout)
    if session.json:
        render.print_json({"versions": versions})
    else:
        typer.echo(f"unloaded: {', '.join(map(str, versions))}" if versions else "there was nothing to unload")


def ls(
    context: typer.Context,
    scope: Annotated[
        str | None, typer.Argument(help="Only models of this scope.", metavar="[SCOPE]", show_default=False)
    ] = None,
) -> None:
    """List models and their versions."""
    session = session_of(context)
    with session.client() as client:
        models = client.models(scope)
    if session.json:
        render.print_json(models)
    else:
        render.print_models(models)


def show(
    context: typer.Context,
    model: Model,
    variables: Annotated[bool, typer.Option("--variables", help="Also list the variables.")] = False,
) -> None:
    """Show a model: state, engine, memory, signatures."""
    session = session_of(context)
    with session.client() as client:
        info = client.model(model, variables=variables)
    if session.json:
        render.print_json(info)
    else:
        render.print_model(info)


def watch(
    context: typer.Context,
    what: Annotated[
        str | None,
        typer.Argument(help="Only this SCOPE, or this SCOPE/MODEL.", metavar="[SCOPE[/MODEL]]", show_default=False),
    ] = None,
) -> None:
    """Print every change as it happens, until interrupted; with --json one object per line."""
    session = session_of(context)
    scope, _, model = (what or "").partition("/")
    with session.client() as client:
        for event in client.watch(scope, model, progress=True):
            if session.json:
                render.print_json(event, indent=None)
            else:
                render.print_event(event)


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    app.command(epilog="Example: modelhost load team-a/ranker /models/ranker --label stable")(load)
    app.command(epilog="Example: modelhost unload team-a/ranker@3")(unload)
    app.command(epilog="Example: modelhost ls team-a")(ls)
    app.command(epilog="Example: modelhost show team-a/ranker@stable --variables")(show)
    app.command(epilog="Example: modelhost --json watch team-a/ranker")(watch)


@contextmanager
def _progress_bar(model: str, shown: bool) -> Iterator[Callable[[LoadProgress], None] | None]:
    """Something to call with the progress of a load; None when nothing is to be shown."""
    if not shown:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.fields[model]}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}% {task.description}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("waiting", total=1.0, model=model)
        yield lambda news: progress.update(task, completed=news.fraction, description=news.stage.lower())
