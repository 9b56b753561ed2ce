"""What every command knows: where the server is, and how to print."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import typer

from .. import Client, tls
from .._types import DEFAULT_TIMEOUT
from . import exits


@dataclass(frozen=True, slots=True)
class Session:
    """The options that stand before the command."""

    target: str
    json: bool
    timeout: float | None
    token: str | None = field(repr=False)
    insecure: bool
    use_tls: bool
    tls_ca: Path | None
    tls_cert: Path | None
    tls_key: Path | None

    def client(self) -> Client:
        """A client of the server that the options name."""
        credentials = None
        if self.use_tls or self.tls_ca or self.tls_cert:
            try:
                credentials = tls(self.tls_ca, self.tls_cert, self.tls_key)
            except OSError as error:
                exits.misused(str(error))
        timeout = DEFAULT_TIMEOUT if self.timeout is None else self.timeout
        try:
            return Client(
                self.target, credentials=credentials, token=self.token, insecure=self.insecure, timeout=timeout
            )
        except ValueError as error:
            exits.misused(str(error))


def session_of(context: typer.Context) -> Session:
    """The session of a command's context."""
    session = context.find_object(Session)
    if session is None:
        raise LookupError("the command runs outside of the modelhost app")
    return session
