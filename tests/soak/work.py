"""What the server is made to do: load, predict and unload, and predict in every way."""

from __future__ import annotations

import itertools
import threading
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import modelhost
import numpy as np
from modelhost.v1 import model_pb2, model_service_pb2, scope_service_pb2
from modelhost.v1 import prediction_service_pb2 as pb
from support.calls import request, unload, vector
from support.server import OWN_CONNECTION, ServerProcess, Stubs

SCOPES = ("soak-a", "soak-b")
ENGINES = {
    "tensorflow": model_pb2.ENGINE_TENSORFLOW, "litert": model_pb2.ENGINE_LITERT, "openvino": model_pb2.ENGINE_OPENVINO,
}  # fmt: skip
# As many requests as the server remembers, and more events: until then that grows, and is meant to.
_REMEMBERED = 10_000
_PREDICTED = 50_000
_LARGE = 30_000
_AT_ONCE = 16
_SECONDS = 120.0
# The first load on an engine waits for a conversion, which waits for idle processors.
_CONVERTED_SECONDS = 900.0


class Work:
    """Callers of a server. The answer of every prediction is checked.

    Args:
        server: what is called.
        models: where they are.
        engines: those that models are loaded on.
    """

    def __init__(self, server: ServerProcess, models: Path, engines: Sequence[str] = tuple(ENGINES)) -> None:
        self._engines = engines
        self._stubs = {scope: Stubs(server.address, OWN_CONNECTION) for scope in SCOPES}
        self._client = modelhost.Client(server.address)
        self._source = models / "half_plus_two"
        for scope, stubs in self._stubs.items():
            stubs.scopes.CreateScope(scope_service_pb2.CreateScopeRequest(scope=scope), timeout=_SECONDS)
            for engine in engines:
                self._load(scope, f"resident-{engine}", engine)

    def _load(self, scope: str, model: str, engine: str) -> None:
        message = model_service_pb2.LoadModelRequest(
            scope=scope, model=model, source=str(self._source), options=model_pb2.LoadOptions(engine=ENGINES[engine]),
            request_id=str(uuid.uuid4()),
        )  # fmt: skip
        loaded = self._stubs[scope].models.LoadModel(message, timeout=_CONVERTED_SECONDS).version
        assert loaded.engine.engine == ENGINES[engine], loaded.engine

    def fill_memories(self) -> None:
        """Has happen as much as the server remembers, loads by their request ids and the events that come of them; and
        has calls of all kinds come so often that what is kept for the most that ever ran at once has its size.
        """
        self.cycle(_REMEMBERED)
        self.predict(_PREDICTED)

    def cycle(self, count: int) -> None:
        """Loads, predicts and unloads so many times, in all scopes at a time."""
        _side_by_side([lambda scope=scope: self._cycle(scope, count // len(SCOPES)) for scope in SCOPES])

    def _cycle(self, scope: str, count: int) -> None:
        stubs = self._stubs[scope]
        for number, engine in zip(range(count), itertools.cycle(self._engines), strict=False):
            model = f"cycled-{engine}"
            self._load(scope, model, engine)
            answer = stubs.predictions.Predict(request(scope, model, x=vector(number)), timeout=_SECONDS)
            _check(answer, number)
            assert unload(stubs, scope, model)

    def predict(self, count: int) -> None:
        """Makes so many predictions: four of ten alone, four on streams, two by shared memory."""
        each = count // len(SCOPES)
        _side_by_side([lambda scope=scope: self._predict(scope, each * 4 // 10) for scope in SCOPES])
        _side_by_side([lambda scope=scope: self._stream(scope, each * 4 // 10) for scope in SCOPES])
        for number in range(count * 2 // 10):
            model = f"{SCOPES[number % 2]}/resident-{self._engines[number % len(self._engines)]}"
            outputs = self._client.predict(model, {"x": np.full(_LARGE, number % 100, np.float32)})
            assert outputs["y"][-1] == number % 100 / 2 + 2

    def _predict(self, scope: str, count: int) -> None:
        under_way: deque[tuple[int, Callable[[], pb.PredictResponse]]] = deque()
        for number, engine in zip(range(count), itertools.cycle(self._engines), strict=False):
            message = request(scope, f"resident-{engine}", x=vector(number % 100))
            call = self._stubs[scope].predictions.Predict.future(message, timeout=_SECONDS)
            under_way.append((number % 100, call.result))
            while len(under_way) >= _AT_ONCE or (number == count - 1 and under_way):
                x, result = under_way.popleft()
                _check(result(), x)

    def _stream(self, scope: str, count: int) -> None:
        # Several streams, for a stream's end is work, too.
        for start in range(0, count, 500):
            numbers = range(start, min(start + 500, count))
            items = [
                pb.StreamedRequest(
                    id=number + 1,
                    request=request(
                        scope, f"resident-{self._engines[number % len(self._engines)]}", x=vector(number % 100)
                    ),
                )
                for number in numbers
            ]
            messages = [pb.PredictStreamRequest(requests=items[i : i + 10]) for i in range(0, len(items), 10)]
            answered = 0
            for message in self._stubs[scope].predictions.PredictStream(iter(messages), timeout=_SECONDS):
                for answer in message.responses:
                    _check(answer.response, (answer.id - 1) % 100)
                    answered += 1
            assert answered == len(items)

    def close(self) -> None:
        """Hangs up."""
        self._client.close()
        for stubs in self._stubs.values():
            stubs.close()


def _check(answer: pb.PredictResponse, x: float) -> None:
    (y,) = np.frombuffer(answer.outputs["y"].raw, "<f4")
    assert y == np.float32(x / 2 + 2), (y, x)


def _side_by_side(works: list[Callable[[], None]]) -> None:
    failures: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
