"""KServe's Python server, which runs models by threads. Usage: python -m benchmarks.peers.kserve_server MODELS.json"""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor

from .announcing import announced_port, free_port
from .tensorflow_model import OUTPUT, TensorflowModel, told_models

PORT, MODELS = announced_port(), told_models()
# KServe reads its command line when it is imported, and these settings from nowhere else.
sys.argv[1:] = ["--grpc_max_send_message_length=-1", "--grpc_max_receive_message_length=-1"]

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer  # noqa: E402


class SavedModel(Model):
    """One model. KServe itself would run it on its event loop, one call at a time."""

    def __init__(self, name: str, path: str, pool: ThreadPoolExecutor) -> None:
        super().__init__(name)
        self._model, self._pool = TensorflowModel(path), pool
        self.ready = True

    async def predict(
        self,
        payload: InferRequest,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> InferResponse:
        """See Model."""
        x = payload.inputs[0].as_numpy()
        y = await asyncio.get_running_loop().run_in_executor(self._pool, self._model, x)
        output = InferOutput(OUTPUT, list(y.shape), "FP32")
        output.set_data_from_numpy(y)
        return InferResponse(payload.id or "", self.name, [output], use_binary_outputs=True)


if __name__ == "__main__":
    threads = ThreadPoolExecutor()
    hosted = [SavedModel(name, model["path"], threads) for name, model in MODELS.items()]
    ModelServer(http_port=free_port(), grpc_port=PORT, access_log_format=None).start(hosted)
