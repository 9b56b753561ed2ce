"""The application: options that every command shares, and the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .. import ModelhostError
from . import exits, loads, models, optimize, plugins, predict, scopes, uploads
from .session import Session


class Commands(TyperGroup):
    """The client's commands and those that other packages add, which are imported only when they are wanted."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of all commands, those of others last."""
        own = super().list_commands(ctx)
        return [*own, *(name for name in plugins.names() if name not in own)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name, or None."""
        return super().get_command(ctx, cmd_name) or plugins.command(cmd_name)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; what the server refused becomes a message and an exit code."""
        try:
            return super().invoke(ctx)
        except ModelhostError as error:
            exits.fail(error, as_json=bool(ctx.params.get("json")))


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=exits.EXPLANATION,
)


@app.callback()
def options(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Option("--target", "-t", envvar="MODELHOST_TARGET", help="Server: host:port, or unix:/path."),
    ] = "localhost:8500",
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables, also for errors.")] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            help="Seconds to wait for an answer. Default: 60; as long as it takes for loads, unloads, optimize and "
            "changes of scopes.",
            min=0.001,
            show_default=False,
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(envvar="MODELHOST_TOKEN", help="Token that says who is calling.", show_envvar=True),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            envvar="MODELHOST_INSECURE",
            show_envvar=True,
            help="Send the token without --tls to other machines, too: whoever reads it can use it.",
        ),
    ] = False,
    use_tls: Annotated[bool, typer.Option("--tls", help="Encrypt the connection.")] = False,
    tls_ca: Annotated[Path | None, typer.Option(help="PEM file of the authorities to trust; implies --tls.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM file of your certificate; implies --tls.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of your certificate's private key.")] = None,
) -> None:
    """Host TensorFlow models for other services: load, ask, optimize, watch and unload them.

    Options of all commands stand before the command: modelhost --json ls
    """
    if bool(tls_cert) != bool(tls_key):
        exits.misused("--tls-cert and --tls-key go together")
    context.obj = Session(target, json, timeout, token, insecure, use_tls, tls_ca, tls_cert, tls_key)


loads.add_to(app)
uploads.add_to(app)
models.add_to(app)
predict.add_to(app)
optimize.add_to(app)
app.add_typer(scopes.app, name="scope")


@app.command(epilog="Example: modelhost version")
def version() -> None:
    """Print the version of this client."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed_version

    try:
        typer.echo(installed_version("modelhost"))
    except PackageNotFoundError:
        typer.echo("unknown (running from a source tree that is not installed)")
