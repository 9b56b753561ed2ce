"""The systems that are compared. A line in SYSTEMS is all that one more needs."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from modelhost.v1 import model_pb2

from ..common import ROOT
from ..common.cases import CASES, MODELS, Case
from ..common.loading import load
from ..common.servers import Server, modelhost_server
from .environment import python_of
from .protocols import NATIVE, OPEN_INFERENCE, Protocol
from .running import BySdk, Direct, Hosted, Metadata, Running, no_metadata


class System(NamedTuple):
    """Something to measure.

    Attributes:
        key: what it is called on the command line.
        start: starts it; it runs until the stack is closed.
        is_ours: it is modelhost.
        has_rate: it can be called at a fixed rate.
    """

    key: str
    name: str
    start: Callable[[ExitStack], Running]
    is_ours: bool = False
    has_rate: bool = True


def modelhost_system(
    key: str, name: str, *options: str, engine: model_pb2.Engine = model_pb2.ENGINE_UNSPECIFIED, way: str = ""
) -> System:
    """modelhost: what its command line is given, the engine that models are loaded on, and how it is called: as all
    others are, or in a way of `sdk_caller`.
    """

    def start(stack: ExitStack) -> Running:
        server = stack.enter_context(modelhost_server(*options))
        for model in MODELS:
            load(server.address, model, model_pb2.LoadOptions(engine=engine))
        return ready(BySdk(server, way) if way else Hosted(server, NATIVE))

    return System(key, name, start, is_ours=True)


def peer(
    key: str,
    name: str,
    protocol: Protocol,
    *options: str,
    environment: str | None = None,
    metadata: Metadata = no_metadata,
) -> System:
    """A server in `KEY_server`, or `ENVIRONMENT_server` where that is given; in an environment of that name."""

    def start(stack: ExitStack) -> Running:
        told = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "models.json"
        told.write_text(json.dumps({model.name: model.told() for model in MODELS}))
        module = environment or key
        server = stack.enter_context(
            Server(
                f"benchmarks.peers.{module}_server",
                str(told),
                *options,
                python=python_of(module),
                environment={"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "client")])},
            )
        )
        return ready(Hosted(server, protocol, metadata))

    return System(key, name, start)


def ready(hosted: Hosted) -> Hosted:
    """Once it answers rightly and is warm."""
    for case in CASES:
        hosted.await_right(case)
    for case in CASES:
        hosted.warm_up(case)
    return hosted


def _application(case: Case) -> dict[str, str]:
    return {"application": case.model.name}


def _saved_model(case: Case) -> str:
    return str(case.model.path())


MODELHOST = modelhost_system("modelhost", "modelhost")
MODELHOST_TENSORFLOW = modelhost_system(
    "modelhost-tensorflow", "modelhost on TensorFlow", engine=model_pb2.ENGINE_TENSORFLOW
)
MODELHOST_STREAM = modelhost_system("modelhost-stream", "modelhost, one stream", way="stream")

# modelhost comes first: rates are shares of what it can do.
SYSTEMS = (
    MODELHOST,
    MODELHOST_TENSORFLOW,
    System("direct", "direct loop", lambda stack: Direct("signature", _saved_model), has_rate=False),
    peer("plain", "plain grpc.aio", NATIVE),
    peer("mlserver", "MLServer", OPEN_INFERENCE),
    peer("ray", "Ray Serve", NATIVE, metadata=_application),
    peer("kserve", "KServe", OPEN_INFERENCE),
    peer("triton-batching", "Triton, 1 ms batching", OPEN_INFERENCE, "batching", environment="triton"),
    peer("triton", "Triton", OPEN_INFERENCE),
)
