"""Inferences of GRPCInferenceService: ModelInfer and ModelStreamInfer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from typing import Any, ClassVar

from ...errors import ForeignError
from ...hosting.host import Host
from ...hosting.prediction import Begun, Prediction
from ...hosting.regions import ByOwner
from ..call import Call, Codec
from ..failures import as_modelhost_error
from ..prediction_streaming import predict_stream
from .errors import translate
from .inference import Inference, InferenceResponse
from .messages import inference_request
from .regions import SystemRegions
from .wire import Request, StreamAnswer, read_request, write_answer, write_response


class InferenceHandler:
    """Runs inferences."""

    codecs: ClassVar = {
        "ModelInfer": Codec(read_request, write_response),
        "ModelStreamInfer": Codec(read_request, lambda answers: write_answer(answers[0])),
    }

    def __init__(self, host: Host, regions: ByOwner[SystemRegions]) -> None:
        self._host = host
        self._regions = regions

    async def model_infer(self, request: Request, call: Call) -> InferenceResponse:
        """Runs one."""
        return await self._inference(request, call).run(call)

    def model_stream_infer(self, requests: AsyncIterator[Request], call: Call) -> AsyncIterator[Any]:
        """Runs many over one stream."""
        return predict_stream(self._host, _Exchange(partial(self._inference, call=call)), requests, call)

    def _inference(self, request: Request, call: Call) -> Inference:
        regions = self._regions.of(call.owner)
        return Inference(self._host, regions, inference_request(*request, regions))


class _Streamed:
    """A request of a stream."""

    __slots__ = ("inference", "request")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.inference: Inference | None = None


class _Exchange:
    """See `prediction_streaming.Exchange`."""

    # As Triton answers those of models that answer each request once.
    in_order = True

    def __init__(self, open_: Callable[[Request], Inference]) -> None:
        self._open = open_

    def items(self, message: Request) -> Iterable[_Streamed]:
        return (_Streamed(message),)

    def seconds(self, item: _Streamed) -> float | None:
        item.inference = self._open(item.request)
        return item.inference.request.options.timeout

    def begin(self, item: _Streamed, call: Call) -> Begun:
        assert item.inference is not None, "its timeout was asked for"
        return item.inference.begin(call)

    def answer(self, item: _Streamed, prediction: Prediction) -> StreamAnswer:
        assert item.inference is not None, "it has begun"
        return StreamAnswer(item.request.message.id, item.inference.respond(prediction))

    def failure(self, item: _Streamed, error: Exception) -> StreamAnswer:
        known = error if isinstance(error, ForeignError) else translate(as_modelhost_error(error))
        return StreamAnswer(item.request.message.id, None, known.message)

    def count(self, ready: Sequence[StreamAnswer]) -> int:
        return 1
