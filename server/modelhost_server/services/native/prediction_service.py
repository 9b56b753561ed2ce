"""PredictionService of modelhost.v1."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any, ClassVar

from modelhost.v1.prediction_service_pb2 import (
    PredictManyRequest,
    PredictManyResponse,
    PredictManyResult,
    PredictManyTarget,
    PredictRequest,
    PredictResponse,
    PredictStreamRequest,
)

from ...access.identity import Role
from ...errors import ModelhostError, Reason
from ...hosting.host import Host
from ...hosting.many import Outcome, Target
from ...hosting.prediction import Begun, Prediction
from ...store.names import DEFAULT_SCOPE
from ..call import Call, Codec
from ..prediction_streaming import predict_stream
from . import wire
from .failures import error_message
from .prediction_stream import NativeExchange
from .sharing import check_places, found_inputs, place_outputs
from .tensors import fill_outputs, raw_inputs

_MAX_TARGETS = 1000


class PredictionService:
    """Runs signatures of hosted models."""

    codecs: ClassVar = {
        "Predict": Codec(wire.read_request, wire.write_response),
        "PredictStream": Codec(None, wire.write_answers),
    }

    def __init__(self, host: Host) -> None:
        self._host = host

    async def predict(self, request: wire.Request, call: Call) -> wire.Response:
        """Runs one signature once."""
        return self._respond(request.message, await self._begin(request, call).result(), call)

    def _begin(self, request: wire.Request, call: Call) -> Begun:
        message = request.message
        version, label = _choice(message)
        regions = self._host.regions.of(call.owner)
        inputs = found_inputs(request.inputs, regions)
        check_places(message, regions)
        return self._host.predictions.begin(
            message.scope, message.model, version, label, message.signature, inputs, message.output_filter,
            deadline=call.deadline, caller=call.who, priority=message.priority,
        )  # fmt: skip

    def _begin_part(self, request: wire.Request, call: Call) -> Begun:
        call.require(Role.PREDICT, request.message.scope or DEFAULT_SCOPE)
        return self._begin(request, call)

    def _respond(self, message: PredictRequest, prediction: Prediction, call: Call) -> wire.Response:
        regions = self._host.regions.of(call.owner)
        placed = place_outputs(message, prediction.outputs, regions) if message.output_regions else {}
        return wire.Response(prediction.version, prediction.outputs, placed)

    async def predict_many(self, request: PredictManyRequest, call: Call) -> PredictManyResponse:
        """Runs the same inputs through several models."""
        if len(request.targets) > _MAX_TARGETS:
            raise ModelhostError(
                Reason.INVALID_REQUEST,
                f"targets: expected at most {_MAX_TARGETS}; got {len(request.targets)}",
                field="targets",
            )
        targets = [Target(target.model, *_choice(target), target.signature) for target in request.targets]
        inputs = found_inputs(raw_inputs(request.inputs), self._host.regions.of(call.owner))
        outcomes = await self._host.predictions.many(request.scope, targets, inputs, request.output_filter, call.who)
        return PredictManyResponse(results=[_result(outcome) for outcome in outcomes])

    def predict_stream(self, requests: AsyncIterator[PredictStreamRequest], call: Call) -> AsyncIterator[Any]:
        """Runs many predictions over one stream; answers come as they are ready."""
        exchange = NativeExchange(self._begin_part, partial(self._respond, call=call))
        return predict_stream(self._host, exchange, requests, call)


def _choice(request: PredictRequest | PredictManyTarget) -> tuple[int, str]:
    """Version and label asked for; 0 and "" for the default.

    Raises:
        ModelhostError: INVALID_REQUEST.
    """
    version, label = request.version, request.label
    if not (version or label) and (choice := request.WhichOneof("choice")):
        wrong = "a number greater than 0; got 0" if choice == "version" else "a label's name; got nothing"
        raise ModelhostError(Reason.INVALID_REQUEST, f"{choice}: expected the field left out, or {wrong}", field=choice)
    return version, label


def _result(outcome: Outcome) -> PredictManyResult:
    if isinstance(outcome, ModelhostError):
        return PredictManyResult(error=error_message(outcome))
    response = PredictResponse(version=outcome.version)
    fill_outputs(response, outcome.outputs)
    return PredictManyResult(response=response)
