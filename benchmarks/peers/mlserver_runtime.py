"""What MLServer needs to host a SavedModel."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from .tensorflow_model import OUTPUT, TensorflowModel


class SavedModelRuntime(MLModel):
    """Runs a model on the event loop when it is light, by threads otherwise."""

    async def load(self) -> bool:
        """See MLModel."""
        self._model = TensorflowModel(self.settings.parameters.uri)
        self._pool = None if self.settings.parameters.extra["is_light"] else ThreadPoolExecutor()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """See MLModel."""
        x = NumpyCodec.decode_input(payload.inputs[0])
        y = await self._run(x)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output(OUTPUT, y)])

    async def _run(self, x: np.ndarray) -> np.ndarray:
        if self._pool is None:
            return self._model(x)
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._model, x)
