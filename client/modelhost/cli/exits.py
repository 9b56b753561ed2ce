"""How a command ends: its exit code and what it says on stderr, for every failure there is."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import NoReturn

import typer

from .. import _errors
from .render import jsonable

FAILED, USAGE, UNREACHABLE, NOT_FOUND, TIMED_OUT, TRY_AGAIN, NOT_ALLOWED = range(1, 8)

EXPLANATION = (
    "Exit codes: 0 done; 1 the server refused or failed; 2 the command, or something it names, is wrong; 3 no server "
    "answers; 4 no such scope, model, version or label; 5 the time ran out; 6 not now, try again later; 7 not allowed."
)

# The first class that fits decides.
_CODES: tuple[tuple[type[_errors.ModelhostError], int], ...] = (
    (_errors.UnreachableError, UNREACHABLE),
    (_errors.InvalidRequestError, USAGE),
    (_errors.NotFoundError, NOT_FOUND),
    (_errors.DeadlineExceededError, TIMED_OUT),
    (_errors.UnavailableError, TRY_AGAIN),
    (_errors.ResourceExhaustedError, TRY_AGAIN),
    (_errors.UnauthenticatedError, NOT_ALLOWED),
    (_errors.PermissionDeniedError, NOT_ALLOWED),
    (_errors.ModelhostError, FAILED),
)


def exit_code(error: _errors.ModelhostError) -> int:
    """The exit code of a command that failed with `error`."""
    return next(code for kind, code in _CODES if isinstance(error, kind))


def fail(error: _errors.ModelhostError, as_json: bool) -> NoReturn:
    """Tells of `error` on stderr and ends the command."""
    if as_json:
        print(json.dumps({"error": jsonable(error)}), file=sys.stderr)
    else:
        tell(error)
    raise typer.Exit(exit_code(error))


def tell(error: _errors.ModelhostError, about: str = "") -> None:
    """Tells of `error` on stderr, and what it is about if there are several things."""
    print(f"error: {about}: {error}" if about else f"error: {error}", file=sys.stderr)
    for violation in error.violations:
        # The message usually says it already.
        if violation.description not in str(error):
            print(f"  {violation.field}: {violation.description}", file=sys.stderr)
    if error.retry_after is not None:
        print(f"  trying again after {error.retry_after:g} s may help", file=sys.stderr)


def with_first(errors: Iterable[_errors.ModelhostError]) -> None:
    """Ends a command that did several things as the first of its errors, already told, would; if there are any."""
    for error in errors:
        raise typer.Exit(exit_code(error))


def misused(message: str) -> NoReturn:
    """Ends the command because it, or a file it names, is wrong."""
    print(f"error: {message}", file=sys.stderr)
    raise typer.Exit(USAGE)
