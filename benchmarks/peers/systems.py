"""The systems that are compared. A line in SYSTEMS is all that one more needs."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from ..common import ROOT
from ..common.cases import Case, Model
from ..common.loading import Engine, load
from ..common.servers import Server, modelhost_server
from .environment import python_of
from .protocols import NATIVE, OPEN_INFERENCE, Protocol
from .running import BySdk, Direct, Hosted, Metadata, Running, no_metadata


class System(NamedTuple):
    """Something to measure.

    Attributes:
        key: what it is called on the command line.
        start: starts it with the models of some cases; it runs until the stack is closed.
        is_ours: it is modelhost.
        has_rate: it can be called at a fixed rate.
    """

    key: str
    name: str
    start: Callable[[ExitStack, Sequence[Case]], Running]
    is_ours: bool = False
    has_rate: bool = True


def modelhost_system(key: str, name: str, *options: str, engine: Engine | None = None, way: str = "") -> System:
    """modelhost: what its command line is given, the engine that models are loaded on, and how it is called: as all
    others are, or in a way of `sdk_caller`.
    """

    def start(stack: ExitStack, cases: Sequence[Case]) -> Running:
        server = stack.enter_context(modelhost_server(*options))
        for model in _models(cases):
            load(server.address, model, engine)
        return ready(BySdk(server, way) if way else Hosted(server, NATIVE), cases)

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

    def start(stack: ExitStack, cases: Sequence[Case]) -> Running:
        told = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "models.json"
        told.write_text(json.dumps({model.name: model.told() for model in _models(cases)}))
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
        return ready(Hosted(server, protocol, metadata), cases)

    return System(key, name, start)


def ready(hosted: Hosted, cases: Sequence[Case]) -> Hosted:
    """Once it answers rightly and is warm."""
    for case in cases:
        hosted.await_right(case)
    for case in cases:
        hosted.warm_up(case)
    return hosted


def _models(cases: Sequence[Case]) -> list[Model]:
    return list({case.model.name: case.model for case in cases}.values())


def _application(case: Case) -> dict[str, str]:
    return {"application": case.model.name}


def _saved_model(case: Case) -> str:
    return str(case.model.path())


MODELHOST = modelhost_system("modelhost", "modelhost")
MODELHOST_TENSORFLOW = modelhost_system("modelhost-tensorflow", "modelhost on TensorFlow", engine="tensorflow")
MODELHOST_H2CORN = modelhost_system("modelhost-h2corn", "modelhost, h2corn", "--transport", "h2corn")
MODELHOST_STREAM = modelhost_system("modelhost-stream", "modelhost, one stream", way="stream")

# modelhost comes first: rates are shares of what it can do.
SYSTEMS = (
    MODELHOST,
    MODELHOST_TENSORFLOW,
    MODELHOST_H2CORN,
    System("direct", "direct loop", lambda stack, cases: Direct("signature", _saved_model), has_rate=False),
    peer("plain", "plain grpc.aio", NATIVE),
    peer("mlserver", "MLServer", OPEN_INFERENCE),
    peer("ray", "Ray Serve", NATIVE, metadata=_application),
    peer("kserve", "KServe", OPEN_INFERENCE),
    peer("triton-batching", "Triton, 1 ms batching", OPEN_INFERENCE, "batching", environment="triton"),
    peer("triton", "Triton", OPEN_INFERENCE),
)
