"""PredictStream: what goes to and fro on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from modelhost.v1.prediction_service_pb2 import PredictRequest, PredictStreamRequest, StreamedRequest

from ...hosting.prediction import Begun, Prediction
from ..call import Call
from ..failures import as_modelhost_error
from ..wire_format import Parts
from . import wire
from .failures import error_message
from .tensors import raw_inputs

# Answers go into one message up to here: gRPC clients take 4 MB unless they are told otherwise.
_MESSAGE_BYTES = 1 << 20

# An answer, and its size.
Answer = tuple[Parts, int]


class NativeExchange:
    """See Exchange.

    Args:
        begin: begins a prediction.
        respond: makes a response of what came of one.
    """

    in_order = False

    def __init__(
        self,
        begin: Callable[[wire.Request, Call], Begun],
        respond: Callable[[PredictRequest, Prediction], wire.Response],
    ) -> None:
        self._begin = begin
        self._respond = respond

    def items(self, message: PredictStreamRequest) -> Iterable[StreamedRequest]:
        """See Exchange."""
        return message.requests

    def seconds(self, item: StreamedRequest) -> float | None:
        """See Exchange."""
        return item.timeout.ToNanoseconds() / 1e9 if item.HasField("timeout") else None

    def begin(self, item: StreamedRequest, call: Call) -> Begun:
        """See Exchange."""
        return self._begin(wire.Request(item.request, raw_inputs(item.request.inputs)), call)

    def answer(self, item: StreamedRequest, prediction: Prediction) -> Answer:
        """See Exchange."""
        return wire.answer(item.id, self._respond(item.request, prediction))

    def failure(self, item: StreamedRequest, error: Exception) -> Answer:
        """See Exchange."""
        return wire.answer(item.id, None, error_message(as_modelhost_error(error)).SerializeToString())

    def count(self, ready: Sequence[Answer]) -> int:
        """See Exchange."""
        total = count = 0
        for _, size in ready:
            total += size
            if count and total > _MESSAGE_BYTES:
                break
            count += 1
        return count
