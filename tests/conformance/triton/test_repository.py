"""Model repositories, by tritonclient: what there is, loads and unloads, overrides, directories in Triton's layout."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.grpc.aio as aioclient
from tritonclient.utils import InferenceServerException

HALF = """
name: "half"
platform: "tensorflow_savedmodel"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [] } ]
dynamic_batching { max_queue_delay_microseconds: 100 }
instance_group [ { count: 2 kind: KIND_CPU } ]
a_field_of_a_newer_triton: 3
"""


@pytest.fixture(scope="module")
def models(built: Callable[[str], Path]) -> Path:
    return built("build_foreign")


@pytest.fixture(scope="module")
def repository(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some models in Triton's layout, and some that cannot be loaded."""
    root = tmp_path_factory.mktemp("repository")
    add(root, "half", models / "half_plus_two" / "1", 1, HALF)
    add(root, "plain", models / "simple", 1)
    shutil.copytree(models / "simple", root / "bare" / "3")
    for number in (1, 2, 3):
        add(root, "versions", models / "simple", number, "version_policy { specific { versions: [1, 3, 7] } }")
    add(root, "two", models / "simple", 1, "version_policy { latest { num_versions: 2 } }")
    add(root, "two", models / "simple", 2)
    add(root, "onnx", models / "simple", 1, 'platform: "onnxruntime_onnx"')
    add(root, "misnamed", models / "simple", 1, 'name: "other"')
    add(
        root, "wrong", models / "simple", 1, 'max_batch_size: 8 input { name: "INPUT0" data_type: TYPE_INT32 dims: 16 }'
    )
    add(root, "broken", models / "simple", 1)
    (root / "broken" / "1" / "model.savedmodel" / "saved_model.pb").write_bytes(b"no model")
    (root / "empty").mkdir()
    return root


@pytest.fixture(scope="module")
def explicit(start_server: Callable[..., Any], repository: Path) -> Any:
    """A server whose callers say what is hosted."""
    return start_server(
        "--model-repository", str(repository), "--model-control-mode", "explicit", "--load-model", "plain"
    )


@pytest.fixture
def client(explicit: Any) -> Iterator[Any]:
    with grpcclient.InferenceServerClient(explicit.address) as client:
        yield client


@pytest.fixture
def free(server: Any) -> Iterator[Any]:
    """A client of a server without a repository."""
    with grpcclient.InferenceServerClient(server.address) as client:
        yield client


def add(root: Path, name: str, model: Path, number: int, config: str = "") -> None:
    shutil.copytree(model, root / name / str(number) / "model.savedmodel")
    if config:
        (root / name / "config.pbtxt").write_text(config)


def refused(call: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as caught:
        call()
    return caught.value.status(), caught.value.message()


def index(client: Any) -> dict[str, list[tuple[str, str, str]]]:
    found: dict[str, list[tuple[str, str, str]]] = {}
    for model in client.get_model_repository_index().models:
        found.setdefault(model.name, []).append((model.version, model.state, model.reason))
    return found


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def halved(client: Any, model: str = "half", version: str = "") -> list[float]:
    tensor = grpcclient.InferInput("x", [2], "FP32")
    tensor.set_data_from_numpy(np.float32([2, 4]))
    return list(client.infer(model, [tensor], model_version=version).as_numpy("y"))


def files(model: Path, number: int = 1) -> dict[str, bytes]:
    """A SavedModel as the parameters of a load."""
    return {
        f"file:{number}/model.savedmodel/{path.relative_to(model)}": path.read_bytes()
        for path in model.rglob("*") if path.is_file()
    }  # fmt: skip


# Explicit control of a repository


def test_what_is_loaded_at_the_start(client: Any) -> None:
    until(lambda: client.is_model_ready("plain"))
    assert index(client)["plain"] == [("1", "READY", "")]
    # What is there and has not been loaded has neither versions nor states.
    assert index(client)["bare"] == [("", "", "")]
    ready = client.get_model_repository_index(as_json=True)
    assert {"name": "plain", "version": "1", "state": "READY"} in ready["models"]


def test_load_and_unload(client: Any) -> None:
    client.load_model("half")
    assert halved(client) == [3, 4]
    # Nothing has changed.
    client.load_model("half")
    client.unload_model("half")
    until(lambda: index(client)["half"] == [("1", "UNAVAILABLE", "unloaded")])
    assert not client.is_model_ready("half")
    client.load_model("half")
    assert index(client)["half"] == [("1", "READY", "")]
    assert halved(client) == [3, 4]


def test_by_the_asynchronous_client(explicit: Any) -> None:
    async def use() -> tuple[bool, bool]:
        async with aioclient.InferenceServerClient(explicit.address) as client:
            await client.load_model("bare")
            ready = await client.is_model_ready("bare", "3")
            await client.unload_model("bare")
            return ready, await client.is_model_ready("bare")

    assert asyncio.run(use()) == (True, False)


def test_the_versions_that_the_policy_says(client: Any) -> None:
    client.load_model("versions")
    assert index(client)["versions"] == [("1", "READY", ""), ("3", "READY", "")]
    client.load_model("versions", config=json.dumps({"version_policy": {"latest": {"num_versions": 1}}}))
    until(lambda: index(client)["versions"] == [("3", "READY", "")])
    # Without it, the directory's own description counts again.
    client.load_model("versions")
    assert index(client)["versions"] == [("1", "READY", ""), ("3", "READY", "")]
    client.load_model("two")
    assert [version for version, _, _ in index(client)["two"]] == ["1", "2"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nobody", ""),
        ("onnx", "onnxruntime_onnx"),
        ("misnamed", "unexpected directory name 'misnamed' for model 'other', directory name must equal model name"),
        ("empty", "at least one version must be available under the version policy of model 'empty'"),
    ],
)
def test_what_is_not_there_or_cannot_be_meant(client: Any, name: str, why: str) -> None:
    status, message = refused(lambda: client.load_model(name))
    assert status == "StatusCode.INTERNAL"
    assert message.startswith(f"failed to load '{name}', failed to poll from model repository")
    assert why in message


