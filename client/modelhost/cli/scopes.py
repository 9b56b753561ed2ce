"""Commands about scopes: create, show, ls, update, delete."""

from __future__ import annotations

from typing import Annotated, get_args

import typer

from .._scope_types import LoadOrder, ScopeInfo, ScopeOptions
from . import exits, render
from .session import Session, session_of
from .sizes import parse_size

app = typer.Typer(
    help="Create, show, list, change and delete scopes: isolation domains with workers and limits of their own.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="Name of the scope.", metavar="SCOPE")]
IntraOpThreads = Annotated[int | None, typer.Option(help="Threads that one operation of a model may use.", min=0)]
InterOpThreads = Annotated[int | None, typer.Option(help="Threads that run operations side by side.", min=0)]
MaxInFlight = Annotated[int | None, typer.Option(help="Predictions that run at the same time.", min=0)]
MaxQueue = Annotated[int | None, typer.Option(help="Predictions that may wait for their turn.", min=0)]
MemoryLimit = Annotated[
    int | None,
    typer.Option(
        help="Memory that the scope's workers may take, e.g. 2GiB; 0 for no limit.", parser=parse_size, metavar="SIZE"
    ),
]
Order = Annotated[
    str | None, typer.Option(help="When a model is loaded again: new_first (no gap) or memory_first (never both).")
]
DrainTimeout = Annotated[
    float | None, typer.Option(help="Seconds that predictions get to finish when their version is unloaded.", min=0)
]
OverrunGrace = Annotated[
    float | None, typer.Option(help="Seconds past its deadline at which a prediction has its worker replaced.", min=0)
]
Replicas = Annotated[int | None, typer.Option(help="Identical workers.", min=0)]
CallerRateLimit = Annotated[
    float | None, typer.Option(help="Predictions a second that one caller may ask for.", min=0, metavar="RATE")
]


@app.command(epilog="Example: modelhost scope create team-a --memory-limit 2GiB --max-queue 100")
def create(
    context: typer.Context,
    scope: Name,
    exist_ok: Annotated[bool, typer.Option("--exist-ok", help="Succeed when it exists with these settings.")] = False,
    intra_op_threads: IntraOpThreads = None,
    inter_op_threads: InterOpThreads = None,
    max_in_flight: MaxInFlight = None,
    max_queue: MaxQueue = None,
    memory_limit: MemoryLimit = None,
    load_order: Order = None,
    drain_timeout: DrainTimeout = None,
    overrun_grace: OverrunGrace = None,
    replicas: Replicas = None,
    caller_rate_limit: CallerRateLimit = None,
) -> None:
    """Create a scope and start its worker. What is not given is the server's default."""
    session = session_of(context)
    with session.client() as client:
        info = client.create_scope(scope, exist_ok=exist_ok, **_settings(context))
    _print(session, info)


@app.command(epilog="Example: modelhost scope show team-a")
def show(context: typer.Context, scope: Name = "default") -> None:
    """Show a scope: its worker, memory and settings in force."""
    session = session_of(context)
    with session.client() as client:
        info = client.scope(scope)
    _print(session, info)


@app.command(epilog="Example: modelhost scope ls")
def ls(context: typer.Context) -> None:
    """List all scopes."""
    session = session_of(context)
    with session.client() as client:
        infos = client.scopes()
    if session.json:
        render.print_json(infos)
    else:
        render.print_scopes(infos)


@app.command(epilog="Example: modelhost scope update team-a --max-queue 500")
def update(
    context: typer.Context,
    scope: Name,
    intra_op_threads: IntraOpThreads = None,
    inter_op_threads: InterOpThreads = None,
    max_in_flight: MaxInFlight = None,
    max_queue: MaxQueue = None,
    memory_limit: MemoryLimit = None,
    load_order: Order = None,
    drain_timeout: DrainTimeout = None,
    overrun_grace: OverrunGrace = None,
    replicas: Replicas = None,
    caller_rate_limit: CallerRateLimit = None,
) -> None:
    """Change settings of a scope and leave the others; 0 goes back to the server's default."""
    session = session_of(context)
    settings = _settings(context)
    if not settings:
        exits.misused("expected settings to change; see modelhost scope update --help")
    with session.client() as client:
        info = client.update_scope(scope, timeout=session.timeout, **settings)
    _print(session, info)


@app.command(epilog="Example: modelhost scope delete team-a --force")
def delete(
    context: typer.Context,
    scope: Name,
    force: Annotated[bool, typer.Option("--force", help="Unload its models first.")] = False,
    missing_ok: Annotated[bool, typer.Option("--missing-ok", help="Succeed when there is no such scope.")] = False,
) -> None:
    """Delete a scope and end its worker."""
    session = session_of(context)
    with session.client() as client:
        client.delete_scope(scope, force=force, missing_ok=missing_ok, timeout=session.timeout)
    if session.json:
        render.print_json({})
    else:
        typer.echo(f"deleted scope {scope}")


def _settings(context: typer.Context) -> ScopeOptions:
    """The settings among the command's options that were given."""
    given = {name: value for name, value in context.params.items() if value is not None}
    if "memory_limit" in given:
        given["memory_limit_bytes"] = given["memory_limit"]
    if "load_order" in given:
        given["load_order"] = given["load_order"].upper()
        if given["load_order"] not in get_args(LoadOrder):
            exits.misused("--load-order: expected new_first or memory_first")
    for name in ("drain_timeout", "overrun_grace"):
        # On the wire a duration that is not set means the default.
        if given.get(name) == 0:
            given[name] = None
    return ScopeOptions(**{name: given[name] for name in ScopeOptions.__annotations__ if name in given})  # type: ignore[typeddict-item, no-any-return]


def _print(session: Session, info: ScopeInfo) -> None:
    if session.json:
        render.print_json(info)
    else:
        render.print_scope(info)
