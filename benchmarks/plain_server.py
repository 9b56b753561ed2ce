"""The server that one would write by hand: grpc.aio with one model inside, by `tf.saved_model.load`.

Usage: python -m benchmarks.plain_server MODEL inline|pool
"""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc.aio
import numpy as np
import tensorflow as tf
from modelhost.v1.prediction_service_pb2 import PredictRequest, PredictResponse
from modelhost.v1.prediction_service_pb2_grpc import (
    PredictionServiceServicer,
    add_PredictionServiceServicer_to_server,
)
from modelhost.v1.tensor_pb2 import DATA_TYPE_FLOAT32, Tensor

from .common.models import model_path


class PlainService(PredictionServiceServicer):
    """Runs its one model; float32 in, float32 out."""

    def __init__(self, path: str, pool: ThreadPoolExecutor | None) -> None:
        self._loaded = tf.saved_model.load(path)
        self._run = self._loaded.signatures["serving_default"]
        self._pool = pool

    async def Predict(self, request: PredictRequest, context: Any) -> PredictResponse:  # noqa: N802
        """Answers on the event loop, or by a thread of the pool."""
        if self._pool is None:
            return self._predict(request)
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._predict, request)

    def _predict(self, request: PredictRequest) -> PredictResponse:
        inputs = {
            name: tf.constant(np.frombuffer(tensor.raw, np.float32).reshape(tensor.shape))
            for name, tensor in request.inputs.items()
        }
        outputs = {name: tensor.numpy() for name, tensor in self._run(**inputs).items()}
        return PredictResponse(
            version=1,
            outputs={
                name: Tensor(dtype=DATA_TYPE_FLOAT32, shape=array.shape, raw=array.tobytes())
                for name, array in outputs.items()
            },
        )


async def main(model: str, mode: str) -> None:
    """Serves until it is terminated."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    service = PlainService(str(model_path(model)), ThreadPoolExecutor() if mode == "pool" else None)
    add_PredictionServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"the plain server is ready on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
