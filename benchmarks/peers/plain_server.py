"""The server that one would write by hand: grpc.aio with the models inside.

Usage: python -m benchmarks.peers.plain_server MODELS.json
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc.aio
import numpy as np
from modelhost.v1.prediction_service_pb2 import PredictRequest, PredictResponse
from modelhost.v1.prediction_service_pb2_grpc import (
    PredictionServiceServicer,
    add_PredictionServiceServicer_to_server,
)
from modelhost.v1.tensor_pb2 import DATA_TYPE_FLOAT32, Tensor

from .tensorflow_model import INPUT, OUTPUT, TensorflowModel, told_models


class PlainService(PredictionServiceServicer):
    """Runs light models on the event loop, others by threads: for each the faster way."""

    def __init__(self, told: dict[str, dict[str, Any]]) -> None:
        self._models = {name: TensorflowModel(model["path"]) for name, model in told.items()}
        self._light = {name for name, model in told.items() if model["is_light"]}
        self._pool = ThreadPoolExecutor()

    async def Predict(self, request: PredictRequest, context: Any) -> PredictResponse:  # noqa: N802
        """Answers one request."""
        if request.model in self._light:
            return self._predict(request)
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._predict, request)

    def _predict(self, request: PredictRequest) -> PredictResponse:
        tensor = request.inputs[INPUT]
        y = self._models[request.model](np.frombuffer(tensor.raw, np.float32).reshape(tensor.shape))
        return PredictResponse(
            version=1, outputs={OUTPUT: Tensor(dtype=DATA_TYPE_FLOAT32, shape=y.shape, raw=y.tobytes())}
        )


async def main() -> None:
    """Serves until it is terminated."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)])
    add_PredictionServiceServicer_to_server(PlainService(told_models()), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"the plain server is ready on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