def test_what_fails_to_load(client: Any) -> None:
    status, message = refused(lambda: client.load_model("broken"))
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert message.startswith("load failed for model 'broken': version 1 is at UNAVAILABLE state: Invalid argument: ")
    ((version, state, reason),) = index(client)["broken"]
    assert (version, state) == ("1", "UNAVAILABLE")
    assert "saved_model.pb is truncated or corrupt" in reason
    status, message = refused(lambda: client.load_model("wrong"))
    assert "unable to load model 'wrong', configuration expects 1 inputs, model provides 2" in message


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ("{", "Invalid config override"),
        ({"platform": "pytorch_libtorch"}, "pytorch_libtorch"),
        ({"max_batch_size": -1}, "'max_batch_size' must be non-negative value for half"),
        ({"sequence_batching": {}}, "sequence_batching is not supported"),
    ],
)
def test_a_description_that_is_refused_changes_nothing(client: Any, config: Any, why: str) -> None:
    client.load_model("half")
    text = config if isinstance(config, str) else json.dumps(config)
    assert why in refused(lambda: client.load_model("half", config=text))[1]
    assert halved(client) == [3, 4]


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"name": "z", "data_type": "TYPE_FP32", "dims": []}, "unexpected inference input 'z', allowed inputs are: x"),
        ({"name": "x", "data_type": "TYPE_INT32", "dims": []}, "data-type TYPE_FP32 doesn't match"),
        ({"name": "x", "data_type": 99, "dims": []}, "doesn't match configuration data-type 99"),
        ({"name": "x", "data_type": "TYPE_FP32", "dims": [4]}, "the model expects 1 dimensions (shape [-1]) but"),
    ],
)
def test_a_description_of_another_model_changes_nothing(client: Any, wrong: dict[str, Any], why: str) -> None:
    client.load_model("half")
    config = json.dumps({"max_batch_size": 4, "input": [wrong]})
    status, message = refused(lambda: client.load_model("half", config=config))
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert why in message
    assert halved(client) == [3, 4]
    assert index(client)["half"] == [("1", "READY", "")]


def test_a_changed_model_is_loaded_anew_and_a_broken_one_is_not(client: Any, repository: Path, models: Path) -> None:
    client.load_model("half")
    directory = repository / "half" / "1" / "model.savedmodel"
    kept = directory.with_name("kept")
    directory.rename(kept)
    shutil.copytree(models / "half_plus_three" / "3", directory)
    with ThreadPoolExecutor(1) as thread:
        load = thread.submit(client.load_model, "half")
        # Meanwhile, either answers; nobody is refused.
        while not load.done():
            assert halved(client) in ([3, 4], [4, 5])
        load.result()
    assert halved(client) == [4, 5]
    (directory / "saved_model.pb").write_bytes(b"no model")
    assert "truncated or corrupt" in refused(lambda: client.load_model("half"))[1]
    assert halved(client) == [4, 5]
    assert index(client)["half"] == [("1", "READY", "")]
    shutil.rmtree(directory)
    kept.rename(directory)
    client.load_model("half")
    assert halved(client) == [3, 4]


