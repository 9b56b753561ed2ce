"""Numbers of versions: what they may be, which comes next, and loads of one that is there already."""

from __future__ import annotations

from ..errors import ModelhostError, Reason, brief
from .operations import LoadRequest
from .phases import WANTED, Phase
from .records import Scope, Version

_MAX_VERSION = 2**63 - 1


def check_number(number: int) -> None:
    """Raises ModelhostError, INVALID_REQUEST, unless a load may ask for this number."""
    if not 0 <= number <= _MAX_VERSION:
        raise ModelhostError(
            Reason.INVALID_REQUEST,
            f"version: expected 0 (the next number) to {_MAX_VERSION}; got {number}",
            field="version",
        )


def next_number(scope: Scope, model_name: str) -> int:
    """The number of a load that asks for none.

    Raises:
        ModelhostError: INVALID_REQUEST.
    """
    model = scope.models.get(model_name)
    live = [v.number for v in model.versions.values() if v.phase is not Phase.FAILED] if model else []
    number = max([scope.highest.get(model_name, 0), *live]) + 1
    if number > _MAX_VERSION:
        raise ModelhostError(
            Reason.INVALID_REQUEST, "version: there is no next number; give one yourself", field="version"
        )
    return number


def check_same(existing: Version, request: LoadRequest) -> None:
    """Raises ModelhostError, VERSION_UNLOADING or VERSION_ALREADY_EXISTS, unless a version is what a load asks for."""
    resource = existing.resource
    if existing.phase not in WANTED:
        raise ModelhostError(
            Reason.VERSION_UNLOADING, f"{resource} is being unloaded; load it again when that is done",
            resource=resource, retry_after=1.0,
        )  # fmt: skip
    if (existing.source, existing.options) != (request.source, request.options):
        raise ModelhostError(
            Reason.VERSION_ALREADY_EXISTS,
            f"{resource} exists, loaded from {brief(existing.source, 200)} or with other options; unload it first, "
            "or load under another version number",
            resource=resource,
        )
