"""The way to a server: channels, what they do by themselves, and the protocol's stubs upon them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import grpc
import grpc.aio

from modelhost.v1.model_service_pb2_grpc import ModelServiceStub
from modelhost.v1.optimization_service_pb2_grpc import OptimizationServiceStub
from modelhost.v1.prediction_service_pb2 import PredictManyResponse, PredictResponse, PredictStreamResponse
from modelhost.v1.scope_service_pb2_grpc import ScopeServiceStub
from modelhost.v1.shared_memory_service_pb2_grpc import SharedMemoryServiceStub

if TYPE_CHECKING:
    from modelhost.v1.model_service_pb2_grpc import ModelServiceAsyncStub
    from modelhost.v1.optimization_service_pb2_grpc import OptimizationServiceAsyncStub
    from modelhost.v1.scope_service_pb2_grpc import ScopeServiceAsyncStub
    from modelhost.v1.shared_memory_service_pb2_grpc import SharedMemoryServiceAsyncStub

_MODELS, _OPTIMIZATIONS, _PREDICTIONS, _SCOPES = (
    f"modelhost.v1.{service}Service" for service in ("Model", "Optimization", "Prediction", "Scope")
)


def _retry(methods: dict[str, tuple[str, ...]], attempts: int) -> dict[str, object]:
    return {
        "name": [{"service": service, "method": method} for service, names in methods.items() for method in names],
        "retryPolicy": {
            "maxAttempts": attempts,
            "initialBackoff": "0.1s",
            "maxBackoff": "2s",
            "backoffMultiplier": 3,
            "retryableStatusCodes": ["UNAVAILABLE"],
        },
    }


# Only what may safely happen twice: questions; labels; and loads, unloads and optimizations, which carry a request id.
# A prediction may be the very thing that killed the worker, so it gets one more try and no third.
_QUESTIONS_AND_LOADS = _retry(
    {
        _MODELS: (
            "GetModel",
            "ListModels",
            "LoadModel",
            "LoadModels",
            "PrepareUpload",
            "SetLabels",
            "UnloadModel",
        ),
        _OPTIMIZATIONS: ("OptimizeModel",),
        _SCOPES: ("GetScope", "ListScopes"),
    },
    attempts=3,
)


def channel_options(max_message_bytes: int | None, retry_predictions: bool) -> list[tuple[str, int | str]]:
    """How a channel behaves.

    Args:
        max_message_bytes: bounds an answer; None does not.
        retry_predictions: have gRPC send them once more. It would use ranges of shared memory again that the server may
            still write to, so a client that shares memory does that itself.
    """
    predictions = _retry({_PREDICTIONS: ("Predict", "PredictMany") if retry_predictions else ("PredictMany",)}, 2)
    return [
        ("grpc.max_receive_message_length", -1 if max_message_bytes is None else max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.service_config", json.dumps({"methodConfig": [_QUESTIONS_AND_LOADS, predictions]})),
        # gRPC retries only requests that fit into this; its default, 256 kB, is less than a few images.
        ("grpc.per_rpc_retry_buffer_size", 64 << 20),
        # Finds connections that broke silently; only while a call is under way.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.max_pings_without_data", 0),
        # gRPC's default lets a client stay away for two minutes after its server has come back.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 5_000),
    ]


def open_channel(
    target: str, credentials: grpc.ChannelCredentials | None, max_message_bytes: int | None, retry_predictions: bool
) -> grpc.Channel:
    """A channel to `target`, which connects when it is first used."""
    options = channel_options(max_message_bytes, retry_predictions)
    if credentials is None:
        return grpc.insecure_channel(target, options)
    return grpc.secure_channel(target, credentials, options)


def open_async_channel(
    target: str, credentials: grpc.ChannelCredentials | None, max_message_bytes: int | None, retry_predictions: bool
) -> grpc.aio.Channel:
    """A channel to `target` for the running event loop, which connects when it is first used."""
    options = channel_options(max_message_bytes, retry_predictions)
    if credentials is None:
        return grpc.aio.insecure_channel(target, options)
    return grpc.aio.secure_channel(target, credentials, options)


class _PredictionStub:
    """The service that takes its requests as bytes, see `_encoding`."""

    def __init__(self, channel: Any) -> None:
        self.Predict = channel.unary_unary(f"/{_PREDICTIONS}/Predict", None, PredictResponse.FromString)
        self.PredictMany = channel.unary_unary(f"/{_PREDICTIONS}/PredictMany", None, PredictManyResponse.FromString)
        self.PredictStream = channel.stream_stream(
            f"/{_PREDICTIONS}/PredictStream", None, PredictStreamResponse.FromString
        )


class Stubs:
    """The services of the protocol, upon one channel."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.models = ModelServiceStub(channel)
        self.optimizations = OptimizationServiceStub(channel)
        self.predictions = _PredictionStub(channel)
        self.scopes = ScopeServiceStub(channel)
        self.memory = SharedMemoryServiceStub(channel)


class AsyncStubs:
    """The services of the protocol, upon one asyncio channel."""

    # The generated classes serve both kinds of channel; only their types differ.
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.models = cast("ModelServiceAsyncStub", ModelServiceStub(channel))
        self.optimizations = cast("OptimizationServiceAsyncStub", OptimizationServiceStub(channel))
        self.predictions = _PredictionStub(channel)
        self.scopes = cast("ScopeServiceAsyncStub", ScopeServiceStub(channel))
        self.memory = cast("SharedMemoryServiceAsyncStub", SharedMemoryServiceStub(channel))


def authorization(token: str | None) -> tuple[tuple[str, str], ...]:
    """The metadata that says who is calling.

    Raises:
        ValueError: the token is no token; gRPC would repeat it in its error, this one does not.
    """
    # Files that hold a token end in a newline.
    token = (token or "").strip()
    if not (token.isascii() and token.isprintable()):
        raise ValueError("token: expected printable ASCII characters")
    return (("authorization", f"Bearer {token}"),) if token else ()


def tls(
    ca: str | os.PathLike[str] | None = None,
    cert: str | os.PathLike[str] | None = None,
    key: str | os.PathLike[str] | None = None,
) -> grpc.ChannelCredentials:
    """Credentials of an encrypted connection, from PEM files.

    Args:
        ca: certificates of the authorities to trust; gRPC's own list when None.
        cert: the client's certificate, for a server that wants one.
        key: the private key that goes with `cert`.

    Raises:
        OSError: a file cannot be read.
    """
    ca_bytes, cert_bytes, key_bytes = (None if path is None else Path(path).read_bytes() for path in (ca, cert, key))
    return grpc.ssl_channel_credentials(ca_bytes, key_bytes, cert_bytes)