# Files in the request


def test_a_model_of_files(client: Any, explicit: Any, models: Path) -> None:
    half = models / "half_plus_three" / "3"
    client.load_model("half")
    client.load_model("half", config=json.dumps({"backend": "tensorflow"}), files=files(half, 5))
    assert halved(client, version="5") == [4, 5]
    until(lambda: index(client)["half"] == [("5", "READY", "")])
    overrides = explicit.cache / "overrides"
    assert len(list(overrides.iterdir())) == 1
    # Without files, it is the repository's again, and the files go.
    client.load_model("half")
    assert halved(client) == [3, 4]
    until(lambda: index(client)["half"] == [("1", "READY", "")] and not list(overrides.iterdir()))


def test_a_new_model_of_files_goes_with_them(client: Any, models: Path) -> None:
    client.load_model("made", config="{}", files=files(models / "half_plus_two" / "1"))
    assert halved(client, "made") == [3, 4]
    client.unload_model("made")
    until(lambda: "made" not in index(client))
    assert (
        refused(lambda: client.load_model("made"))[1] == "failed to load 'made', failed to poll from model repository"
    )


@pytest.mark.parametrize(
    ("paths", "why"),
    [
        (["../../escaped"], "must stay within model directory."),
        (["/tmp/escaped"], "must stay within model directory."),
        (["1/../../escaped"], "must stay within model directory."),
        ([""], "must stay within model directory."),
        (["1/a", "1/./a"], "two of them name the file"),
        (["1/a", "1/a/b"], "directory has been created as a file"),
        (["1/" + "x" * 300], "expected a file's path"),
    ],
)
def test_files_that_are_refused(client: Any, explicit: Any, paths: list[str], why: str) -> None:
    content = {f"file:{path}": b"x" for path in paths}
    status, message = refused(lambda: client.load_model("files", config="{}", files=content))
    assert (status, why in message) == ("StatusCode.INTERNAL", True), message
    assert not list(explicit.cache.rglob("escaped"))
    assert not Path("/tmp/escaped").exists()


def test_files_need_a_description(client: Any, models: Path) -> None:
    status, message = refused(lambda: client.load_model("half", files=files(models / "half_plus_two" / "1")))
    assert status == "StatusCode.INTERNAL"
    assert "Load parameter 'config' must be specified for model file override" in message


def test_what_a_failed_load_of_files_has_replaced_keeps_them(client: Any, explicit: Any, models: Path) -> None:
    model = models / "half_plus_two" / "1"
    client.load_model("mixed", config="{}", files=files(model))
    content = {**files(model), "file:2/model.savedmodel/saved_model.pb": b"no model"}
    everything = json.dumps({"version_policy": {"all": {}}})
    assert "load failed" in refused(lambda: client.load_model("mixed", config=everything, files=content))[1]
    assert halved(client, "mixed") == [3, 4]
    until(lambda: len(list((explicit.cache / "overrides").iterdir())) == 1)
    (directory,) = (explicit.cache / "overrides").iterdir()
    assert (directory / "2").is_dir(), "those of the first load have gone instead"
    client.unload_model("mixed")
    until(lambda: not list((explicit.cache / "overrides").iterdir()))


def test_files_that_are_no_model_leave_what_serves(client: Any, explicit: Any) -> None:
    client.load_model("half")
    content = {"file:1/model.savedmodel/saved_model.pb": b"no model"}
    assert "load failed" in refused(lambda: client.load_model("half", config="{}", files=content))[1]
    assert halved(client) == [3, 4]
    assert not list((explicit.cache / "overrides").iterdir())


# Who may say so


