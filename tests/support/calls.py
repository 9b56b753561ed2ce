"""Short ways to say what the life-cycle tests say often."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from modelhost.v1 import (
    model_pb2,
    model_service_pb2,
    prediction_service_pb2,
    scope_service_pb2,
    tensor_pb2,
)

from .server import Stubs

CRASH = 2**31 - 1


def scalar(value: int) -> tensor_pb2.Tensor:
    """An int32 scalar."""
    return tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_INT32, raw=np.int32(value).tobytes())


def vector(*values: float) -> tensor_pb2.Tensor:
    """A float32 vector."""
    return tensor_pb2.Tensor(
        dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[len(values)], raw=np.array(values, "<f4").tobytes()
    )


def load(stubs: Stubs, scope: str, model: str, source: Path, **options: Any) -> model_pb2.Version:
    """Loads and answers the version."""
    request = model_service_pb2.LoadModelRequest(scope=scope, model=model, source=str(source), **options)
    return stubs.models.LoadModel(request, timeout=60).version


def unload(stubs: Stubs, scope: str, model: str, **choice: Any) -> list[int]:
    """Unloads all versions, or the chosen one."""
    request = model_service_pb2.UnloadModelRequest(scope=scope, model=model, **(choice or {"all_versions": True}))
    return list(stubs.models.UnloadModel(request, timeout=60).versions)


def request(scope: str, model: str, version: int = 0, **inputs: tensor_pb2.Tensor) -> Any:
    """A PredictRequest."""
    message = prediction_service_pb2.PredictRequest(scope=scope, model=model, inputs=inputs)
    if version:
        message.version = version
    return message


def half(stubs: Stubs, scope: str, model: str = "half", x: float = 4.0, timeout: float = 10, version: int = 0) -> float:
    """What a half_plus_… model makes of x."""
    answer = stubs.predictions.Predict(request(scope, model, version, x=vector(x)), timeout=timeout)
    return float(np.frombuffer(answer.outputs["y"].raw, "<f4")[0])


def slow_call(stubs: Stubs, scope: str, steps: int, timeout: float = 60) -> Any:
    """A future of the answer of the `slow` model."""
    return stubs.predictions.Predict.future(request(scope, "slow", steps=scalar(steps)), timeout=timeout)


def version_of(stubs: Stubs, scope: str, model: str) -> model_pb2.Version:
    """The newest version of a model."""
    answer = stubs.models.GetModel(model_service_pb2.GetModelRequest(scope=scope, model=model), timeout=10)
    return answer.model.versions[0]


def scope_of(stubs: Stubs, scope: str) -> Any:
    """A scope."""
    return stubs.scopes.GetScope(scope_service_pb2.GetScopeRequest(scope=scope), timeout=10).scope


def failure(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str, str]:
    """Code, reason and message of a call that must fail."""
    try:
        answer = call()
    except grpc.RpcError as error:
        status = rpc_status.from_call(error)
        reason = ""
        for detail in status.details if status else ():
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info):
                reason = info.reason
        return error.code(), reason, error.details()
    raise AssertionError(f"the call succeeded: {answer}")


def eventually(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    """What `condition` answers once that is true; what it raised or answered last goes into the failure."""
    end = time.monotonic() + seconds
    last: Any = None
    while time.monotonic() < end:
        try:
            last = condition()
        except grpc.RpcError as error:
            last = error
        else:
            if last:
                return last
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s; last: {last!r}")


def assert_place_is_given_back(stubs: Stubs, leaves: bool) -> None:
    """In a scope with one place to run and one to wait: a caller that leaves, or is late, makes room for another.
    The call that runs never ends, so the server is to be killed.
    """

    def outcome() -> tuple[grpc.StatusCode, str]:
        return failure(slow_call(stubs, "default", 1, timeout=0.3).result)[:2]

    running = slow_call(stubs, "default", CRASH - 1, timeout=600)
    # Calls that arrive together may overtake one another.
    time.sleep(0.5)
    waiting = slow_call(stubs, "default", 1, timeout=60 if leaves else 5)
    time.sleep(0.5)
    eventually(lambda: outcome()[1] == "QUEUE_FULL")
    if leaves:
        waiting.cancel()
    else:
        assert failure(waiting.result)[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    # Not refused any more, but left to wait.
    eventually(lambda: outcome()[0] is grpc.StatusCode.DEADLINE_EXCEEDED)
    assert not running.done(), running
