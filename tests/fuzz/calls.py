"""Every RPC of every protocol, called with messages made from the protos and with damaged ones."""

from __future__ import annotations

import random
import re
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import modelhost.v1
import modelhost_server.compat
import numpy as np
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from modelhost.v1 import prediction_service_pb2 as pb
from modelhost_server.compat import open_inference_pb2, serving_predict_pb2
from modelhost_server.services.call import foreign_name
from support.calls import request, vector
from support.garbage import GARBAGE, methods_of
from support.server import OWN_CONNECTION, Stubs

from .damage import damaged
from .hosted import VICTIMS, Hosted
from .messages import Maker, strategies
from .tally import Tally

_SECONDS = 30.0
# Watches never end by themselves.
_STREAM_SECONDS = 1.0
_AT_ONCE = 24
_CHECK_EVERY = 200
_RESTORE_EVERY = 2000
# What no caller may see of a server that is not at fault.
_WRONG = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS)
# Triton and TensorFlow Serving answer these with such a code, so modelhost does.
AS_OTHERS_ANSWER = re.compile(
    "Unable to open shared memory region|shared memory size specified|unable to write shared memory|failed to load '|"
    "failed to read the model repository|the model failed|did not become available"
)
# Each may have a converter at work for seconds.
_COSTLY = {"/modelhost.v1.OptimizationService/OptimizeModel": 0.02}


def all_methods() -> dict[str, MethodDescriptor]:
    """Every RPC by its path."""
    found = methods_of(modelhost.v1)
    found |= {foreign_name(path): method for path, method in methods_of(modelhost_server.compat).items()}
    for file in (health_pb2, reflection_pb2):
        for service in file.DESCRIPTOR.services_by_name.values():
            found |= {f"/{service.full_name}/{method.name}": method for method in service.methods}
    return found


def good_requests() -> dict[str, bytes]:
    """Requests that are answered, to be damaged."""
    scope = VICTIMS[0]
    native = request(scope, "half", x=vector(1, 2), version=1)
    serving = serving_predict_pb2.PredictRequest(output_filter=["y"])
    serving.model_spec.name = f"{scope}/half"
    serving.inputs["x"].dtype = 1
    serving.inputs["x"].tensor_shape.dim.add(size=2)
    serving.inputs["x"].tensor_content = np.float32([1, 2]).tobytes()
    infer = open_inference_pb2.ModelInferRequest(model_name=f"{scope}/half", id="7")
    infer.inputs.add(name="x", datatype="FP32", shape=[2])
    infer.raw_input_contents.append(bytes(8))
    infer.outputs.add(name="y").parameters["classification"].int64_param = 1
    large = request(scope, "half", x=vector(*range(8000)))
    return {
        "/modelhost.v1.PredictionService/Predict": native.SerializeToString(),
        "/modelhost.v1.PredictionService/PredictStream": pb.PredictStreamRequest(
            requests=[pb.StreamedRequest(id=1, request=native), pb.StreamedRequest(id=2, request=large)]
        ).SerializeToString(),
        "/modelhost.v1.PredictionService/PredictMany": pb.PredictManyRequest(
            scope=scope, targets=[pb.PredictManyTarget(model="half"), pb.PredictManyTarget(model="other")],
            inputs={"x": vector(1)},
        ).SerializeToString(),
        "/tensorflow.serving.PredictionService/Predict": serving.SerializeToString(),
        "/inference.GRPCInferenceService/ModelInfer": infer.SerializeToString(),
        "/inference.GRPCInferenceService/ModelStreamInfer": infer.SerializeToString(),
    }  # fmt: skip


