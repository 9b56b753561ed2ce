"""Failures in the words of the Open Inference Protocol, as Triton has them."""

from __future__ import annotations

from collections.abc import Mapping

from ...errors import Code, ForeignError, ModelhostError, Reason, brief

# What a message repeats of what a caller sent.
_MAX_QUOTED = 256
# Triton knows fewer codes: none that says that a call came too late, or to no purpose.
_CODES: Mapping[Reason, Code] = {
    Reason.MODEL_EXECUTION_FAILED: Code.INTERNAL,
    Reason.QUEUE_FULL: Code.UNAVAILABLE,
    Reason.DEADLINE_EXCEEDED: Code.UNAVAILABLE,
}
_MESSAGES: Mapping[Reason, str] = {
    Reason.QUEUE_FULL: "Exceeds maximum queue size",
    Reason.DEADLINE_EXCEEDED: "Request timeout expired",
    Reason.SERVER_DRAINING: "GRPC server is shutting down and has stopped accepting new requests.",
}


def translate(error: ModelhostError) -> ForeignError:
    """What a caller is told."""
    reason = error.reason
    return ForeignError(_CODES.get(reason, reason.code), _MESSAGES.get(reason, error.message))


def invalid(message: str) -> ForeignError:
    """The failure of a request that is not right."""
    return ForeignError(Code.INVALID_ARGUMENT, message)


def quoted(name: str) -> str:
    """A name as messages have it."""
    return f"'{name}'" if len(name) <= _MAX_QUOTED else brief(name, _MAX_QUOTED)
