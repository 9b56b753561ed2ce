"""Between the public types about batching and the protocol's messages, in both directions."""

from __future__ import annotations

from modelhost.v1 import model_pb2

from ._batching_types import Batching, SignatureBatching
from ._wire import duration, enum_number, enum_word, optional_seconds

_MODE = "BATCHING_MODE_"


def batching_message(batching: Batching | None) -> model_pb2.BatchingOptions | None:
    """What was asked for.

    Raises:
        InvalidRequestError: the mode is unknown.
    """
    if batching is None:
        return None
    return model_pb2.BatchingOptions(
        mode=enum_number(model_pb2.BatchingMode, "mode", batching.mode, _MODE),
        max_batch_size=batching.max_batch_size or 0,
        max_delay=None if batching.max_delay is None else duration(batching.max_delay),
        allowed_batch_sizes=batching.allowed_batch_sizes,
        pad_variable_length=batching.pad_variable_length,
        max_queue=batching.max_queue or 0,
        queue_timeout=None if batching.queue_timeout is None else duration(batching.queue_timeout),
    )


def batching(message: model_pb2.BatchingOptions) -> Batching:
    """What was asked for."""
    mode = enum_word(model_pb2.BatchingMode, message.mode, _MODE)
    return Batching(
        mode=mode.lower() if message.mode else None,
        max_batch_size=message.max_batch_size or None,
        max_delay=optional_seconds(message, "max_delay"),
        allowed_batch_sizes=tuple(message.allowed_batch_sizes),
        pad_variable_length=message.pad_variable_length,
        max_queue=message.max_queue or None,
        queue_timeout=optional_seconds(message, "queue_timeout"),
    )


def signature_batching(message: model_pb2.SignatureBatching) -> SignatureBatching:
    """How predictions of a signature run together."""
    return SignatureBatching(
        state=enum_word(model_pb2.BatchingState, message.state, "BATCHING_STATE_"),
        explanation=message.explanation,
        max_batch_size=message.max_batch_size,
        batch_count=message.batch_count,
        prediction_count=message.prediction_count,
    )
