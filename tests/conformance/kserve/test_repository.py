"""KServe's messages for loads and unloads, which have the model's name in another field than Triton's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as pb_grpc


@pytest.fixture(scope="module")
def stub(server: Any, built: Callable[[str], Path]) -> Iterator[Any]:
    server.load("repository", built("build_foreign") / "simple")
    with grpc.insecure_channel(server.address) as channel:
        yield pb_grpc.GRPCInferenceServiceStub(channel)


def is_ready(stub: Any) -> bool:
    return bool(stub.ModelReady(pb.ModelReadyRequest(name="repository")).ready)


def test_unload_and_load(stub: Any) -> None:
    assert is_ready(stub)
    gone = stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="repository"))
    assert (gone.model_name, gone.isUnloaded) == ("repository", True)
    deadline = time.monotonic() + 60
    while is_ready(stub):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    there = stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="repository"))
    assert (there.model_name, there.isLoaded) == ("repository", True)
    assert is_ready(stub)


def test_a_model_that_is_not_there(stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="nobody"))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert caught.value.details() == "failed to load 'nobody', failed to poll from model repository"
