"""Errors in TensorFlow Serving's words. What it has no words for is told in ours."""

from __future__ import annotations

from ...errors import Code, ForeignError, ModelhostError, Reason
from .names import Target

# Bytes; as TensorFlow Serving has it: a status must fit into HTTP headers.
_LONGEST = 1024
# TensorFlow Serving's own clients try again on UNAVAILABLE, and that is what its full queues answer.
_CODES = {Reason.QUEUE_FULL: Code.UNAVAILABLE}

_NO_MODEL = {Reason.SCOPE_NOT_FOUND, Reason.MODEL_NOT_FOUND, Reason.INVALID_NAME}
_NO_SERVABLE = {
    *_NO_MODEL, Reason.VERSION_NOT_FOUND, Reason.VERSION_LOADING, Reason.VERSION_FAILED, Reason.VERSION_UNLOADING,
}  # fmt: skip


def error(code: Code, message: str) -> ForeignError:
    """An error of TensorFlow Serving's."""
    return ForeignError(code, short(message))


def invalid(message: str) -> ForeignError:
    """A request that is not right."""
    return error(Code.INVALID_ARGUMENT, message)


def translate(ours: ModelhostError) -> ForeignError:
    """Any error of ours."""
    return error(_CODES.get(ours.reason, ours.reason.code), ours.message)


def check_target(target: Target) -> None:
    """Checks what can be told wrong without looking for it.

    Raises:
        ForeignError: it names no model, or a version or label that there cannot be.
    """
    if not target.name:
        raise invalid("ModelSpec has no name specified.")
    if target.label == "":
        raise _unrecognized(target)
    if target.version is not None and target.version <= 0:
        raise _not_found(target.name, target.version)


def servable_error(target: Target, ours: ModelhostError) -> ForeignError:
    """Why `target` was not found or does not answer."""
    if target.label is not None and ours.reason in {*_NO_MODEL, Reason.LABEL_NOT_FOUND}:
        return _unrecognized(target)
    # A server of TensorFlow Serving's would have died with the worker, and be UNAVAILABLE.
    if ours.reason not in _NO_SERVABLE or "recovering" in ours.details:
        return translate(ours)
    # TensorFlow Serving knows the version that a label stands for before it finds out that it is not available.
    version = int(ours.details["resource"].rpartition("/")[2]) if target.label is not None else target.version
    return _not_found(target.name, version)


def _not_found(name: str, version: int | None) -> ForeignError:
    request = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    return error(Code.NOT_FOUND, f"Servable not found for request: {request}")


def _unrecognized(target: Target) -> ForeignError:
    return invalid(f"Unrecognized servable version label: {target.label}")


def short(message: str) -> str:
    """A message as it may be sent."""
    encoded = message.encode()
    return message if len(encoded) <= _LONGEST else encoded[:_LONGEST].decode(errors="ignore") + "...TRUNCATED"
