"""tritonclient.http, sync and asyncio, against the REST door."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as http
import tritonclient.http.aio as aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype, serialize_byte_tensor, shared_memory

# Where the numbers are that an identity of each type is asked with.
NUMBERS = ["uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32", "float64"]
ROWS = np.arange(16, dtype=np.int32).reshape(1, 16)


@pytest.fixture(scope="module")
def address(start_server: Callable[..., Any], built: Callable[[str], Path]) -> str:
    """HOST:PORT of a REST door with models behind it."""
    server = start_server("--rest", "127.0.0.1:0")
    models = built("build_foreign")
    for name in ("simple", "simple_string", *(f"identity_{kind}" for kind in [*NUMBERS, "bool", "float16", "string"])):
        server.load(name, models / name)
    return server.addresses[-1].removeprefix("http://")


@pytest.fixture
def client(address: str) -> Iterator[http.InferenceServerClient]:
    """Connected to it."""
    with http.InferenceServerClient(address) as client:
        yield client


def given(name: str, array: np.ndarray, binary: bool = True) -> http.InferInput:
    """An input."""
    tensor = http.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


def pair(binary: bool = True) -> list[http.InferInput]:
    """The inputs of `simple`."""
    return [given("INPUT0", ROWS, binary), given("INPUT1", np.ones_like(ROWS), binary)]


def test_the_server_tells_of_itself(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    metadata = client.get_server_metadata()
    assert metadata["name"] == "modelhost"
    assert {"binary_tensor_data", "classification", "statistics"} <= set(metadata["extensions"])


def test_models_are_told_of(client):
    assert client.is_model_ready("simple")
    assert client.is_model_ready("simple", "1")
    assert not client.is_model_ready("simple", "7")
    assert not client.is_model_ready("nobody")
    metadata = client.get_model_metadata("default/simple", "1")
    assert metadata["versions"] == ["1"]
    assert metadata["inputs"][0] == {"name": "INPUT0", "datatype": "INT32", "shape": [-1, 16]}
    config = client.get_model_config("simple")
    assert [each["name"] for each in config["output"]] == ["OUTPUT0", "OUTPUT1"]


def test_statistics(client):
    before = client.get_inference_statistics("simple")["model_stats"][0]["inference_count"]
    client.infer("simple", pair())
    assert client.get_inference_statistics("simple")["model_stats"][0]["inference_count"] == before + 1
    assert "identity_bool" in {each["name"] for each in client.get_inference_statistics()["model_stats"]}


@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("binary_in", [True, False])
def test_infer(client, binary_in, binary_out):
    outputs = [http.InferRequestedOutput(name, binary_data=binary_out) for name in ("OUTPUT0", "OUTPUT1")]
    result = client.infer("simple", pair(binary_in), outputs=outputs, request_id="a", priority=1, timeout=10_000_000)
    assert np.array_equal(result.as_numpy("OUTPUT0"), ROWS + 1)
    assert np.array_equal(result.as_numpy("OUTPUT1"), ROWS - 1)
    response = result.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("a", "simple", "1")
    assert ("data" in result.get_output("OUTPUT0")) != binary_out


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests(client, algorithm):
    result = client.infer(
        "simple", pair(), request_compression_algorithm=algorithm, response_compression_algorithm=algorithm
    )
    assert np.array_equal(result.as_numpy("OUTPUT0"), ROWS + 1)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers(client, kind, binary):
    limits = (np.finfo if kind.startswith("float") else np.iinfo)(kind)
    array = np.array([[limits.min, limits.max, 1, 0]], kind)
    outputs = [http.InferRequestedOutput("OUTPUT0", binary_data=binary)]
    result = client.infer(f"identity_{kind}", [given("INPUT0", array, binary)], outputs=outputs)
    got = result.as_numpy("OUTPUT0")
    assert got.dtype == array.dtype
    assert np.array_equal(got, array)


@pytest.mark.parametrize("binary", [True, False])
def test_bool_and_strings(client, binary):
    for array in (np.array([True, False]), np.array([["a", "ü", ""]], object)):
        kind = "bool" if array.dtype == bool else "string"
        outputs = [http.InferRequestedOutput("OUTPUT0", binary_data=binary)]
        got = client.infer(f"identity_{kind}", [given("INPUT0", array, binary)], outputs=outputs).as_numpy("OUTPUT0")
        values = [each.decode() if isinstance(each, bytes) else each for each in got.ravel()]
        assert values == array.ravel().tolist()


def test_half_precision_is_binary(client):
    array = np.array([0.5, np.inf], np.float16)
    assert np.array_equal(client.infer("identity_float16", [given("INPUT0", array)]).as_numpy("OUTPUT0"), array)
    outputs = [http.InferRequestedOutput("OUTPUT0", binary_data=False)]
    with pytest.raises(InferenceServerException, match="sending FP16 data via JSON is not supported") as error:
        client.infer("identity_float16", [given("INPUT0", array)], outputs=outputs)
    assert error.value.status() == "400"


def test_nothing_is_something_too(client):
    array = np.zeros([0, 3], np.float32)
    assert client.infer("identity_float32", [given("INPUT0", array)]).as_numpy("OUTPUT0").shape == (0, 3)


def test_large_tensors(client):
    array = np.random.default_rng(0).random((8, 224, 224, 3), np.float32)
    assert np.array_equal(client.infer("identity_float32", [given("INPUT0", array)]).as_numpy("OUTPUT0"), array)


def test_classification(client):
    outputs = [http.InferRequestedOutput("OUTPUT0", class_count=2)]
    got = client.infer("simple", pair(), outputs=outputs).as_numpy("OUTPUT0")
    assert got.tolist() == [[b"16:15", b"15:14"]]


def test_many_at_once(address):
    with http.InferenceServerClient(address, concurrency=4) as client:
        waiting = [client.async_infer("simple", pair(), request_id=str(i)) for i in range(20)]
        assert [each.get_result().get_response()["id"] for each in waiting] == [str(i) for i in range(20)]


def test_shared_memory(client):
    size = ROWS.nbytes
    region = shared_memory.create_shared_memory_region("rest-test", "/rest-test", 2 * size)
    try:
        client.unregister_system_shared_memory()
        shared_memory.set_shared_memory_region(region, [ROWS])
        client.register_system_shared_memory("rest-test", "/rest-test", 2 * size)
        (status,) = client.get_system_shared_memory_status()
        assert status == {"name": "rest-test", "key": "/rest-test", "offset": 0, "byte_size": 2 * size}
        first = http.InferInput("INPUT0", ROWS.shape, "INT32")
        first.set_shared_memory("rest-test", size)
        output = http.InferRequestedOutput("OUTPUT0")
        output.set_shared_memory("rest-test", size, offset=size)
        client.infer("simple", [first, given("INPUT1", ROWS)], outputs=[output])
        assert np.array_equal(shared_memory.get_contents_as_numpy(region, np.int32, ROWS.shape, size), ROWS * 2)
        client.unregister_system_shared_memory("rest-test")
        assert client.get_system_shared_memory_status() == []
    finally:
        shared_memory.destroy_shared_memory_region(region)
    client.unregister_cuda_shared_memory()
    assert client.get_cuda_shared_memory_status() == []


def test_models_are_loaded_and_unloaded(start_server, built, tmp_path):
    repository = tmp_path / "models"
    shutil.copytree(built("build_foreign") / "simple", repository / "simple" / "1" / "model.savedmodel")
    server = start_server(
        "--rest", "127.0.0.1:0", "--model-repository", str(repository), "--model-control-mode", "explicit"
    )
    with http.InferenceServerClient(server.addresses[-1].removeprefix("http://")) as client:
        assert [each["name"] for each in client.get_model_repository_index()] == ["simple"]
        client.load_model("simple")
        assert client.get_model_repository_index() == [{"name": "simple", "version": "1", "state": "READY"}]
        assert np.array_equal(client.infer("simple", pair()).as_numpy("OUTPUT0"), ROWS + 1)
        client.load_model("simple", config='{"max_batch_size": 4}')
        client.unload_model("simple", unload_dependents=True)
        assert not client.is_model_ready("simple")
        with pytest.raises(InferenceServerException) as error:
            client.load_model("nobody")
        assert "nobody" in error.value.message()
        with pytest.raises(InferenceServerException):
            client.load_model("simple", config="{")


def test_settings(client):
    assert client.get_trace_settings()["trace_level"] == ["OFF"]
    assert client.update_trace_settings(settings={"trace_rate": None})["trace_rate"] == "1000"
    assert client.get_log_settings()["log_info"] is True
    assert client.update_log_settings({"log_verbose_level": 0})["log_verbose_level"] == 0


def wrong_shape() -> list[http.InferInput]:
    return [given("INPUT0", ROWS[:, :3]), given("INPUT1", ROWS)]


@pytest.mark.parametrize(
    ("model", "version", "inputs", "status", "message"),
    [
        ("nobody", "", pair(), "404", "Request for unknown model: 'nobody' is not found"),
        ("simple", "7", pair(), "404", "Request for unknown model: 'simple' version 7 is not found"),
        ("simple", "", wrong_shape(), "400", "unexpected shape for input 'INPUT0' for model 'simple'"),
        ("simple", "", pair()[:1], "400", "expected 2 inputs but got 1 inputs for model 'simple'"),
        (
            "identity_float32",
            "",
            pair()[:1],
            "400",
            "data-type is 'INT32', but model 'identity_float32' expects 'FP32'",
        ),
    ],
)
def test_refusals(client, model, version, inputs, status, message):
    with pytest.raises(InferenceServerException) as error:
        client.infer(model, inputs, model_version=version)
    assert (error.value.status(), message in error.value.message()) == (status, True), error.value


def test_a_length_that_is_wrong(client):
    tensor = http.InferInput("INPUT0", [2], "BYTES")
    tensor._raw_data = serialize_byte_tensor(np.array([b"a"], object)).item()
    tensor._parameters["binary_data_size"] = 99
    with pytest.raises(InferenceServerException, match="unexpected size for input 'INPUT0', expecting 94 additional"):
        client.infer("identity_string", [tensor])


def test_with_asyncio(address):
    async def use() -> None:
        async with aio.InferenceServerClient(address) as client:
            assert await client.is_server_ready()
            assert await client.is_model_ready("simple")
            results = await asyncio.gather(*(client.infer("simple", pair(bool(i % 2))) for i in range(8)))
            assert all(np.array_equal(result.as_numpy("OUTPUT0"), ROWS + 1) for result in results)
            with pytest.raises(InferenceServerException, match="unknown model"):
                await client.infer("nobody", pair())
            # The client gives up; the server goes on.
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.infer("simple", pair()), 0)
            assert await client.is_server_live()

    asyncio.run(use())
