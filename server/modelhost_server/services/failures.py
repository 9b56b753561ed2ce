"""Failures that all protocols have: bugs of ours, and bytes that are no message."""

from __future__ import annotations

import logging

from ..errors import ModelhostError, Reason

logger = logging.getLogger(__name__)


def as_modelhost_error(error: Exception) -> ModelhostError:
    """The error that a caller is told: itself, or INTERNAL for a bug of ours, whose traceback goes to the log."""
    if isinstance(error, ModelhostError):
        return error
    logger.error("a call failed by a bug", exc_info=error)
    return ModelhostError(Reason.INTERNAL, f"the server failed with {type(error).__name__}; its log says more")


def no_message(expected: str, data: bytes) -> ModelhostError:
    """What a caller is told that sent something else than `expected`, a message's name with its article."""
    return ModelhostError(
        Reason.INVALID_REQUEST, f"expected {expected}; got {len(data)} bytes that are truncated or corrupt"
    )
