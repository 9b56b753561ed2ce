"""A server with the models that TensorFlow Serving's clients ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tensorflow_serving.apis import prediction_service_pb2_grpc


@pytest.fixture(scope="session")
def models(built: Callable[[str], Path]) -> Path:
    """The directory of the models."""
    return built("build_foreign")


@pytest.fixture(scope="session")
def hosted(server: Any, models: Path) -> Any:
    """The server, with models loaded: of `half_plus`, version 1 adds two and version 3 three."""
    server.load("half_plus@1", models / "half_plus_two" / "1", "--label", "stable")
    server.load("half_plus@3", models / "half_plus_three" / "3", "--label", "canary")
    server.modelhost("scope", "create", "team")
    server.load("team/half_plus", models / "half_plus_two" / "1")
    others = (models / "examples", models / "simple", *models.glob("identity_*"))
    server.modelhost("load-many", *(f"{path.name}={path}" for path in others))
    return server


@pytest.fixture(scope="session")
def channel(hosted: Any) -> Iterator[grpc.Channel]:
    """A connection to it."""
    with grpc.insecure_channel(hosted.address) as channel:
        yield channel


@pytest.fixture(scope="session")
def stub(channel: grpc.Channel) -> prediction_service_pb2_grpc.PredictionServiceStub:
    """PredictionService, as every client of TensorFlow Serving has it."""
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)
