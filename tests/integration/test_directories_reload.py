"""TensorFlow Serving's ModelService: what is hosted is told, and changed as a whole."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from modelhost.v1 import model_service_pb2
from modelhost_server.compat import serving_model_config_pb2, serving_model_service_pb2
from support.calls import eventually, failure, half, load, scope_of, unload
from support.server import Stubs
from support.serving import ModelServiceStub, model_config, put


@pytest.fixture(scope="module")
def serving(stubs: Stubs) -> Iterator[ModelServiceStub]:
    serving = ModelServiceStub(stubs.channel)
    yield serving
    # What it had hosted, it had for these tests.
    serving.reload()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A directory of versions; its name is the test's own."""
    directory = tmp_path / f"m-{tmp_path.name}"
    directory.mkdir()
    return directory


@pytest.fixture
def name(base: Path) -> str:
    return base.name


def refused(serving: ModelServiceStub, *configs: serving_model_config_pb2.ModelConfig) -> tuple[grpc.StatusCode, str]:
    code, _, message = failure(lambda: serving.reload(*configs))
    return code, message


def labels(stubs: Stubs, model: str) -> dict[str, int]:
    answer = stubs.models.GetModel(model_service_pb2.GetModelRequest(scope="default", model=model), timeout=10)
    return dict(answer.model.labels)


def test_a_policy_is_changed_by_a_reload(stubs, serving, models, base, name):
    for number in (1, 2, 3):
        put(models, base, number)
    serving.reload(model_config(name, base, {"latest": {"num_versions": 2}}))
    assert serving.states(name) == {3: "AVAILABLE", 2: "AVAILABLE"}
    serving.reload(model_config(name, base, {"specific": {"versions": [1, 4]}}))
    serving.settle(name, {3: "END", 2: "END", 1: "AVAILABLE"})
    code, message = refused(serving, model_config(name, base, {"specific": {"versions": [4]}}))
    assert code is grpc.StatusCode.UNKNOWN
    assert f"the directory {base} has no version to host" in message
    serving.settle(name, {3: "END", 2: "END", 1: "END"})
    serving.reload(model_config(name, base, {"all": {}}))
    assert serving.states(name) == {3: "AVAILABLE", 2: "AVAILABLE", 1: "AVAILABLE"}
    # Of another directory, the same numbers are other versions.
    put(models, base.with_name("other"), 3, "half_plus_three")
    serving.reload(model_config(name, base.with_name("other"), {"all": {}}))
    serving.settle(name, {3: "AVAILABLE", 2: "END", 1: "END"})
    assert half(stubs, "default", name) == 5.0


def test_labels_follow_the_config(stubs, serving, models, base, name):
    put(models, base, 1)
    put(models, base, 2)
    every = {"all": {}}
    serving.reload(model_config(name, base, every))
    serving.reload(model_config(name, base, every, {"stable": 1, "canary": 2}))
    assert labels(stubs, name) == {"stable": 1, "canary": 2}
    assert serving.states(name, label="stable") == {1: "AVAILABLE"}
    code, message = refused(serving, model_config(name, base, every, {"stable": 3}))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert message == (
        f"Request to assign label to version 3 of model {name}, which is not currently available for inference"
    )
    assert labels(stubs, name) == {"stable": 1, "canary": 2}
    serving.reload(model_config(name, base, every, {"stable": 2}))
    assert labels(stubs, name) == {"stable": 2}
    code, _, message = failure(lambda: serving.states(name, label="canary"))
    assert (code, message) == (grpc.StatusCode.INVALID_ARGUMENT, "Unrecognized servable version label: canary")


def test_a_reload_is_applied_as_a_whole_or_not_at_all(serving, models, base, name):
    put(models, base, 1)
    serving.reload(model_config(name, base))
    good, bad = model_config(f"{name}-new", base), model_config("bad", "relative")
    code, message = refused(serving, good, bad)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message == "Expected model bad to have an absolute path or URI; got base_path()=relative"
    assert refused(serving, good, good)[1] == f"Illegal to list model {name}-new multiple times in config list"
    assert refused(serving, good, model_config("bad", "/m", platform="onnx"))[1] == (
        "Model bad requests unsupported platform onnx"
    )
    assert serving.states(name) == {1: "AVAILABLE"}
    assert serving.states(f"{name}-new") == {}


def test_a_reload_without_a_list_of_models_is_refused(serving):
    custom = serving_model_service_pb2.ReloadConfigRequest()
    custom.config.custom_model_config.type_url = "type.googleapis.com/something"
    for request in (custom, serving_model_service_pb2.ReloadConfigRequest()):
        code, _, message = failure(lambda request=request: serving.HandleReloadConfigRequest(request, timeout=10))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert message == (
            "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently "
            "supported"
        )


