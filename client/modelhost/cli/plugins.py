"""Commands of other packages: the entry points of group "modelhost.commands", each a Typer application.

The server's are known by name even where they are not installed, to tell people how to get them.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

import typer

from . import exits

_GROUP = "modelhost.commands"
_SERVER_COMMANDS = ("serve", "subject", "token")
_INSTALL_SERVER = "pip install 'modelhost[server]'"


def names() -> list[str]:
    """Names of the commands that other packages add or could add."""
    return sorted({*_SERVER_COMMANDS, *entry_points(group=_GROUP).names})


def command(name: str) -> Any:
    """The command of that name, or None; one that cannot be imported says what to install."""
    found = next(iter(entry_points(group=_GROUP, name=name)), None)
    if found is not None:
        try:
            return typer.main.get_command(found.load())
        except ImportError as error:
            return _missing(name, f"{_INSTALL_SERVER} ({error})")
    return _missing(name, _INSTALL_SERVER) if name in _SERVER_COMMANDS else None


def _missing(name: str, hint: str) -> Any:
    app = typer.Typer(add_completion=False)

    # What the stand-in is called with is none of its business.
    @app.command(
        name,
        # Help texts are rich's markup, in which brackets mean something.
        help=f"Needs the server: {_INSTALL_SERVER}".replace("[", r"\["),
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    def missing() -> None:
        exits.misused(f"`modelhost {name}` is part of the server, which is not installed here: {hint}")

    return typer.main.get_command(app)
