"""Bugs of ours, as callers are told of them."""

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
