"""Memory shared with callers: as protocol and SDK offer it, and with callers that do what they should not."""

from __future__ import annotations

import fcntl
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import modelhost
import numpy as np
import pytest
from modelhost.v1 import prediction_service_pb2, shared_memory_service_pb2, tensor_pb2
from modelhost.v1.shared_memory_service_pb2_grpc import SharedMemoryServiceStub
from support.predict import error_of, load, predict, request, tensor
from support.server import ServerProcess, Stubs

SIZE = 1 << 20
X = np.arange(100_000, dtype=np.float32)


class Caller:
    """A caller that shares a region with the server, by hand."""

    def __init__(self, stubs: Stubs) -> None:
        self.stubs = stubs
        self.memory = SharedMemoryServiceStub(stubs.channel)
        self.name = f"modelhost-test-{secrets.token_hex(8)}"
        self.path = Path("/dev/shm", self.name)
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self.fd, fcntl.LOCK_EX)
        os.ftruncate(self.fd, SIZE)

    def register(self, size: int = SIZE) -> None:
        self.memory.RegisterRegion(
            shared_memory_service_pb2.RegisterRegionRequest(region=self.name, file_name=self.name, byte_size=size)
        )

    def regions(self) -> list[str]:
        answer = self.memory.ListRegions(shared_memory_service_pb2.ListRegionsRequest(page_size=1000))
        return [region.region for region in answer.regions]

    def place(self, offset: int, size: int) -> tensor_pb2.SharedMemoryReference:
        return tensor_pb2.SharedMemoryReference(region=self.name, offset=offset, byte_size=size)

    def put(self, array: np.ndarray, offset: int = 0) -> tensor_pb2.Tensor:
        os.pwrite(self.fd, array.tobytes(), offset)
        message = tensor(array)
        message.shared_memory.CopyFrom(self.place(offset, array.nbytes))
        return message

    def read(self, place: tensor_pb2.SharedMemoryReference) -> np.ndarray:
        return np.frombuffer(os.pread(self.fd, place.byte_size, place.offset), np.float32)

    def ask(self, scope: str, **fields: object) -> prediction_service_pb2.PredictResponse:
        return self.stubs.predictions.Predict(request(scope, "half_plus_two", **fields), timeout=60)  # type: ignore[arg-type]


@pytest.fixture
def caller(stubs: Stubs) -> Iterator[Caller]:
    caller = Caller(stubs)
    yield caller
    caller.path.unlink(missing_ok=True)
    os.close(caller.fd)


@pytest.fixture
def half(stubs: Stubs, scope: str, models: Path) -> str:
    """A scope with the model half_plus_two."""
    load(stubs, scope, models / "half_plus_two")
    return scope


@pytest.mark.parametrize("x", [X, X[:3]], ids=["large", "small"])
def test_inputs_and_outputs_in_a_region(caller: Caller, half: str, x: np.ndarray) -> None:
    caller.register()
    caller.path.unlink()
    answer = caller.ask(half, inputs={"x": caller.put(x, 8)}, output_regions={"y": caller.place(600_000, 424_288)})
    assert answer.outputs["y"].shape == [len(x)]
    assert answer.outputs["y"].shared_memory == caller.place(600_000, x.nbytes)
    np.testing.assert_array_equal(caller.read(answer.outputs["y"].shared_memory), x / 2 + 2)


def test_an_output_that_does_not_fit_is_in_the_response(caller: Caller, half: str) -> None:
    caller.register()
    places = {"y": caller.place(0, X.nbytes - 1), "z": caller.place(0, 8)}
    answer = caller.ask(half, inputs={"x": X}, output_regions=places)
    np.testing.assert_array_equal(np.frombuffer(answer.outputs["y"].raw, np.float32), X / 2 + 2)
    assert os.pread(caller.fd, 8, 0) == bytes(8)


def test_predictions_that_run_together(caller: Caller, half: str) -> None:
    caller.register()
    calls = []
    for i in range(50):
        part = X[100 * i : 100 * i + 100]
        inputs = {"x": caller.put(part, 400 * i)}
        message = request(half, "half_plus_two", inputs, output_regions={"y": caller.place(500_000 + 400 * i, 400)})  # type: ignore[arg-type]
        calls.append((part, caller.stubs.predictions.Predict.future(message, timeout=60)))
    for part, call in calls:
        np.testing.assert_array_equal(caller.read(call.result().outputs["y"].shared_memory), part / 2 + 2)


def test_many_models_read_one_range(caller: Caller, half: str) -> None:
    caller.register()
    targets = [prediction_service_pb2.PredictManyTarget(model="half_plus_two")] * 3
    message = prediction_service_pb2.PredictManyRequest(scope=half, targets=targets, inputs={"x": caller.put(X)})
    for result in caller.stubs.predictions.PredictMany(message, timeout=60).results:
        np.testing.assert_array_equal(np.frombuffer(result.response.outputs["y"].raw, np.float32), X / 2 + 2)


def test_elements_that_are_checked_are_read_once(caller: Caller, stubs: Stubs, scope: str, models: Path) -> None:
    load(stubs, scope, models / "dtypes")
    caller.register()
    values = np.array([True, False, False])
    answer = predict(stubs, scope, "dtypes", "bool", x=caller.put(values))
    assert answer["y"].tolist() == [False, False, True]
    wrong = request(scope, "dtypes", {"x": caller.put(values)}, signature="bool")
    os.pwrite(caller.fd, b"\x02", 1)
    assert error_of(lambda: stubs.predictions.Predict(wrong)).reason == "INPUT_MALFORMED"