@pytest.mark.parametrize("mode", ["none", "poll"])
def test_where_callers_have_no_say(start_server: Any, models: Path, tmp_path: Path, mode: str) -> None:
    add(tmp_path, "half", models / "half_plus_two" / "1", 1, HALF)
    (tmp_path / "broken" / "1").mkdir(parents=True)
    interval = ["--repository-poll-secs", "0.2"] if mode == "poll" else []
    server = start_server("--model-repository", str(tmp_path), "--model-control-mode", mode, *interval)
    with grpcclient.InferenceServerClient(server.address) as client:
        until(lambda: client.is_model_ready("half"))
        until(lambda: index(client)["broken"][0][1] == "UNAVAILABLE")
        for call in (client.load_model, client.unload_model):
            assert refused(lambda call=call: call("half")) == (
                "StatusCode.UNAVAILABLE", "explicit model load / unload is not allowed if polling is enabled",
            )  # fmt: skip
        if mode == "none":
            return
        # What comes is loaded, and what goes is unloaded.
        add(tmp_path, "half", models / "half_plus_three" / "3", 2)
        until(lambda: [found[:2] for found in index(client)["half"]] == [("2", "READY")])
        assert halved(client) == [4, 5]
        add(tmp_path, "new", models / "simple", 1)
        until(lambda: client.is_model_ready("new"))
        shutil.rmtree(tmp_path / "half")
        until(lambda: not client.is_model_ready("half"))


# Without a repository


def test_models_that_were_loaded_another_way(free: Any, server: Any, models: Path) -> None:
    server.load("control", models / "simple")
    assert ("1", "READY", "") in index(free)["control"]
    free.load_model("control")
    nothing = json.dumps({"version_policy": {"specific": {"versions": [9]}}})
    assert "at least one version must be available" in refused(lambda: free.load_model("control", config=nothing))[1]
    assert ("1", "READY", "") in index(free)["control"]
    free.unload_model("control", unload_dependents=True)
    until(lambda: index(free)["control"] == [("1", "UNAVAILABLE", "unloaded")])
    ready = free.get_model_repository_index()
    assert [model.state for model in ready.models if model.name == "control"] == ["UNAVAILABLE"]
    free.load_model("control")
    assert free.is_model_ready("control", "1")
    free.unload_model("nobody")
    assert refused(lambda: free.load_model("nobody")) == (
        "StatusCode.INTERNAL", "failed to load 'nobody', failed to poll from model repository",
    )  # fmt: skip


def test_models_of_other_scopes(free: Any, server: Any, models: Path) -> None:
    server.modelhost("scope", "create", "wing")
    server.load("wing/half", models / "half_plus_two" / "1")
    assert index(free)["wing/half"] == [("1", "READY", "")]
    free.unload_model("wing/half")
    until(lambda: not free.is_model_ready("wing/half"))
    free.load_model("wing/half")
    assert halved(free, "wing/half") == [3, 4]
    free.load_model("wing/made", config="{}", files=files(models / "half_plus_three" / "3"))
    assert halved(free, "wing/made") == [4, 5]


def test_a_description_changes_how_predictions_run_together(free: Any, server: Any, models: Path) -> None:
    server.load("batched", models / "half_plus_two" / "1")
    free.load_model("batched", config=json.dumps({"max_batch_size": 16, "dynamic_batching": {}}))
    shown = json.loads(server.modelhost("--json", "show", "batched"))
    assert "16" in json.dumps(shown)
    assert halved(free, "batched") == [3, 4]


@pytest.mark.parametrize(
    ("name", "parameters", "code", "why"),
    [
        ("", {}, "INVALID_ARGUMENT", "model name must not be empty"),
        ("../x", {}, "INVALID_ARGUMENT", "must not contain path traversal characters"),
        ("/x", {}, "INVALID_ARGUMENT", "must not contain path traversal characters"),
        ("m", {"other": "x"}, "INVALID_ARGUMENT", "unrecognized load parameter 'other'."),
        ("m", {"file:1/a": "x"}, "INVALID_ARGUMENT", "load parameter 'file:1/a', expected bytes_param."),
    ],
)  # fmt: skip
def test_requests_that_are_refused(server: Any, name: str, parameters: dict[str, str], code: str, why: str) -> None:
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    request = service_pb2.RepositoryModelLoadRequest(model_name=name)
    for key, value in parameters.items():
        request.parameters[key].string_param = value
    with grpc.insecure_channel(server.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.RepositoryModelLoad(request)
        assert (caught.value.code().name, why in caught.value.details()) == (code, True), caught.value.details()
        for call, of in (
            (stub.RepositoryModelLoad, service_pb2.RepositoryModelLoadRequest(repository_name="r", model_name="m")),
            (stub.RepositoryIndex, service_pb2.RepositoryIndexRequest(repository_name="r")),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call(of)
            assert caught.value.code().name == "UNIMPLEMENTED"
            assert caught.value.details() == "'repository_name' specification is not supported"
