"""Commands about models that are there: unload, label, ls, show, watch."""

from __future__ import annotations

from typing import Annotated

import typer

from . import exits, render, render_models
from .session import session_of

Model = Annotated[
    str, typer.Argument(help="MODEL or SCOPE/MODEL, with @3 or @stable for one version.", metavar="MODEL")
]


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


def label(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="MODEL or SCOPE/MODEL.", metavar="MODEL")],
    changes: Annotated[
        list[str],
        typer.Argument(
            help="NAME=VERSION puts a label on a version, wherever it was; NAME- takes it off.",
            metavar="NAME=VERSION|NAME-",
        ),
    ],
) -> None:
    """Put labels on versions of a model, move them and take them off, all at once."""
    labels, remove = _label_changes(changes)
    session = session_of(context)
    with session.client() as client:
        now = client.set_labels(model, labels, remove=remove)
    if session.json:
        render.print_json({"labels": now})
    else:
        typer.echo(f"labels: {', '.join(f'{name}={now[name]}' for name in sorted(now)) or 'none'}")


def _label_changes(changes: list[str]) -> tuple[dict[str, int], list[str]]:
    """Labels to put on versions, and those to take off; `exits.misused` when a change is neither."""
    labels: dict[str, int] = {}
    remove: list[str] = []
    for change in changes:
        name, equals, version = change.rpartition("=")
        if equals and version.isdecimal() and name not in labels:
            labels[name] = int(version)
        elif not equals and change.endswith("-"):
            remove.append(change[:-1])
        else:
            exits.misused(f"expected NAME=VERSION, e.g. stable=3, or NAME-, and each name once; got {change!r}")
    return labels, remove


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
        render_models.print_models(models)


def show(
    context: typer.Context,
    model: Model,
    variables: Annotated[bool, typer.Option("--variables", help="Also list the variables.")] = False,
) -> None:
    """Show a model: state, engine and what else was tried, memory, signatures."""
    session = session_of(context)
    with session.client() as client:
        info = client.model(model, variables=variables)
    if session.json:
        render.print_json(info)
    else:
        render_models.print_model(info)


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
    app.command(epilog="Example: modelhost unload team-a/ranker@3")(unload)
    app.command(epilog="Example: modelhost label team-a/ranker stable=3 canary-")(label)
    app.command(epilog="Example: modelhost ls team-a")(ls)
    app.command(epilog="Example: modelhost show team-a/ranker@stable --variables")(show)
    app.command(epilog="Example: modelhost --json watch team-a/ranker")(watch)
