"""Errors as messages: `modelhost.v1.Error`, for failures inside streams and of versions."""

from __future__ import annotations

from modelhost.v1 import error_pb2

from ...errors import ModelhostError


def error_message(error: ModelhostError) -> error_pb2.Error:
    """The error as a message."""
    message = error_pb2.Error(
        code=error.reason.code,
        message=error.message,
        reason=error_pb2.ErrorReason.Value(f"ERROR_REASON_{error.reason.name}"),
        metadata=error.details,
    )
    if error.retry_after is not None:
        message.retry_delay.FromNanoseconds(int(error.retry_after * 1e9))
    return message