def test_a_reload_tells_what_failed_and_hosts_the_others(stubs, serving, models, base, name):
    put(models, base, 1)
    put(models, base.with_name("broken"), 4)
    (base.with_name("broken") / "4" / "saved_model.pb").write_bytes(b"no model")
    code, message = refused(
        serving,
        model_config(name, base),
        model_config(f"{name}-broken", base.with_name("broken")),
        model_config(f"{name}-away", "/nowhere"),
    )
    assert code is grpc.StatusCode.UNKNOWN
    assert message.startswith("2 model(s) did not become available: {")
    assert f"{{{{name: {name}-broken version: 4}} due to error: INVALID_ARGUMENT: " in message
    assert f"{{{{name: {name}-away}} due to error: INVALID_ARGUMENT: the directory /nowhere cannot be read" in message
    assert half(stubs, "default", name) == 4.0
    code, _, message = failure(lambda: serving.states(f"{name}-away", version=1))
    assert (code, message) == (grpc.StatusCode.NOT_FOUND, f"Could not find version 1 of model {name}-away")


def test_a_directory_that_is_not_there_is_told_of_a_model_that_is_served_from_another(
    stubs, serving, models, base, name
):
    put(models, base, 1)
    serving.reload(model_config(name, base))
    nowhere = base.with_name("nowhere")
    for path, why in ((nowhere, f"the directory {nowhere} cannot be read"), ("file:///a%00b", "without NUL")):
        _, message = refused(serving, model_config(name, path))
        assert why in message
        assert serving.states(name) == {1: "AVAILABLE"}
    put(models, nowhere, 1, "half_plus_three")
    eventually(lambda: half(stubs, "default", name) == 5.0, 20)


def test_what_never_served_and_is_gone_is_forgotten(stubs, serving, models, base, name):
    put(models, base, 1)
    broken = put(models, base, 2)
    (broken / "saved_model.pb").write_bytes(b"no model")
    (base / "3").mkdir()
    refused(serving, model_config(name, base, {"all": {}}))
    serving.settle(name, {3: "START", 2: "END", 1: "AVAILABLE"})
    (base / "3").rmdir()
    serving.settle(name, {2: "END", 1: "AVAILABLE"})
    shutil.rmtree(broken)
    request = model_service_pb2.GetModelRequest(scope="default", model=name)
    eventually(lambda: [each.version for each in stubs.models.GetModel(request, timeout=10).model.versions] == [1], 20)


def test_a_version_that_failed_for_somebody_else_is_told_of(stubs, serving, models, base, name):
    broken = put(models, base.with_name("broken"), 1)
    (broken / "saved_model.pb").write_bytes(b"no model")
    failure(lambda: load(stubs, "default", name, broken, version=1))
    put(models, base, 1)
    code, message = refused(serving, model_config(name, base))
    assert code is grpc.StatusCode.UNKNOWN
    assert f"{{{{name: {name} version: 1}} due to error: INVALID_ARGUMENT: " in message
    unload(stubs, "default", name)
    serving.settle(name, {1: "AVAILABLE"})


def test_a_reload_ends_with_its_deadline_and_stays_in_force(stubs, serving, models, base, name):
    (base / "1").mkdir()
    code, _, _ = failure(lambda: serving.reload(model_config(name, base), timeout=1.5))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert serving.states(name) == {1: "START"}
    shutil.copytree(models / "half_plus_two", base / "1", dirs_exist_ok=True)
    serving.settle(name, {1: "AVAILABLE"})


def test_a_model_that_nobody_knows_has_no_status(serving):
    request = serving_model_service_pb2.GetModelStatusRequest()
    code, _, message = failure(lambda: serving.GetModelStatus(request, timeout=10))
    assert (code, message) == (grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")
    request.model_spec.name = "nobody"
    code, _, message = failure(lambda: serving.GetModelStatus(request, timeout=10))
    assert (code, message) == (grpc.StatusCode.NOT_FOUND, "Could not find any versions of model nobody")


def test_models_that_were_loaded_natively_have_states_too(stubs, serving, scope, models):
    load(stubs, scope, "half", models / "half_plus_two", version=3)
    assert serving.states(f"{scope}/half") == {3: "AVAILABLE"}
    assert unload(stubs, scope, "half") == [3]
    assert serving.states(f"{scope}/half") == {3: "END"}
    load(stubs, scope, "half", models / "half_plus_two", version=3)
    assert serving.states(f"{scope}/half") == {3: "AVAILABLE"}


def test_a_scope_is_made_for_its_models(stubs, serving, models, base, name):
    put(models, base, 1)
    serving.reload(model_config(f"new-{name}/half", base))
    assert half(stubs, f"new-{name}", "half") == 4.0
    assert scope_of(stubs, f"new-{name}").config.max_in_flight == scope_of(stubs, "default").config.max_in_flight
