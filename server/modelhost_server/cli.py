"""`modelhost serve`: the server's command, which the client's command line finds as a plug-in."""

from __future__ import annotations

import asyncio
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from .app import Server
from .config import ServerConfig, read_config
from .errors import ModelhostError
from .logs import set_up_logging

_USAGE = 2
_FAILED = 1
# Where an option stands in the help.
_LISTENING = "Listening"
_LIMITS = "Limits"
_HOSTING = "Hosting"
_SCOPES = "Scopes: what they have unless their creator says otherwise"
_DIRECTORIES = "Directories in TensorFlow Serving's layout"
_REPOSITORY = "A repository in Triton's layout"


app = typer.Typer(add_completion=False)


def _with_dashes(name: str) -> str:
    return name.replace("_", "-")


# Options may be written as other servers write them: --model_name.
@app.command(context_settings={"token_normalize_func": _with_dashes})
def serve(
    ctx: typer.Context,
    listen: Annotated[
        list[str] | None,
        typer.Option(
            "--listen",
            "-l",
            help="Address to listen on: HOST:PORT (port 0 picks a free one) or unix:PATH. Repeatable.",
            show_default="127.0.0.1:8500",
            rich_help_panel=_LISTENING,
        ),
    ] = None,
    rest: Annotated[
        str | None,
        typer.Option(
            help="Address to serve TensorFlow Serving's and Triton's REST APIs on: HOST:PORT or unix:PATH.",
            show_default="off",
            rich_help_panel=_LISTENING,
        ),
    ] = None,
    server_name: Annotated[
        str | None,
        typer.Option(
            help="What Open Inference clients are told of the server's name.",
            show_default="modelhost",
            rich_help_panel=_LISTENING,
        ),
    ] = None,
    transport: Annotated[
        str | None,
        typer.Option(
            help="What speaks gRPC: grpcio, or h2corn, which costs less.",
            show_default="grpcio",
            rich_help_panel=_LISTENING,
        ),
    ] = None,
    server_processes: Annotated[
        int | None,
        typer.Option(
            help="Processes that speak gRPC, on the same ports.", show_default="1", rich_help_panel=_LISTENING
        ),
    ] = None,
    insecure: Annotated[
        bool | None,
        typer.Option(
            "--insecure",
            help="Be reached from other machines without TLS, or without authentication.",
            rich_help_panel=_LISTENING,
        ),
    ] = None,
    tls_certificate: Annotated[
        Path | None,
        typer.Option(help="PEM certificate chain; HOST:PORT addresses then speak TLS.", rich_help_panel=_LISTENING),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(help="PEM key of the certificate.", rich_help_panel=_LISTENING)
    ] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(
            help="PEM authorities; only clients with a certificate of theirs are let in.", rich_help_panel=_LISTENING
        ),
    ] = None,
    access: Annotated[
        Path | None,
        typer.Option(
            help="File of `modelhost token`; only callers that it knows are answered.",
            show_default="off",
            rich_help_panel=_LISTENING,
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with any of these options (underscores).")] = None,
    max_receive_bytes: Annotated[
        int | None, typer.Option(help="Largest request, in bytes.", show_default="64 MiB", rich_help_panel=_LIMITS)
    ] = None,
    max_send_bytes: Annotated[
        int | None,
        typer.Option(help="Largest response, in bytes.", show_default="no limit", rich_help_panel=_LIMITS),
    ] = None,
    max_metadata_bytes: Annotated[
        int | None,
        typer.Option(help="Largest headers of a call, in bytes.", show_default="16 KiB", rich_help_panel=_LIMITS),
    ] = None,
    max_streams: Annotated[
        int | None,
        typer.Option(
            help="Calls under way on one connection; more wait.", show_default="1000", rich_help_panel=_LIMITS
        ),
    ] = None,
    max_connections: Annotated[
        int | None,
        typer.Option(help="Connections at the same time.", show_default="4096", rich_help_panel=_LIMITS),
    ] = None,
    max_calls_per_caller: Annotated[
        int | None,
        typer.Option(help="Calls under way of one caller.", show_default="no limit", rich_help_panel=_LIMITS),
    ] = None,
    caller_rate_limit: Annotated[
        float | None,
        typer.Option(
            help="Predictions a second of one caller in a scope, unless the scope says otherwise.",
            show_default="no limit",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    slow_reader_seconds: Annotated[
        float | None,
        typer.Option(
            help="A stream whose reader takes nothing for so long ends.", show_default="60", rich_help_panel=_LIMITS
        ),
    ] = None,
    drain_seconds: Annotated[
        float | None,
        typer.Option(
            help="Time for calls under way at shutdown, in seconds.", show_default="30", rich_help_panel=_LISTENING
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Keep what callers were told: scopes, loaded models, labels; a restart with it brings them back.",
            show_default="nothing is kept",
            rich_help_panel=_HOSTING,
        ),
    ] = None,
    accept_lost_journal: Annotated[
        str | None,
        typer.Option(help="Go on without a journal that was found corrupt: its file's name.", rich_help_panel=_HOSTING),
    ] = None,
    cache_dir: Annotated[
        Path | None,
        typer.Option(
            help="Where converted models and weights are kept.",
            show_default="~/.cache/modelhost",
            rich_help_panel=_HOSTING,
        ),
    ] = None,
    cache_limit_bytes: Annotated[
        int | None,
        typer.Option(help="What the cache may grow to, in bytes.", show_default="20 GiB", rich_help_panel=_HOSTING),
    ] = None,
    upload_limit_bytes: Annotated[
        int | None,
        typer.Option(
            help="Largest upload, unpacked, and what those may have together that no version uses.",
            show_default="20 GiB",
            rich_help_panel=_HOSTING,
        ),
    ] = None,
    remote_sources: Annotated[
        list[str] | None,
        typer.Option(
            help="What a remote source must begin with, e.g. s3://models/team-a; or none, for no remote sources. "
            "Repeatable.",
            show_default="all",
            rich_help_panel=_HOSTING,
        ),
    ] = None,
    intra_op_threads: Annotated[
        int | None,
        typer.Option(help="Threads of one operation.", show_default="half the cores", rich_help_panel=_SCOPES),
    ] = None,
    inter_op_threads: Annotated[
        int | None,
        typer.Option(help="Operations of a prediction side by side.", show_default="1", rich_help_panel=_SCOPES),
    ] = None,
    max_in_flight: Annotated[
        int | None,
        typer.Option(help="Predictions at the same time.", show_default="the cores", rich_help_panel=_SCOPES),
    ] = None,
    max_queue: Annotated[
        int | None, typer.Option(help="Predictions that may wait.", show_default="1000", rich_help_panel=_SCOPES)
    ] = None,
    memory_limit_bytes: Annotated[
        int | None,
        typer.Option(
            help="Private memory of all workers together, in bytes.", show_default="no limit", rich_help_panel=_HOSTING
        ),
    ] = None,
    tuning: Annotated[
        bool | None,
        typer.Option(
            help="Look for a faster engine for each version, in idle time.", show_default="on", rich_help_panel=_HOSTING
        ),
    ] = None,
    shared_memory: Annotated[
        str | None,
        typer.Option(
            help="Share memory with callers on this machine: auto (when --listen and --rest are local), on or off.",
            show_default="auto",
            rich_help_panel=_LISTENING,
        ),
    ] = None,
    sandbox: Annotated[
        str | None,
        typer.Option(
            help="Keep models from network, files and other processes: auto (as far as this machine can), on (or do "
            "not start) or off.",
            show_default="auto",
            rich_help_panel=_HOSTING,
        ),
    ] = None,
    model_root: Annotated[
        list[Path] | None,
        typer.Option(
            help="Load local paths from below this directory only. Repeatable.",
            show_default="anywhere",
            rich_help_panel=_HOSTING,
        ),
    ] = None,
    model_name: Annotated[
        str | None,
        typer.Option(
            "--model-name",
            help="Name of the model in --model-base-path.",
            show_default="default",
            rich_help_panel=_DIRECTORIES,
        ),
    ] = None,
    model_base_path: Annotated[
        Path | None,
        typer.Option(
            help="Host one model: a directory with a sub-directory a version, which is followed.",
            rich_help_panel=_DIRECTORIES,
        ),
    ] = None,
    model_config_file: Annotated[
        Path | None,
        typer.Option(
            help="Host several models so: a ModelServerConfig of TensorFlow Serving's, as text.",
            rich_help_panel=_DIRECTORIES,
        ),
    ] = None,
    model_config_file_poll_wait_seconds: Annotated[
        float | None,
        typer.Option(
            help="Time between two readings of that file; 0 reads it once.",
            show_default="0",
            rich_help_panel=_DIRECTORIES,
        ),
    ] = None,
    file_system_poll_wait_seconds: Annotated[
        float | None,
        typer.Option(
            help="Time between two looks at a model's directory; 0 looks once.",
            show_default="1",
            rich_help_panel=_DIRECTORIES,
        ),
    ] = None,
    allow_version_labels_for_unavailable_models: Annotated[
        bool | None,
        typer.Option(
            "--allow-version-labels-for-unavailable-models",
            help="Let a reload put labels on versions that are not available yet.",
            rich_help_panel=_DIRECTORIES,
        ),
    ] = None,
    model_repository: Annotated[
        Path | None,
        typer.Option(
            "--model-repository",
            "--model-store",
            help="Host models in Triton's layout: MODEL/VERSION/model.savedmodel.",
            rich_help_panel=_REPOSITORY,
        ),
    ] = None,
    model_control_mode: Annotated[
        str | None,
        typer.Option(
            help="What of it is hosted: none (what is there at the start), poll (what is there at any time) or "
            "explicit (what callers load).",
            show_default="none",
            rich_help_panel=_REPOSITORY,
        ),
    ] = None,
    load_model: Annotated[
        list[str] | None,
        typer.Option(
            help="In explicit mode, a model to load at the start; * for all. Repeatable.", rich_help_panel=_REPOSITORY
        ),
    ] = None,
    repository_poll_secs: Annotated[
        float | None,
        typer.Option(
            help="In poll mode, time between two looks at it.", show_default="15", rich_help_panel=_REPOSITORY
        ),
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.", show_default="info")] = None,
    log_json: Annotated[bool | None, typer.Option("--log-json", help="Log one JSON object a line.")] = None,
) -> None:
    """Run the server until SIGTERM or Ctrl-C.

    Every option can also be an environment variable (MODELHOST_MAX_QUEUE=50) or stand in the --config file.
    """
    try:
        settings = read_config(config, **_given(ctx))
    except ValidationError as error:
        for problem in error.errors():
            # What concerns several settings has no place of its own.
            place = f"{'.'.join(map(str, problem['loc']))}: " if problem["loc"] else ""
            typer.echo(f"modelhost serve: {place}{problem['msg']}", err=True)
        raise typer.Exit(_USAGE) from None
    except (OSError, tomllib.TOMLDecodeError) as error:
        typer.echo(f"modelhost serve: {config}: {error}", err=True)
        raise typer.Exit(_USAGE) from None
    set_up_logging(settings.log_level, settings.log_json)
    try:
        asyncio.run(_serve(settings))
    except (OSError, ModelhostError) as error:
        typer.echo(f"modelhost serve: {error}", err=True)
        raise typer.Exit(_FAILED) from None


def _given(ctx: typer.Context) -> dict[str, Any]:
    """The settings that the command line gives; options are named as they are."""
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    given = {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
    return {name: ctx.params[name] for name in given - {"config"}}


async def _serve(settings: ServerConfig) -> None:
    server = Server(settings)
    try:
        for address in await server.start():
            # For people and for programs that asked for port 0.
            print(f"modelhost is ready on {address}", flush=True)
        await server.run_until_signal()
    except BaseException:
        await server.stop()
        raise
