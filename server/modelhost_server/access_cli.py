"""`modelhost token` and `modelhost subject`: who may call a server, as its access file says. They need no server."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from .access.access_file import AccessFile, Token
from .access.grants import grant_texts, read_grants
from .access.identity import Role

_USAGE = 2
_FAILED = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SPAN = re.compile(r"([1-9][0-9]{0,6})([smhdw])", re.ASCII)

token_app = typer.Typer(no_args_is_help=True, add_completion=False, help="Create, list and revoke callers' tokens.")
subject_app = typer.Typer(no_args_is_help=True, add_completion=False, help="Say who comes with which certificate.")

_File = Annotated[Path, typer.Option("--access", envvar="MODELHOST_ACCESS", help="The server's access file.")]
_Name = Annotated[str, typer.Argument(help="Who calls: a team, a program, a person.")]
_Grants = Annotated[
    list[str],
    typer.Option("--grant", "-g", help="ROLE:SCOPE, with predict, manage or admin, and * for all scopes. Repeatable."),
]


@token_app.command("create", epilog="Example: modelhost token create team-a --grant predict:team-a --expires 90d")
def create_token(
    context: typer.Context,
    name: _Name,
    grant: _Grants,
    access: _File,
    expires: Annotated[str | None, typer.Option(help="For how long: 12h, 30d, 8w.", show_default="for ever")] = None,
) -> None:
    """Make a token, and print it. It is not kept: whoever loses it needs another one."""
    with _told_errors():
        roles, until = _roles(name, grant), _until(expires)
        token_id, token = AccessFile.made(access).create_token(name, roles, until)
    told = {"token": token, "id": token_id, "name": name, "grants": grant_texts(roles), "expires": _when(until)}
    typer.echo(json.dumps(told) if _as_json(context) else token)


@token_app.command("list")
def list_tokens(context: typer.Context, access: _File) -> None:
    """List the tokens: whose they are, what they may do, and whether they are good."""
    with _told_errors():
        tokens = sorted(AccessFile(access).read().tokens.values(), key=lambda token: token.created)
    rows = [
        {
            "id": token.id, "name": token.identity.name, "grants": grant_texts(token.identity.grants),
            "state": _state(token), "created": _when(token.created), "expires": _when(token.expires),
            "revoked": _when(token.revoked),
        }
        for token in tokens
    ]  # fmt: skip
    _print(context, rows, ("id", "name", "grants", "state", "created", "expires"))


@token_app.command("revoke")
def revoke_token(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="From `modelhost token list`.")], access: _File
) -> None:
    """Revoke a token for good. A running server refuses it within a second, and ends its streams."""
    with _told_errors():
        if not AccessFile(access).revoke_token(token_id):
            raise OSError(f"there is no token {token_id!r} that could be revoked; see `modelhost token list`")


@subject_app.command("add", epilog="Example: modelhost subject add robot.team-a team-a --grant predict:team-a")
def add_subject(
    subject: Annotated[str, typer.Argument(help="Common name of the client certificate, exactly.")],
    name: _Name,
    grant: _Grants,
    access: _File,
) -> None:
    """Let callers in by their certificate, or change what they may do."""
    with _told_errors():
        if not subject:
            raise ValueError("subject: expected a certificate's common name; got nothing")
        AccessFile.made(access).put_subject(subject, name, _roles(name, grant))


@subject_app.command("list")
def list_subjects(context: typer.Context, access: _File) -> None:
    """List the certificates that are known."""
    with _told_errors():
        subjects = sorted(AccessFile(access).read().subjects.values(), key=lambda subject: subject.subject)
    rows = [
        {
            "subject": each.subject, "name": each.identity.name, "grants": grant_texts(each.identity.grants),
            "created": _when(each.created),
        }
        for each in subjects
    ]  # fmt: skip
    _print(context, rows, ("subject", "name", "grants", "created"))


@subject_app.command("remove")
def remove_subject(
    subject: Annotated[str, typer.Argument(help="From `modelhost subject list`.")], access: _File
) -> None:
    """Forget a certificate. A running server refuses it within a second, and ends its streams."""
    with _told_errors():
        if not AccessFile(access).remove_subject(subject):
            raise OSError(f"there is no subject {subject!r}; see `modelhost subject list`")


def _roles(name: str, grants: list[str]) -> dict[str, Role]:
    if not _NAME.fullmatch(name):
        raise ValueError("name: expected letters, digits, '.', '_', '@' and '-', beginning with a letter or digit")
    return read_grants(grants)


def _until(expires: str | None) -> float | None:
    if expires is None:
        return None
    found = _SPAN.fullmatch(expires)
    if found is None:
        raise ValueError(f"expires: expected a number and one of {', '.join(_SECONDS)}, like 30d; got {expires!r}")
    return time.time() + int(found[1]) * _SECONDS[found[2]]


def _state(token: Token) -> str:
    if token.revoked is not None:
        return "revoked"
    return "good" if token.is_good(time.time()) else "expired"


def _when(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _as_json(context: typer.Context) -> bool:
    return bool(context.find_root().params.get("json"))


def _print(context: typer.Context, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    if _as_json(context):
        typer.echo(json.dumps(rows))
        return
    texts = [columns, *(tuple(_text(row[column]) for column in columns) for row in rows)]
    widths = [max(len(line[i]) for line in texts) for i in range(len(columns))]
    for line in texts:
        typer.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _text(value: Any) -> str:
    return " ".join(value) if isinstance(value, list) else value or "-"


@contextmanager
def _told_errors() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        typer.echo(f"modelhost: {error}", err=True)
        raise typer.Exit(_USAGE if isinstance(error, ValueError) else _FAILED) from None
