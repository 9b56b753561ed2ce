"""One question to a model that tells who it is (see `telling`), in each protocol."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import grpc
import modelhost
import numpy as np
from modelhost_server.compat import open_inference_pb2 as open_inference
from modelhost_server.compat import serving_predict_pb2 as serving
from modelhost_server.compat import tensor_pb2

# Asks for a version (its number, a label, or "" for the one that serves) with an element and a timeout; answers the
# version that the answer is said to be of (0 when it is not said), and the answer.
Ask = Callable[[str, float, float], tuple[int, Any]]


def native(client: modelhost.Client, model: str) -> Ask:
    """The SDK."""

    def ask(way: str, x: float, timeout: float) -> tuple[int, Any]:
        answer = client.predict(f"{model}@{way}" if way else model, {"x": np.float32([x])}, timeout=timeout)
        return answer.version, answer["answer"]

    return ask


def native_stream(client: modelhost.Client, model: str, asked: SimpleQueue[tuple[str, float] | None]) -> Ask:
    """One stream for all that is asked, until None is; its timeout is the client's."""

    def requests() -> Iterator[Any]:
        for way, x in iter(asked.get, None):
            yield (f"{model}@{way}" if way else model), {"x": np.float32([x])}

    answers = client.predict_stream(requests())

    def ask(way: str, x: float, timeout: float) -> tuple[int, Any]:
        asked.put((way, x))
        answer = next(answers)
        if answer.error is not None:
            raise answer.error
        assert answer.prediction is not None
        return answer.prediction.version, answer.prediction["answer"]

    return ask


def tensorflow_serving(channel: grpc.Channel, model: str) -> Ask:
    """TensorFlow Serving's Predict."""
    predict = channel.unary_unary(
        "/tensorflow.serving.PredictionService/Predict",
        serving.PredictRequest.SerializeToString,
        serving.PredictResponse.FromString,
    )

    def ask(way: str, x: float, timeout: float) -> tuple[int, Any]:
        tensor = tensor_pb2.TensorProto(dtype=tensor_pb2.DT_FLOAT, float_val=[x])
        tensor.tensor_shape.dim.add(size=1)
        request = serving.PredictRequest(inputs={"x": tensor})
        request.model_spec.name = model
        if way.isdecimal():
            request.model_spec.version.value = int(way)
        elif way:
            request.model_spec.version_label = way
        response = predict(request, timeout=timeout)
        values = response.outputs["answer"].float_val
        return response.model_spec.version.value, np.array(values).reshape(-1, 3)

    return ask


def open_inference_unary(channel: grpc.Channel, model: str) -> Ask:
    """Open Inference's ModelInfer."""
    infer = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        open_inference.ModelInferRequest.SerializeToString,
        open_inference.ModelInferResponse.FromString,
    )
    return lambda way, x, timeout: _inferred(infer(_infer_request(model, way, x), timeout=timeout))


def open_inference_stream(channel: grpc.Channel, model: str) -> Ask:
    """Triton's ModelStreamInfer: a stream for each question."""
    stream = channel.stream_stream(
        "/inference.GRPCInferenceService/ModelStreamInfer",
        open_inference.ModelInferRequest.SerializeToString,
        open_inference.ModelStreamInferResponse.FromString,
    )

    def ask(way: str, x: float, timeout: float) -> tuple[int, Any]:
        (response,) = stream(iter([_infer_request(model, way, x)]), timeout=timeout)
        assert not response.error_message, response.error_message
        return _inferred(response.infer_response)

    return ask


def rest(connection: http.client.HTTPConnection, model: str) -> Ask:
    """TensorFlow Serving's REST API, whose paths know no scopes but "default"; its timeout is the connection's."""

    def ask(way: str, x: float, timeout: float) -> tuple[int, Any]:
        choice = "" if not way else f"/versions/{way}" if way.isdecimal() else f"/labels/{way}"
        connection.request("POST", f"/v1/models/{model}{choice}:predict", json.dumps({"inputs": {"x": [x]}}))
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200, (response.status, body)
        return 0, json.loads(body)["outputs"]

    return ask


def _infer_request(model: str, way: str, x: float) -> open_inference.ModelInferRequest:
    request = open_inference.ModelInferRequest(
        model_name=model, model_version=way, raw_input_contents=[np.float32([x]).tobytes()]
    )
    request.inputs.add(name="x", datatype="FP32", shape=[1])
    return request


def _inferred(response: open_inference.ModelInferResponse) -> tuple[int, Any]:
    return int(response.model_version), np.frombuffer(response.raw_output_contents[0], np.float32).reshape(-1, 3)
