"""Batching options between messages and the store's form."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from modelhost.v1 import model_pb2

from ...errors import ModelhostError, Reason
from ...store.records import BatchingOptions

_MODES = {
    model_pb2.BATCHING_MODE_UNSPECIFIED: "",
    model_pb2.BATCHING_MODE_ON: "ON",
    model_pb2.BATCHING_MODE_OFF: "OFF",
}
_MAX_BATCH = 1 << 20
_MAX_SECONDS = 3600.0


def batching_options(message: model_pb2.BatchingOptions) -> BatchingOptions:
    """The options in a request.

    Raises:
        ModelhostError: INVALID_REQUEST.
    """
    if message.mode not in _MODES:
        raise _invalid("mode", "one of modelhost.v1.BatchingMode", f"the number {message.mode}")
    sizes = tuple(message.allowed_batch_sizes)
    if any(not 0 < size <= _MAX_BATCH for size in sizes) or list(sizes) != sorted(set(sizes)):
        raise _invalid("allowed_batch_sizes", f"ascending numbers from 1 to {_MAX_BATCH}", str(list(sizes)[:16]))
    if not 0 <= message.max_batch_size <= _MAX_BATCH:
        raise _invalid("max_batch_size", f"0 (learnt) to {_MAX_BATCH}", str(message.max_batch_size))
    if sizes and message.max_batch_size not in (0, sizes[-1]):
        raise _invalid("max_batch_size", f"the last of allowed_batch_sizes, {sizes[-1]}", str(message.max_batch_size))
    if message.max_queue < 0:
        raise _invalid("max_queue", "0 (the scope's limit only) or more", str(message.max_queue))
    return BatchingOptions(
        mode=_MODES[message.mode],
        max_batch_size=message.max_batch_size,
        max_delay=_seconds("max_delay", message.max_delay),
        allowed_batch_sizes=sizes,
        pad_variable_length=message.pad_variable_length,
        max_queue=message.max_queue,
        queue_timeout=_seconds("queue_timeout", message.queue_timeout),
    )


def batching_message(options: BatchingOptions) -> model_pb2.BatchingOptions | None:
    """The options as they were asked for; None when nothing was."""
    if options == BatchingOptions():
        return None
    message = model_pb2.BatchingOptions(
        mode=next(number for number, mode in _MODES.items() if mode == options.mode),
        max_batch_size=options.max_batch_size,
        allowed_batch_sizes=options.allowed_batch_sizes,
        pad_variable_length=options.pad_variable_length,
        max_queue=options.max_queue,
    )
    if options.max_delay:
        message.max_delay.FromNanoseconds(int(options.max_delay * 1e9))
    if options.queue_timeout:
        message.queue_timeout.FromNanoseconds(int(options.queue_timeout * 1e9))
    return message


def _seconds(field: str, duration: Duration) -> float:
    seconds = float(duration.seconds + duration.nanos / 1e9)
    if not 0 <= seconds <= _MAX_SECONDS:
        raise _invalid(field, f"0 to {_MAX_SECONDS:g} seconds", f"{seconds:g}")
    return seconds


def _invalid(field: str, expected: str, got: str) -> ModelhostError:
    field = f"options.batching.{field}"
    return ModelhostError(Reason.INVALID_REQUEST, f"{field}: expected {expected}; got {got}", field=field)
