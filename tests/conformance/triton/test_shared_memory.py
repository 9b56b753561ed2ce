"""System shared memory, by tritonclient's own utilities: regions, and tensors in them."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.grpc.aio as aioclient
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException, serialize_byte_tensor

SIZE = 64
Make = Callable[..., Any]


@pytest.fixture(scope="module")
def client(server: Any, built: Callable[[str], Path]) -> Iterator[Any]:
    models = built("build_foreign")
    for name in ("simple", "simple_string"):
        server.load(f"shm_{name}", models / name)
    with grpcclient.InferenceServerClient(server.address) as client:
        yield client


@pytest.fixture
def make(client: Any) -> Iterator[Make]:
    """Makes regions, and registers them."""
    regions = []

    def make(size: int = SIZE, register: bool = True) -> Any:
        name = f"r{len(regions)}"
        region = shm.create_shared_memory_region(name, f"/test_{uuid.uuid4().hex}", size)
        regions.append(region)
        if register:
            client.register_system_shared_memory(name, region._shm_key, size)
        return region

    yield make
    client.unregister_system_shared_memory()
    for region in regions:
        shm.destroy_shared_memory_region(region)


def refused(call: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as caught:
        call()
    return caught.value.status(), caught.value.message()


def numbers() -> Any:
    return np.arange(16, dtype=np.int32).reshape(1, 16)


def inputs(region: str, size: int = SIZE) -> list[Any]:
    """Both inputs, one after the other in a region."""
    made = []
    for i, name in enumerate(("INPUT0", "INPUT1")):
        tensor = grpcclient.InferInput(name, [1, 16], "INT32")
        tensor.set_shared_memory(region, size, offset=i * SIZE)
        made.append(tensor)
    return made


def output(name: str, region: str, size: int, offset: int = 0) -> Any:
    wanted = grpcclient.InferRequestedOutput(name)
    wanted.set_shared_memory(region, size, offset=offset)
    return wanted


# Regions


def test_regions_are_listed_and_forgotten(client: Any, make: Make) -> None:
    region = make(4096)
    make()
    status = client.get_system_shared_memory_status("r0").regions
    assert list(status) == ["r0"]
    told = status["r0"]
    assert (told.name, told.key, told.offset, told.byte_size) == ("r0", region._shm_key, 0, 4096)
    assert sorted(client.get_system_shared_memory_status().regions) == ["r0", "r1"]
    client.unregister_system_shared_memory("r0")
    client.unregister_system_shared_memory("r0")
    assert list(client.get_system_shared_memory_status().regions) == ["r1"]
    client.unregister_system_shared_memory()
    assert not client.get_system_shared_memory_status().regions


def test_a_region_may_be_a_part_of_an_object(client: Any, make: Make) -> None:
    region = make(4 * SIZE, register=False)
    client.register_system_shared_memory("part", region._shm_key, 2 * SIZE, offset=SIZE)
    assert client.get_system_shared_memory_status("part").regions["part"].offset == SIZE
    shm.set_shared_memory_region(region, [numbers(), 2 * numbers()], offset=SIZE)
    result = client.infer("shm_simple", inputs("part"))
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), 3 * numbers())


def test_what_cannot_be_a_region(client: Any, make: Make) -> None:
    region = make()
    key = region._shm_key
    assert refused(lambda: client.register_system_shared_memory("r0", key, SIZE)) == (
        "StatusCode.ALREADY_EXISTS", "shared memory region 'r0' already in manager",
    )  # fmt: skip
    for size, offset in ((SIZE + 1, 0), (SIZE, 1), (2**64 - 1, 2**64 - 1), (0, 0)):
        status, message = refused(lambda s=size, o=offset: client.register_system_shared_memory("big", key, s, o))
        assert (status, message) == (
            "StatusCode.INVALID_ARGUMENT", "failed to register shared memory region 'big': invalid args",
        )  # fmt: skip
    for wrong in ("/not_there", "", "..", "/a/b", "/../../etc/passwd"):
        status, message = refused(lambda wrong=wrong: client.register_system_shared_memory("no", wrong, SIZE))
        assert status == "StatusCode.INTERNAL"
        assert message == f"Unable to open shared memory region: '{wrong}'"
    assert "reserved prefix" in refused(lambda: client.register_system_shared_memory("no", "/modelhost-x", SIZE))[1]
    assert refused(lambda: client.get_system_shared_memory_status("no")) == (
        "StatusCode.NOT_FOUND", "Unable to find system shared memory region: 'no'",
    )  # fmt: skip


def test_a_link_is_not_followed(client: Any, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(bytes(SIZE))
    link = Path("/dev/shm") / f"test_{uuid.uuid4().hex}"
    link.symlink_to(target)
    try:
        message = refused(lambda: client.register_system_shared_memory("link", f"/{link.name}", SIZE))[1]
    finally:
        link.unlink()
    assert message.startswith("Unable to open shared memory region")


def test_there_is_no_memory_of_gpus(client: Any) -> None:
    assert not client.get_cuda_shared_memory_status().regions
    client.unregister_cuda_shared_memory()
    client.unregister_cuda_shared_memory("any")
    assert refused(lambda: client.register_cuda_shared_memory("c", b"aGFuZGxl", 0, SIZE)) == (
        "StatusCode.INVALID_ARGUMENT", "failed to register CUDA shared memory region: 'c', GPUs not supported",
    )  # fmt: skip


# Tensors


def test_inputs_and_outputs_in_shared_memory(client: Any, make: Make) -> None:
    given, taken = make(2 * SIZE), make(2 * SIZE)
    shm.set_shared_memory_region(given, [numbers(), np.ones((1, 16), np.int32)])
    wanted = [output("OUTPUT0", "r1", SIZE), output("OUTPUT1", "r1", SIZE, offset=SIZE)]
    result = client.infer("shm_simple", inputs("r0"), outputs=wanted)
    # They are where they were wanted, not in the message.
    assert list(result.get_response().raw_output_contents) == [b"", b""]
    assert list(result.get_output("OUTPUT0").shape) == [1, 16]
    found = [shm.get_contents_as_numpy(taken, np.int32, [1, 16], offset=offset) for offset in (0, SIZE)]
    np.testing.assert_array_equal(found, [numbers() + 1, numbers() - 1])


def test_by_the_asynchronous_client_and_a_stream(server: Any, client: Any, make: Make) -> None:
    given, taken = make(2 * SIZE), make(SIZE)
    shm.set_shared_memory_region(given, [numbers(), numbers()])
    wanted = [output("OUTPUT0", "r1", SIZE)]

    async def infer() -> None:
        async with aioclient.InferenceServerClient(server.address) as asynchronous:
            await asynchronous.infer("shm_simple", inputs("r0"), outputs=wanted)

    asyncio.run(infer())
    np.testing.assert_array_equal(shm.get_contents_as_numpy(taken, np.int32, [1, 16]), 2 * numbers())
    shm.set_shared_memory_region(given, [3 * numbers()])
    answers: list[Any] = []
    client.start_stream(lambda result, error: answers.append(error or result))
    client.async_stream_infer("shm_simple", inputs("r0"), outputs=wanted)
    client.stop_stream()
    assert [answer.get_response().raw_output_contents[0] for answer in answers] == [b""]
    np.testing.assert_array_equal(shm.get_contents_as_numpy(taken, np.int32, [1, 16]), 4 * numbers())


def test_strings_in_shared_memory(client: Any, make: Make) -> None:
    encoded = serialize_byte_tensor(np.array([[str(i).encode() for i in range(16)]], dtype=object))
    size = len(encoded.item())
    given, taken = make(2 * size), make(256)
    shm.set_shared_memory_region(given, [encoded, encoded])
    sent = []
    for i, name in enumerate(("INPUT0", "INPUT1")):
        tensor = grpcclient.InferInput(name, [1, 16], "BYTES")
        tensor.set_shared_memory("r0", size, offset=i * size)
        sent.append(tensor)
    client.infer("shm_simple_string", sent, outputs=[output("OUTPUT0", "r1", 256)])
    found = shm.get_contents_as_numpy(taken, np.object_, [1, 16])
    assert found.tolist() == [[str(2 * i).encode() for i in range(16)]]


@pytest.mark.parametrize(
    ("region", "size", "offset", "code", "message"),
    [
        ("no", SIZE, 0, "NOT_FOUND", "Unable to find shared memory region: 'no'"),
        ("r0", SIZE, 2 * SIZE, "INVALID_ARGUMENT", "Invalid offset for shared memory region: 'r0'"),
        ("r0", SIZE, -1, "INVALID_ARGUMENT", "Invalid offset for shared memory region: 'r0'"),
        ("r0", SIZE, SIZE + 1, "INVALID_ARGUMENT", "Invalid offset + byte size for shared memory region: 'r0'"),
        ("r0", -1, 0, "INVALID_ARGUMENT", "Invalid offset + byte size for shared memory region: 'r0'"),
    ],
)
def test_ranges_that_are_not_there(
    client: Any, make: Make, region: str, size: int, offset: int, code: str, message: str
) -> None:
    shm.set_shared_memory_region(make(2 * SIZE), [numbers(), numbers()])
    sent = inputs("r0")
    sent[0].set_shared_memory(region, size, offset=offset)
    assert refused(lambda: client.infer("shm_simple", sent)) == (f"StatusCode.{code}", message)
    wanted = [output("OUTPUT0", region, size, offset)]
    assert refused(lambda: client.infer("shm_simple", inputs("r0"), outputs=wanted)) == (f"StatusCode.{code}", message)


def test_an_input_of_the_wrong_size(client: Any, make: Make) -> None:
    make(2 * SIZE)
    status, message = refused(lambda: client.infer("shm_simple", inputs("r0", SIZE - 4)))
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert "input byte size mismatch for input 'INPUT0' for model 'shm_simple'. Expected 64, got 60" in message


def test_an_output_that_does_not_fit(client: Any, make: Make) -> None:
    given, _ = make(2 * SIZE), make(SIZE)
    shm.set_shared_memory_region(given, [numbers(), numbers()])
    wanted = [output("OUTPUT0", "r1", SIZE - 1)]
    assert refused(lambda: client.infer("shm_simple", inputs("r0"), outputs=wanted)) == (
        "StatusCode.INTERNAL",
        "shared memory size specified with the request for output 'OUTPUT0' (63 bytes) should be at least 64 bytes to "
        "hold the results",
    )


def test_a_region_that_is_cut_short_hurts_nobody_else(client: Any, make: Make) -> None:
    region = make(2 * SIZE)
    shm.set_shared_memory_region(region, [numbers(), numbers()])
    os.truncate(Path("/dev/shm") / region._shm_key.strip("/"), SIZE)
    status, _ = refused(lambda: client.infer("shm_simple", inputs("r0")))
    assert status == "StatusCode.INVALID_ARGUMENT"
    sent = inputs("r0")
    for tensor in sent:
        tensor.set_data_from_numpy(numbers())
    np.testing.assert_array_equal(client.infer("shm_simple", sent).as_numpy("OUTPUT0"), 2 * numbers())


def test_where_memory_is_not_shared(start_server: Any) -> None:
    with grpcclient.InferenceServerClient(start_server("--shared-memory", "off").address) as client:
        status, message = refused(lambda: client.register_system_shared_memory("r", "/any", SIZE))
        assert status == "StatusCode.UNIMPLEMENTED"
        assert "--shared-memory on" in message
        client.unregister_system_shared_memory()
        assert not client.get_system_shared_memory_status().regions
