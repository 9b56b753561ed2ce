"""Models in modelhost, on the engine that stays."""

from __future__ import annotations

import grpc
import modelhost
from modelhost.v1 import model_pb2, model_service_pb2
from modelhost.v1.model_service_pb2_grpc import ModelServiceStub

from .cases import Model

_SECONDS = 900.0


def load(address: str, model: Model, options: model_pb2.LoadOptions) -> None:
    """Loads a model and waits until the server has found its engine."""
    with modelhost.Client(address) as client, grpc.insecure_channel(address) as channel:
        request = model_service_pb2.LoadModelRequest(model=model.name, source=str(model.path()), options=options)
        ModelServiceStub(channel).LoadModel(request, timeout=_SECONDS)
        client.wait_tuned(model.name, timeout=_SECONDS)
