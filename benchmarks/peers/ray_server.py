"""Ray Serve's gRPC proxy with a deployment a model. Usage: python -m benchmarks.peers.ray_server MODELS.json"""

from __future__ import annotations

import asyncio
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import ray
from modelhost.v1.prediction_service_pb2 import PredictRequest, PredictResponse
from modelhost.v1.tensor_pb2 import DATA_TYPE_FLOAT32, Tensor
from ray import serve
from ray.serve.config import gRPCOptions

from .announcing import announced_port, free_port
from .tensorflow_model import INPUT, OUTPUT, TensorflowModel, told_models

_BATCH_SECONDS = 0.001
_ADD_SERVICER = "modelhost.v1.prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server"


def _array(request: PredictRequest) -> np.ndarray:
    tensor = request.inputs[INPUT]
    return np.frombuffer(tensor.raw, np.float32).reshape(tensor.shape)


def _response(y: np.ndarray) -> PredictResponse:
    return PredictResponse(version=1, outputs={OUTPUT: Tensor(dtype=DATA_TYPE_FLOAT32, shape=y.shape, raw=y.tobytes())})


@serve.deployment(ray_actor_options={"num_cpus": 0}, max_ongoing_requests=1000)
class Single:
    """Runs a model request by request: on the event loop when it is light, by threads otherwise."""

    def __init__(self, model: dict[str, Any]) -> None:
        self._model = TensorflowModel(model["path"])
        self._pool = ThreadPoolExecutor()

    async def Predict(self, request: PredictRequest) -> PredictResponse:  # noqa: N802
        """Answers one request."""
        return _response(await asyncio.get_running_loop().run_in_executor(self._pool, self._model, _array(request)))


@serve.deployment(ray_actor_options={"num_cpus": 0}, max_ongoing_requests=1000)
class Batched:
    """Runs a model on batches that Ray Serve gathers."""

    def __init__(self, model: dict[str, Any]) -> None:
        self._model = TensorflowModel(model["path"])
        self._gathered.set_max_batch_size(model["max_batch"])

    async def Predict(self, request: PredictRequest) -> PredictResponse:  # noqa: N802
        """Answers one request."""
        return _response(await self._gathered(_array(request)))

    @serve.batch(max_batch_size=1, batch_wait_timeout_s=_BATCH_SECONDS)
    async def _gathered(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        y = self._model(np.concatenate(arrays))
        ends = np.cumsum([len(array) for array in arrays])
        return np.split(y, ends[:-1])


def main() -> None:
    """Serves until it is terminated."""
    port, models = announced_port(), told_models()
    ray.init(include_dashboard=False, logging_level="warning", log_to_driver=False, configure_logging=False)
    serve.start(
        grpc_options=gRPCOptions(port=port, grpc_servicer_functions=[_ADD_SERVICER]),
        http_options={"port": free_port()}, logging_config={"enable_access_log": False, "log_level": "WARNING"},
    )  # fmt: skip
    for name, model in models.items():
        deployment = Batched if model["max_batch"] else Single
        serve.run(deployment.bind(model), name=name, route_prefix=f"/{name}")
    signal.sigwait([signal.SIGTERM, signal.SIGINT])
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