def refused(caller: Caller, half: str, **fields: object) -> str:
    failure = error_of(lambda: caller.ask(half, **fields))
    assert failure.code == {"REGION_NOT_FOUND": "NOT_FOUND"}.get(failure.reason, "INVALID_ARGUMENT")
    return failure.reason


def test_what_is_not_there_is_told_before_anything_runs(caller: Caller, half: str) -> None:
    inputs = {"x": caller.put(X)}
    assert refused(caller, half, inputs=inputs) == "REGION_NOT_FOUND"
    assert refused(caller, half, inputs={"x": X}, output_regions={"y": caller.place(0, 8)}) == "REGION_NOT_FOUND"
    caller.register(SIZE // 2)
    caller.ask(half, inputs=inputs)
    inputs["x"].shared_memory.offset = SIZE // 2
    assert refused(caller, half, inputs=inputs) == "REGION_INVALID"
    assert refused(caller, half, inputs={"x": X}, output_regions={"y": caller.place(1, SIZE // 2)}) == "REGION_INVALID"
    inputs["x"].shared_memory.offset = 0
    inputs["x"].shared_memory.byte_size = X.nbytes - 4
    assert refused(caller, half, inputs=inputs) == "INPUT_MALFORMED"


def test_a_file_cut_short_hurts_only_its_caller(caller: Caller, half: str) -> None:
    caller.register()
    inputs = {"x": caller.put(X)}
    os.ftruncate(caller.fd, 100)
    assert refused(caller, half, inputs=inputs) == "INPUT_MALFORMED"
    assert predict(caller.stubs, half, "half_plus_two", x=np.float32([2]))["y"].tolist() == [3.0]


def test_a_caller_that_is_killed_leaves_nothing(caller: Caller, half: str, server: ServerProcess) -> None:
    program = f"""
import modelhost, numpy, os, signal
client = modelhost.Client({server.address!r}, shared_memory=True)
client.predict("{half}/half_plus_two", {{"x": numpy.zeros(100_000, numpy.float32)}})
os.kill(os.getpid(), signal.SIGKILL)
"""
    files = {path.name for path in Path("/dev/shm").glob("modelhost-*")}
    before = set(caller.regions())
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == -signal.SIGKILL
    assert {path.name for path in Path("/dev/shm").glob("modelhost-*")} == files
    # The server looks for such when another comes.
    caller.register()
    assert set(caller.regions()) - before == {caller.name}


@pytest.fixture
def sharing(server: ServerProcess) -> Iterator[modelhost.Client]:
    with modelhost.Client(server.address, shared_memory=True) as client:
        yield client


def in_regions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of outputs that come in shared memory from now on."""
    names: list[str] = []
    take = modelhost._shared_memory.Exchange.take  # type: ignore[attr-defined]

    def noted(exchange: object, name: str, message: object) -> object:
        names.append(name)
        return take(exchange, name, message)

    monkeypatch.setattr("modelhost._shared_memory.Exchange.take", noted)
    return names


def test_the_sdk_shares_memory(sharing: modelhost.Client, half: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = in_regions(monkeypatch)
    kept = [sharing.predict(f"{half}/half_plus_two", {"x": X + i})["y"] for i in range(20)]
    for i, y in enumerate(kept):
        np.testing.assert_array_equal(y, (X + i) / 2 + 2)
    assert taken == ["y"] * 19
    for i, answer in enumerate(sharing.map(f"{half}/half_plus_two", ({"x": X + i} for i in range(50)), in_flight=8)):
        np.testing.assert_array_equal(answer["y"], (X + i) / 2 + 2)
    assert len(taken) == 69


def test_threads_share_memory(sharing: modelhost.Client, half: str) -> None:
    wrong = []

    def ask(mark: int) -> None:
        for i in range(20):
            y = sharing.predict(f"{half}/half_plus_two", {"x": X + mark * 100 + i})["y"]
            if not np.array_equal(y, (X + mark * 100 + i) / 2 + 2):
                wrong.append(mark)

    threads = [threading.Thread(target=ask, args=(mark,)) for mark in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


async def test_async_clients_share_memory(server: ServerProcess, half: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = in_regions(monkeypatch)
    async with modelhost.AsyncClient(server.address, shared_memory=True) as client:
        for i in range(5):
            answer = await client.predict(f"{half}/half_plus_two", {"x": X + i})
            np.testing.assert_array_equal(answer["y"], (X + i) / 2 + 2)
    assert taken == ["y"] * 4


def test_a_server_that_is_started_again(models: Path, tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'socket'}"

    def serve(then: Callable[[], None], *options: str) -> None:
        with ServerProcess(*options, listen=(address,)):
            client.load("half", models / "half_plus_two")
            then()

    def ask() -> None:
        for _ in range(3):
            np.testing.assert_array_equal(client.predict("half", {"x": X})["y"], X / 2 + 2)
        assert [float(answer["y"][0]) for answer in client.map("half", [{"x": X}] * 3)] == [2.0] * 3

    with modelhost.Client(address, shared_memory=True) as client:
        serve(ask)
        serve(ask)
        serve(ask, "--shared-memory", "off")


def test_a_server_that_does_not_share(models: Path) -> None:
    with ServerProcess("--shared-memory", "off") as server:
        stubs = Stubs(server.address)
        failure = error_of(
            lambda: SharedMemoryServiceStub(stubs.channel).ListRegions(shared_memory_service_pb2.ListRegionsRequest())
        )
        assert (failure.code, failure.reason) == ("UNIMPLEMENTED", "UNSUPPORTED")
        assert "--shared-memory on" in failure.message
        stubs.close()
