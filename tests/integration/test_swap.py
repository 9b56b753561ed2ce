"""A model is replaced while it is called: no call fails, and none is answered by a version that is gone for it.

Every version tells its own number, so each answer shows who gave it.
"""

from __future__ import annotations

import http.client
import itertools
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

import grpc
import modelhost
import pytest
from support.asking import (
    Ask,
    native,
    native_stream,
    open_inference_stream,
    open_inference_unary,
    rest,
    tensorflow_serving,
)
from support.server import BOTH_TRANSPORTS, OWN_CONNECTION, ServerProcess
from support.telling import stamp, teller

pytestmark = BOTH_TRANSPORTS

SWAPS = 5
SECONDS = 60
# How a caller asks: for the version with the label, for the one that serves, or for the one that stays.
LABEL, DEFAULT, NUMBER = "stable", "", "1"
WAYS = (LABEL, DEFAULT, NUMBER)


@dataclass
class Swapped:
    """What callers are told, and what of that is wrong."""

    # By way: the version that was acknowledged for it; and the newest that may answer.
    floor: dict[str, int] = field(default_factory=lambda: dict.fromkeys(WAYS, 1))
    newest: int = 1
    answered: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def call(self, name: str, ask: Ask, way: str) -> None:
        """Asks without a pause."""
        for x in itertools.count(1.0):
            if self.done.is_set():
                return
            floor = self.floor[way]
            try:
                told, answer = ask(way, x, SECONDS)
                found = teller(answer)
            except Exception as error:
                self.wrong.append(f"{name}: {error!r}"[:500])
                continue
            highest = 1 if way == NUMBER else self.newest
            if not (floor <= found.version <= highest and found.x == (x,) and told in (0, found.version)):
                self.wrong.append(f"{name}: {found}, told {told}; expected version {floor} to {highest} and {x}")
            self.answered[name] = self.answered.get(name, 0) + 1


@contextmanager
def calling(server: ServerProcess, scope: str) -> Iterator[Swapped]:
    """Callers of the model `swapped` in every protocol, each in a thread, one after the other's way of asking."""
    told = Swapped()
    model = f"{scope}/swapped"
    with ExitStack() as stack:
        client = stack.enter_context(modelhost.Client(server.address))
        channel = stack.enter_context(grpc.insecure_channel(server.address, options=OWN_CONNECTION))
        asked: SimpleQueue[tuple[str, float] | None] = SimpleQueue()
        stack.callback(asked.put, None)
        asks: dict[str, tuple[Ask, tuple[str, ...]]] = {
            "native": (native(client, model), WAYS),
            "native, stream": (native_stream(client, model, asked), (LABEL,)),
            "TensorFlow Serving": (tensorflow_serving(channel, model), (LABEL, DEFAULT)),
            "Open Inference": (open_inference_unary(channel, model), WAYS[:2]),
            "Open Inference, stream": (open_inference_stream(channel, model), (DEFAULT,)),
        }
        if scope == "default":
            address = server.addresses[-1].removeprefix("http://")
            connection = stack.enter_context(closing(http.client.HTTPConnection(address, timeout=SECONDS)))
            asks["REST"] = (rest(connection, "swapped"), (LABEL,))
        threads = [
            threading.Thread(target=told.call, args=(f"{name}, @{way}", ask, way))
            for name, (ask, ways) in asks.items()
            for way in ways
        ]
        for thread in threads:
            thread.start()
        try:
            yield told
        finally:
            told.done.set()
            for thread in threads:
                thread.join()
    assert len(told.answered) == len(threads), told.answered


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Versions of a model, by number from 1."""
    root = tmp_path_factory.mktemp("swapped")
    return [stamp(root / str(number), 0, number) for number in range(1, SWAPS + 2)]


@pytest.fixture(scope="module")
def served(transport: str) -> Iterator[ServerProcess]:
    with ServerProcess("--rest", "127.0.0.1:0", "--transport", transport) as process:
        yield process


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_model_is_replaced_under_load(served: ServerProcess, sources: list[Path], replicas: int) -> None:
    scope = "default" if replicas == 1 else "many"
    with modelhost.Client(served.address) as client:
        if scope != "default":
            client.create_scope(scope, replicas=replicas)
        model = f"{scope}/swapped"
        client.load(model, sources[0], version=1, labels=["stable", "kept"])
        with calling(served, scope) as told:
            for number in range(2, SWAPS + 2):
                told.newest = number
                client.load(model, sources[number - 1], version=number)
                told.floor[DEFAULT] = number
                assert client.set_labels(model, {"stable": number})["stable"] == number
                told.floor[LABEL] = number
                # What the label was taken off would otherwise stay until the next version is there.
                if number > 2:
                    assert client.unload(model, version=number - 1, missing_ok=True) == [number - 1]
        assert not told.wrong, told.wrong[:5]
        assert [version.version for version in client.model(model).versions] == [SWAPS + 1, 1]
