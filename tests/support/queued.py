"""Predictions that wait: a scope whose only place is taken until the test says otherwise, so that nothing depends on
how fast the machine is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from modelhost.v1 import model_pb2, model_service_pb2, scope_service_pb2, tensor_pb2

from .building import built
from .calls import eventually, scope_of
from .predict import SECONDS, array, failure, load, request
from .server import Stubs

Array = np.ndarray[Any, Any]
ON, OFF, VERIFYING = (
    model_pb2.BATCHING_STATE_ON, model_pb2.BATCHING_STATE_OFF, model_pb2.BATCHING_STATE_VERIFYING,
)  # fmt: skip
_numbers = itertools.count(1)


def batching_models() -> Path:
    """Where the models of `build_batching` are."""
    return built("build_batching")


def options(**batching: Any) -> model_pb2.LoadOptions:
    """Options of a load; durations in seconds."""
    message = model_pb2.LoadOptions()
    for name in ("max_delay", "queue_timeout"):
        if name in batching:
            getattr(message.batching, name).FromMicroseconds(round(batching.pop(name) * 1e6))
    message.batching.MergeFrom(model_pb2.BatchingOptions(**batching))
    return message


def make_narrow_scope(stubs: Stubs, **config: Any) -> str:
    """As `narrow_scope`; it goes with its server."""
    name = f"narrow-{next(_numbers)}"
    create = scope_service_pb2.CreateScopeRequest(scope=name, config={"max_in_flight": 1, **config})
    stubs.scopes.CreateScope(create, timeout=SECONDS)
    load_gate(stubs, name)
    return name


def load_gate(stubs: Stubs, scope: str) -> None:
    """Puts a gate into a scope."""
    together = options(mode=model_pb2.BATCHING_MODE_ON, max_batch_size=64)
    load(stubs, scope, batching_models() / "gate", "gate", options=together)


@contextmanager
def narrow_scope(stubs: Stubs, **config: Any) -> Iterator[str]:
    """A scope that runs one prediction, or one batch, at a time, with a gate in it."""
    name = make_narrow_scope(stubs, **config)
    yield name
    stubs.scopes.DeleteScope(scope_service_pb2.DeleteScopeRequest(scope=name, force=True), timeout=SECONDS)


class Gate:
    """A prediction that runs until it is opened."""

    def __init__(self, stubs: Stubs, scope: str, directory: Path) -> None:
        self._stubs = stubs
        self._scope = scope
        self._path = directory / f"open-{next(_numbers)}"
        path = tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_STRING)
        path.strings.values.append(str(self._path).encode())
        self.call = stubs.predictions.Predict.future(request(scope, "gate", {"path": path}), timeout=SECONDS)
        eventually(lambda: scope_of(stubs, scope).statistics.in_flight == 1)

    def wait_for(self, count: int) -> None:
        """Until so many predictions wait; the server's own, which compares, may be one more."""
        eventually(lambda: scope_of(self._stubs, self._scope).statistics.queued >= count)

    def open(self) -> None:
        """Lets go."""
        self._path.touch()


@contextmanager
def gate(stubs: Stubs, scope: str, directory: Path) -> Iterator[Gate]:
    """A gate that is open in the end."""
    closed = Gate(stubs, scope, directory)
    try:
        yield closed
    finally:
        closed.open()
        closed.call.exception()


def start(stubs: Stubs, scope: str, model: str, inputs: Mapping[str, object], **fields: Any) -> Any:
    """A prediction under way."""
    timeout = fields.pop("timeout", SECONDS)
    return stubs.predictions.Predict.future(request(scope, model, inputs, **fields), timeout=timeout)


def outcome(call: Any) -> Any:
    """Outputs by name, or the failure."""
    try:
        return {name: array(value) for name, value in call.result().outputs.items()}
    except grpc.RpcError as error:
        return failure(error)


def queued(
    stubs: Stubs, scope: str, directory: Path, model: str, inputs: Sequence[Mapping[str, object]], **fields: Any
) -> list[Any]:
    """What comes of predictions that have all been waiting for one another, as in `outcome`."""
    with gate(stubs, scope, directory) as closed:
        calls = [start(stubs, scope, model, each, **fields) for each in inputs]
        closed.wait_for(len(calls))
        closed.open()
        return [outcome(call) for call in calls]


def batching_of(
    stubs: Stubs, scope: str, model: str, signature: str = "serving_default"
) -> model_pb2.SignatureBatching:
    """How predictions of the newest version run together."""
    ask = model_service_pb2.GetModelRequest(scope=scope, model=model, view=model_pb2.MODEL_VIEW_FULL)
    version = stubs.models.GetModel(ask, timeout=SECONDS).model.versions[0]
    return next(each for each in version.batching if each.signature == signature)


def settled(stubs: Stubs, scope: str, model: str, signature: str = "serving_default") -> model_pb2.SignatureBatching:
    """As `batching_of`, once it is found out."""
    return eventually(
        lambda: (found := batching_of(stubs, scope, model, signature)).state != VERIFYING and found, SECONDS
    )
