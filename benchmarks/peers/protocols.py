"""What goes over the wire to the peers: modelhost's own messages, or those of the Open Inference protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from modelhost.v1.prediction_service_pb2 import PredictRequest, PredictResponse
from modelhost.v1.tensor_pb2 import DATA_TYPE_FLOAT32, Tensor

from .open_inference import ModelInferRequest, ModelInferResponse

_INPUT = "x"


class Protocol(NamedTuple):
    """A unary method that runs a model.

    Attributes:
        path: of the method.
        request: makes a request for a model.
        answer: reads an answer.
    """

    path: str
    request: Callable[[str, np.ndarray], bytes]
    answer: Callable[[bytes], np.ndarray]


def _native_request(model: str, x: np.ndarray) -> bytes:
    tensor = Tensor(dtype=DATA_TYPE_FLOAT32, shape=x.shape, raw=x.tobytes())
    return PredictRequest(model=model, inputs={_INPUT: tensor}).SerializeToString()


def _native_answer(data: bytes) -> np.ndarray:
    (tensor,) = PredictResponse.FromString(data).outputs.values()
    return np.frombuffer(tensor.raw, np.float32).reshape(tensor.shape)


def _open_inference_request(model: str, x: np.ndarray) -> bytes:
    request = ModelInferRequest(model_name=model, raw_input_contents=[x.tobytes()])
    request.inputs.add(name=_INPUT, datatype="FP32", shape=x.shape)
    data: bytes = request.SerializeToString()
    return data


def _open_inference_answer(data: bytes) -> np.ndarray:
    response = ModelInferResponse.FromString(data)
    (output,), (raw,) = response.outputs, response.raw_output_contents
    return np.frombuffer(raw, np.float32).reshape(output.shape)


NATIVE = Protocol("/modelhost.v1.PredictionService/Predict", _native_request, _native_answer)
OPEN_INFERENCE = Protocol("/inference.GRPCInferenceService/ModelInfer", _open_inference_request, _open_inference_answer)
