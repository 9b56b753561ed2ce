"""PredictionService's Predict."""

from __future__ import annotations

from typing import ClassVar

from ...hosting.host import Host
from ..call import Call, Codec
from . import wire
from .errors import invalid
from .prediction import begin


class Predict:
    """Runs signatures on tensors."""

    codecs: ClassVar = {"Predict": Codec(wire.read_request, wire.write_response)}

    def __init__(self, host: Host) -> None:
        self._host = host

    async def predict(self, request: wire.Request, call: Call) -> wire.Response:
        """Runs one signature once."""
        target = request.target
        if target is None:
            raise invalid("Missing ModelSpec")
        done = await begin(self._host, target, request.inputs, request.output_filter, call).result()
        return wire.Response(target, done.version, done.outputs)
