"""ModelService, as TensorFlow Serving's own client speaks it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import text_format
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2

STATE = get_model_status_pb2.ModelVersionStatus


@pytest.fixture(scope="module")
def bases(built: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directories of versions that a test may change."""
    bases = tmp_path_factory.mktemp("bases")
    for name in ("half_plus_two", "half_plus_three"):
        shutil.copytree(built("build_foreign") / name, bases / name)
    return bases


@pytest.fixture(scope="module")
def follower(start_server: Callable[..., Any], bases: Path) -> Any:
    """A server that was started as TensorFlow Serving is, to look often."""
    return start_server(
        "--model_name=half", f"--model_base_path={bases / 'half_plus_two'}", "--file_system_poll_wait_seconds=0.1"
    )


@pytest.fixture(scope="module")
def connection(follower: Any) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(follower.address) as channel:
        yield channel


@pytest.fixture(scope="module")
def service(connection: grpc.Channel) -> model_service_pb2_grpc.ModelServiceStub:
    return model_service_pb2_grpc.ModelServiceStub(connection)


def status_request(name: str, version: int | None = None) -> get_model_status_pb2.GetModelStatusRequest:
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = name
    if version is not None:
        request.model_spec.version.value = version
    return request


def states(service: Any, name: str) -> list[tuple[int, str]]:
    """States by version, in the order of the answer; empty where there are none."""
    try:
        answer = service.GetModelStatus(status_request(name), timeout=10)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        return []
    return [(each.version, STATE.State.Name(each.state)) for each in answer.model_version_status]


def wait_for(service: Any, name: str, wanted: list[tuple[int, str]]) -> None:
    end = time.monotonic() + 20
    while (got := states(service, name)) != wanted:
        assert time.monotonic() < end, got
        time.sleep(0.05)


def reload(service: Any, text: str) -> model_management_pb2.ReloadConfigResponse:
    """As examples in TensorFlow Serving's documentation do: the text of a config file becomes a request."""
    request = model_management_pb2.ReloadConfigRequest()
    request.config.CopyFrom(text_format.Parse(text, model_server_config_pb2.ModelServerConfig()))
    return service.HandleReloadConfigRequest(request, timeout=60)


def entry(name: str, path: Path | str, more: str = "") -> str:
    return f"config {{ name: '{name}' base_path: '{path}' model_platform: 'tensorflow' {more} }}"


def config(*entries: str) -> str:
    return f"model_config_list {{ {' '.join(entries)} }}"


