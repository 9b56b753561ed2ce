"""Models and versions by the names that callers have for them, and why one is not there."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...errors import Code, ForeignError, ModelhostError, Reason
from ...hosting.host import Host
from ...store.phases import SERVED
from ...store.records import Version
from ..names import scope_and_model
from .errors import invalid, quoted

_NUMBER = re.compile(r"-?[0-9]+", re.ASCII)
_MAX_VERSION = 2**63 - 1
_NO_MODEL = frozenset({Reason.SCOPE_NOT_FOUND, Reason.MODEL_NOT_FOUND, Reason.INVALID_NAME})
_NO_VERSION = frozenset({Reason.VERSION_LOADING, Reason.VERSION_FAILED, Reason.VERSION_UNLOADING})


def version_choice(model: str, version: str) -> tuple[int, str]:
    """The number and the label that a request's version means; 0 and "" for the default.

    Raises:
        ForeignError: INVALID_ARGUMENT, NOT_FOUND.
    """
    if not version:
        return 0, ""
    if not _NUMBER.fullmatch(version):
        return 0, version
    number = int(version[:20])
    if number < 0:
        raise invalid(f"invalid model version specified {quoted(version)} , version should be an integral value > 0")
    if number > _MAX_VERSION:
        raise _no_number(version)
    if not number:
        raise ForeignError(Code.NOT_FOUND, _unknown(f"{quoted(model)} version 0 is not found"))
    return number, ""


def not_there(error: ModelhostError, model: str, version: str) -> ForeignError | ModelhostError:
    """The error of one who asked for a version of a model, in Triton's words if it is about them."""
    reason = error.reason
    name = quoted(model)
    if reason is Reason.LABEL_NOT_FOUND or error.field == "label":
        return _no_number(version)
    if reason in _NO_MODEL:
        return ForeignError(Code.NOT_FOUND, _unknown(f"{name} is not found"))
    if reason is Reason.VERSION_NOT_FOUND:
        return ForeignError(Code.NOT_FOUND, _unknown(f"{name} version {version} is not found"))
    if reason not in _NO_VERSION:
        return error
    if version:
        return ForeignError(Code.UNAVAILABLE, _unknown(f"{name} version {version} is not at ready state"))
    # Triton says NOT_FOUND of one that is loading, too; but that is worth another try.
    code = Code.UNAVAILABLE if reason is Reason.VERSION_LOADING else Code.NOT_FOUND
    return ForeignError(code, _unknown(f"{name} has no available versions"))


def ready_version(host: Host, model: str, version: str) -> Version:
    """A version that serves.

    Raises:
        ForeignError: INVALID_ARGUMENT, NOT_FOUND, UNAVAILABLE.
    """
    try:
        found = host.store.acquire(*scope_and_model(model), *version_choice(model, version))
    except ModelhostError as error:
        raise not_there(error, model, version) from None
    found.release()
    return found


def is_ready(host: Host, model: str, version: str) -> bool:
    """Whether a version serves.

    Raises:
        ForeignError: INVALID_ARGUMENT.
    """
    try:
        ready_version(host, model, version)
    except ForeignError as error:
        if error.code is Code.INVALID_ARGUMENT:
            raise
        return False
    return not host.draining.has_begun


def ready_versions(host: Host, model: str = "") -> Iterator[Version]:
    """All versions that serve, of one model or of all."""
    names = scope_and_model(model)
    for version in host.store.all_versions():
        if version.phase in SERVED and (not model or names == (version.scope, version.model)):
            yield version


def _no_number(version: str) -> ForeignError:
    return invalid(
        f"failed to get model version from specified version string {quoted(version)} (details: stol), version should "
        "be an integral value > 0"
    )


def _unknown(what: str) -> str:
    return f"Request for unknown model: {what}"
