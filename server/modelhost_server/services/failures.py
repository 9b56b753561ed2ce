"""Errors as messages: `modelhost.v1.Error`, for failures inside streams and of versions."""

from __future__ import annotations

import logging

from modelhost.v1 import error_pb2

from ..errors import ModelhostError, Reason

logger = logging.getLogger(__name__)


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


def as_modelhost_error(error: Exception) -> ModelhostError:
    """The error that a caller is told: itself, or INTERNAL for a bug of ours, whose traceback goes to the log."""
    if isinstance(error, ModelhostError):
        return error
    logger.error("a call failed by a bug", exc_info=error)
    return ModelhostError(Reason.INTERNAL, f"the server failed with {type(error).__name__}; its log says more")
