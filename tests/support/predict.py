"""Short ways to load, predict and fail over the generated stubs, and the answers TensorFlow gave at build time."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import ml_dtypes
import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from modelhost.v1 import error_pb2, model_pb2, prediction_service_pb2, scope_service_pb2, tensor_pb2
from modelhost.v1 import model_service_pb2 as pb

from support.server import Stubs

STRING = tensor_pb2.DATA_TYPE_STRING
SECONDS = 60
_scope_numbers = itertools.count(1)


def numpy_dtype(number: int) -> np.dtype[Any]:
    """Numpy's dtype of a DataType; object for strings."""
    name = tensor_pb2.DataType.Name(number).removeprefix("DATA_TYPE_").lower()
    if name == "string":
        return np.dtype(object)
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def tensor(value: object, dtype: object = None) -> tensor_pb2.Tensor:
    """A value as a message: arrays, lists, scalars; bytes (or text) become strings."""
    array = np.asarray(value, dtype)
    if array.dtype.kind in "SUO":
        values = [item.encode() if isinstance(item, str) else bytes(item) for item in array.flat]
        return tensor_pb2.Tensor(dtype=STRING, shape=array.shape, strings=tensor_pb2.StringValues(values=values))
    number = tensor_pb2.DataType.Value(f"DATA_TYPE_{array.dtype.name.upper()}")
    return tensor_pb2.Tensor(dtype=number, shape=array.shape, raw=array.tobytes())


def array(message: tensor_pb2.Tensor) -> np.ndarray[Any, Any]:
    """A message as an array; object arrays of bytes for strings."""
    if message.dtype == STRING:
        values = np.empty(len(message.strings.values), object)
        values[:] = list(message.strings.values)
        return values.reshape(message.shape)
    return np.frombuffer(message.raw, numpy_dtype(message.dtype)).reshape(message.shape)


def request(
    scope: str, model: str, inputs: Mapping[str, object], **fields: Any
) -> prediction_service_pb2.PredictRequest:
    """A PredictRequest; inputs that are no messages become such."""
    tensors = {k: v if isinstance(v, tensor_pb2.Tensor) else tensor(v) for k, v in inputs.items()}
    return prediction_service_pb2.PredictRequest(scope=scope, model=model, inputs=tensors, **fields)


def predict(
    stubs: Stubs,
    scope: str,
    model: str,
    signature: str = "",
    output_filter: Sequence[str] = (),
    given: Mapping[str, object] | None = None,
    **inputs: object,
) -> dict[str, np.ndarray[Any, Any]]:
    """Outputs by name. `given` takes the inputs whose names are not Python's."""
    message = request(scope, model, {**(given or {}), **inputs}, signature=signature, output_filter=output_filter)
    return {k: array(v) for k, v in stubs.predictions.Predict(message, timeout=SECONDS).outputs.items()}


def load(stubs: Stubs, scope: str, source: Path | str, model: str = "", **fields: Any) -> model_pb2.Version:
    """Loads a model, under the name of its directory or file if no other is given."""
    message = pb.LoadModelRequest(
        scope=scope, model=model or Path(source).name.replace(".keras", ""), source=str(source), **fields
    )
    return stubs.models.LoadModel(message, timeout=2 * SECONDS).version


def describe(stubs: Stubs, scope: str, model: str) -> model_pb2.Version:
    """The newest version of a model, with signatures and variables."""
    message = pb.GetModelRequest(scope=scope, model=model, view=model_pb2.MODEL_VIEW_VARIABLES)
    return stubs.models.GetModel(message, timeout=SECONDS).model.versions[0]


@contextmanager
def new_scope(stubs: Stubs, prefix: str) -> Iterator[str]:
    """A scope, deleted with all its models at the end: for fixtures that many tests share."""
    name = f"{prefix}-{next(_scope_numbers)}"
    stubs.scopes.CreateScope(scope_service_pb2.CreateScopeRequest(scope=name), timeout=SECONDS)
    yield name
    stubs.scopes.DeleteScope(scope_service_pb2.DeleteScopeRequest(scope=name, force=True), timeout=SECONDS)