class _Caller:
    """Keeps some calls under way, and judges how they end."""

    def __init__(self, hosted: Hosted, tally: Tally) -> None:
        self._hosted = hosted
        self._tally = tally
        self._stubs = Stubs(hosted.server.address, OWN_CONNECTION)
        self._under_way: deque[tuple[str, bytes, Callable[[], Any]]] = deque()

    def call(self, path: str, method: MethodDescriptor, messages: list[bytes]) -> bool:
        """Begins a call; answers whether the server lives."""
        streams = method.client_streaming or method.server_streaming
        channel = self._stubs.channel
        if not streams:
            future = channel.unary_unary(path).future(messages[0], timeout=_SECONDS)
            self._under_way.append((path, messages[0], future.result))
        else:
            kinds = {
                (False, True): channel.unary_stream, (True, False): channel.stream_unary,
                (True, True): channel.stream_stream,
            }  # fmt: skip
            stub = kinds[method.client_streaming, method.server_streaming](path)
            given: Any = iter(messages) if method.client_streaming else messages[0]
            if method.server_streaming:
                answers = stub(given, timeout=_STREAM_SECONDS)
                self._under_way.append((path, messages[0], lambda: sum(1 for _ in answers)))
            else:
                future = stub.future(given, timeout=_SECONDS)
                self._under_way.append((path, messages[0], future.result))
        if len(self._under_way) >= _AT_ONCE:
            self._judge(streams)
        self._tally.cases += 1
        if self._tally.cases % _CHECK_EVERY == 0:
            self.finish(streams)
            if not self._hosted.check(self._tally, path):
                return False
            if self._tally.cases % _RESTORE_EVERY == 0:
                self._hosted.restore()
        return True

    def finish(self, streams: bool) -> None:
        """Waits for all."""
        while self._under_way:
            self._judge(streams)

    def close(self) -> None:
        """Hangs up."""
        self._stubs.close()

    def _judge(self, streams: bool) -> None:
        path, message, result = self._under_way.popleft()
        try:
            result()
        except grpc.RpcError as error:
            code = error.code()  # type: ignore[attr-defined]
            self._tally.answers[code.name] += 1
            hangs = code is grpc.StatusCode.DEADLINE_EXCEEDED and not streams
            details = error.details() or ""  # type: ignore[attr-defined]
            if hangs or (code in _WRONG and not AS_OTHERS_ANSWER.search(details)):
                self._tally.fail(f"{path} {message[:600].hex()}: {code}: {details}")
        else:
            self._tally.answers["OK"] += 1


def fuzz_calls(hosted: Hosted, transport: str, seed: int, cases: int) -> Iterator[Tally]:
    """So many calls: of messages that are some, and of bytes that are none."""
    methods = all_methods()
    sources = [str(hosted.models / name) for name in ("half_plus_two", "identity", "several")]
    maker, good = Maker(strategies(sources)), good_requests()
    whole, raw = Tally(f"messages, {transport}"), Tally(f"bytes as messages, {transport}")
    for number, (path, method) in enumerate(sorted(methods.items())):
        count = max(8, int(cases / len(methods) * _COSTLY.get(path, 1.0)))
        noise = random.Random(f"{seed}/{path}")
        made = [message.SerializeToString() for message in maker.several(method.input_type, count, seed + number)]
        seeds = [data for data in (good.get(path, b""), *made[:20]) if data] or [b"\x0a\x01a"]
        plain = [make(method.input_type) for make in GARBAGE.values()]
        broken = [
            damaged(noise, noise.choice(seeds)) if noise.random() < 0.8 else noise.choice([*plain, noise.randbytes(40)])
            for _ in range(count)
        ]
        for tally, messages in ((whole, made), (raw, broken)):
            caller = _Caller(hosted, tally)
            with tally.timed():
                for place, message in enumerate(messages):
                    several = [message, *messages[place + 1 : place + noise.randint(1, 3)]]
                    if not caller.call(path, method, several):
                        yield from (whole, raw)
                        return
                caller.finish(method.server_streaming)
            caller.close()
            hosted.check(tally, path)
    yield from (whole, raw)


def fuzz_both(models: Path, seed: int, cases: int, transports: tuple[str, ...] = ("grpcio", "h2corn")) -> list[Tally]:
    """The same for each transport."""
    tallies = []
    for transport in transports:
        hosted = Hosted(models, "--transport", transport)
        try:
            tallies += fuzz_calls(hosted, transport, seed, cases // (2 * len(transports)))
        finally:
            hosted.close()
    return tallies
