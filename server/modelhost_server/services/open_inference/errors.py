"""Our errors in the words of the Open Inference Protocol, as Triton has them."""

from __future__ import annotations

from ...errors import ForeignError, ModelhostError


def translate(error: ModelhostError) -> ForeignError:
    """What a caller is told."""
    return ForeignError(error.reason.code, error.message)