def assert_serves(stubs: Stubs, scope: str, model: str) -> None:
    """The model, half_plus_two, answers, and answers rightly, and its worker is the one that was there before."""
    assert predict(stubs, scope, model, x=np.float32([2, 4]))["y"].tolist() == [3.0, 4.0]
    described = stubs.scopes.GetScope(scope_service_pb2.GetScopeRequest(scope=scope), timeout=SECONDS).scope
    assert described.statistics.worker_restarts == 0


@dataclass(frozen=True)
class Failure:
    """How an RPC failed, as a program sees it."""

    code: str
    reason: str
    message: str
    fields: tuple[str, ...]
    metadata: Mapping[str, str]
    retry_delay: Duration | None


def error_of(call: Callable[[], object]) -> Failure:
    """How `call` fails; that it does is asserted, and that it fails as every RPC of modelhost should."""
    try:
        result = call()
        if isinstance(result, grpc.Call):
            result = list(result)  # type: ignore[call-overload]
    except grpc.RpcError as error:
        return failure(error)
    raise AssertionError(f"expected a failure; got {str(result)[:500]}")


def failure(error: grpc.RpcError) -> Failure:
    """What a failed RPC says, through its rich status."""
    status = rpc_status.from_call(error)
    assert status is not None, f"no rich status: {error.code()}: {error.details()}"  # type: ignore[attr-defined]
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    found = {type(m) for m in (info, bad, retry) for detail in status.details if detail.Unpack(m)}
    assert error_details_pb2.ErrorInfo in found
    assert info.domain == "modelhost"
    assert status.message == error.details()  # type: ignore[attr-defined]
    return Failure(
        error.code().name,  # type: ignore[attr-defined]
        info.reason,
        status.message,
        tuple(violation.field for violation in bad.field_violations),
        dict(info.metadata),
        retry.retry_delay if error_details_pb2.RetryInfo in found else None,
    )


@dataclass(frozen=True)
class Case:
    """One call of a model, and what TensorFlow answered to it when the model was built."""

    signature: str
    inputs: Mapping[str, np.ndarray[Any, Any]]
    outputs: Mapping[str, np.ndarray[Any, Any]]


def expected(models: Path, model: str) -> list[Case]:
    """The calls that were recorded when a model was built."""
    with np.load(models / f"{model}.npz", allow_pickle=True) as stored:
        cases: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {}
        for key in stored.files:
            number, signature, side, name, dtype = json.loads(key.replace("|", "/"))
            value = stored[key].view(ml_dtypes.bfloat16) if dtype == "bfloat16" else stored[key]
            cases.setdefault(number, (signature, {}, {}))[1 if side == "in" else 2][name] = value
    return [Case(*case) for _, case in sorted(cases.items())]


def expected_variables(models: Path, model: str) -> list[tuple[str, tuple[int, ...]]]:
    """Dtype and shape of each variable that the model's signatures use, sorted."""
    return sorted((dtype, tuple(shape)) for dtype, shape in json.loads((models / f"{model}.variables").read_text()))


def streamed(
    stubs: Stubs, items: Sequence[prediction_service_pb2.StreamedRequest], timeout: float = SECONDS
) -> list[prediction_service_pb2.StreamedResponse]:
    """The answers of a stream that carries these requests, one a message, in the order in which they come."""
    messages = (prediction_service_pb2.PredictStreamRequest(requests=[item]) for item in items)
    return [
        answer for message in stubs.predictions.PredictStream(messages, timeout=timeout) for answer in message.responses
    ]


def stream_error_of(stubs: Stubs, message: prediction_service_pb2.PredictRequest, **fields: Any) -> Failure:
    """How a prediction of a stream fails; that the stream goes on after it is asserted."""
    items = [prediction_service_pb2.StreamedRequest(id=i, request=message, **fields) for i in (7, 8)]
    answers = streamed(stubs, items)
    assert sorted(answer.id for answer in answers) == [7, 8]
    assert [answer.WhichOneof("outcome") for answer in answers] == ["error", "error"], answers
    error = answers[0].error
    return Failure(
        grpc.StatusCode(next(c.value for c in grpc.StatusCode if c.value[0] == error.code)).name,
        error_pb2.ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_"),
        error.message,
        (),
        dict(error.metadata),
        error.retry_delay if error.HasField("retry_delay") else None,
    )