def refusal(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as refusal:
        call()
    return refusal.value.code(), refusal.value.details()


def predict(connection: grpc.Channel, name: str, label: str = "") -> tuple[int, list[float]]:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    if label:
        request.model_spec.version_label = label
    request.inputs["x"].dtype = 1
    request.inputs["x"].tensor_shape.dim.add(size=1)
    request.inputs["x"].float_val.append(2.0)
    answer = prediction_service_pb2_grpc.PredictionServiceStub(connection).Predict(request, timeout=10)
    return answer.model_spec.version.value, list(answer.outputs["y"].float_val)


def test_flags_host_the_newest_version(service, connection):
    wait_for(service, "half", [(2, "AVAILABLE")])
    assert predict(connection, "half") == (2, [3.0])
    (status,) = service.GetModelStatus(status_request("half", 2), timeout=10).model_version_status
    assert (status.status.error_code, status.status.error_message) == (0, "")


def test_what_there_is_not_has_no_status(service):
    assert refusal(lambda: service.GetModelStatus(status_request("nobody"), timeout=10)) == (
        grpc.StatusCode.NOT_FOUND, "Could not find any versions of model nobody",
    )  # fmt: skip
    wait_for(service, "half", [(2, "AVAILABLE")])
    assert refusal(lambda: service.GetModelStatus(status_request("half", 9), timeout=10)) == (
        grpc.StatusCode.NOT_FOUND, "Could not find version 9 of model half",
    )  # fmt: skip
    empty = get_model_status_pb2.GetModelStatusRequest()
    assert refusal(lambda: service.GetModelStatus(empty, timeout=10)) == (
        grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec",
    )  # fmt: skip


def test_a_reload_adds_changes_labels_and_removes(service, connection, bases):
    half, three = bases / "half_plus_two", bases / "half_plus_three"
    every = "model_version_policy { all {} }"
    answer = reload(service, config(entry("half", half, every), entry("three", three), entry("team/three", three)))
    assert (answer.status.error_code, answer.status.error_message) == (0, "")
    assert states(service, "half") == [(2, "AVAILABLE"), (1, "AVAILABLE")]
    assert predict(connection, "three") == (3, [4.0])
    assert predict(connection, "team/three") == (3, [4.0])
    labels = "version_labels { key: 'stable' value: 1 } version_labels { key: 'canary' value: 2 }"
    reload(service, config(entry("half", half, f"{every} {labels}")))
    assert predict(connection, "half", "stable") == (1, [3.0])
    assert predict(connection, "half", "canary") == (2, [3.0])
    wait_for(service, "three", [(3, "END")])
    reload(service, config(entry("half", half, "model_version_policy { specific { versions: 1 } }")))
    wait_for(service, "half", [(2, "END"), (1, "AVAILABLE")])
    shutil.copytree(half / "1", half / "5")
    reload(service, config(entry("half", half)))
    wait_for(service, "half", [(5, "AVAILABLE"), (2, "END"), (1, "END")])


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("", "INVALID_ARGUMENT", "ServerModelConfig type not supported by HandleReloadConfigRequest."
         " Only ModelConfigList is currently supported"),
        ("custom_model_config {}", "INVALID_ARGUMENT", "ServerModelConfig type not supported by"
         " HandleReloadConfigRequest. Only ModelConfigList is currently supported"),
        (config(entry("m", "/m"), entry("m", "/m")), "INVALID_ARGUMENT",
         "Illegal to list model m multiple times in config list"),
        (config(entry("m", "m")), "INVALID_ARGUMENT",
         "Expected model m to have an absolute path or URI; got base_path()=m"),
        (config("config { name: 'm' base_path: '/m' model_platform: 'onnx' }"), "INVALID_ARGUMENT",
         "Model m requests unsupported platform onnx"),
        (config("config { name: 'm' base_path: '/m' }"), "INVALID_ARGUMENT",
         "Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform."),
        (config("config { name: 'm' base_path: '/m' model_type: TENSORFLOW model_platform: 'tensorflow' }"),
         "INVALID_ARGUMENT",
         "Illegal setting both ModelServerConfig::model_type (deprecated) and ModelServerConfig::model_platform."),
        (config(entry("m", "/m", "version_labels { key: 'stable' value: 4 }")), "FAILED_PRECONDITION",
         "Request to assign label to version 4 of model m, which is not currently available for inference"),
    ],
)  # fmt: skip
def test_a_config_that_is_not_right_changes_nothing(service, bases, text, code, message):
    reload(service, config(entry("half", bases / "half_plus_two")))
    before = states(service, "half")
    assert refusal(lambda: reload(service, text)) == (grpc.StatusCode[code], message)
    assert states(service, "half") == before
    assert states(service, "m") == []


def test_a_model_that_fails_is_told_and_the_others_are_hosted(service, connection, bases):
    (bases / "broken" / "7").mkdir(parents=True)
    (bases / "broken" / "7" / "saved_model.pb").write_bytes(b"\xff")
    code, message = refusal(
        lambda: reload(service, config(entry("three", bases / "half_plus_three"), entry("broken", bases / "broken")))
    )
    assert code is grpc.StatusCode.UNKNOWN
    assert message.startswith("1 model(s) did not become available: {{{name: broken version: 7} due to error: ")
    assert predict(connection, "three") == (3, [4.0])
    (status,) = service.GetModelStatus(status_request("broken"), timeout=10).model_version_status
    assert (status.version, STATE.State.Name(status.state)) == (7, "END")
    assert status.status.error_code
    assert status.status.error_message in message
