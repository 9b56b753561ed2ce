"""Directories of models: what they hold is what is hosted, as TensorFlow Serving has it."""

from __future__ import annotations

import itertools
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf import text_format
from modelhost.v1 import model_pb2, model_service_pb2
from modelhost_server.compat import serving_model_config_pb2
from support.calls import CRASH, eventually, failure, half, load, request, scalar, scope_of, unload, version_of
from support.server import ServerProcess, Stubs
from support.serving import ModelServiceStub, model_config

WORDS = itertools.count(1)
POLL = "0.1"


@pytest.fixture(scope="module")
def own(transport: str) -> Iterator[Stubs]:
    """A server that looks often; each test has it follow models of its own, and no others."""
    with ServerProcess("--transport", transport, "--file-system-poll-wait-seconds", POLL) as process:
        stubs = Stubs(process.address)
        stubs.process = process
        yield stubs
        stubs.close()


@pytest.fixture(scope="module")
def serving(own: Stubs) -> ModelServiceStub:
    return ModelServiceStub(own.channel)


@pytest.fixture
def name() -> str:
    return f"m{next(WORDS)}"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    directory = tmp_path / "base"
    directory.mkdir()
    return directory


def put(models: Path, base: Path, number: int, model: str = "half_plus_two") -> Path:
    """Copies a model to where a version belongs, at once."""
    shutil.copytree(models / model, base / f".{number}")
    (base / f".{number}").rename(base / str(number))
    return base / str(number)


def settled(serving: ModelServiceStub, name: str, states: dict[int, str]) -> None:
    """Waits for these states, newest first."""
    eventually(lambda: list(serving.states(name).items()) == list(states.items()) or serving.states(name) and None, 20)


def refused(serving: ModelServiceStub, *configs: serving_model_config_pb2.ModelConfig) -> tuple[grpc.StatusCode, str]:
    code, _, message = failure(lambda: serving.reload(*configs))
    return code, message


# What the command line says


def test_a_directory_given_as_upstream_does_is_hosted(models, base):
    put(models, base, 1)
    put(models, base, 2, "half_plus_three")
    with ServerProcess("--model_name=half", f"--model_base_path={base}", "--file_system_poll_wait_seconds=0.1") as own:
        stubs = Stubs(own.address)
        serving = ModelServiceStub(stubs.channel)
        settled(serving, "half", {2: "AVAILABLE"})
        assert half(stubs, "default", "half") == 5.0
        put(models, base, 5)
        settled(serving, "half", {5: "AVAILABLE", 2: "END"})
        assert half(stubs, "default", "half") == 4.0
        stubs.close()


def config_text(*configs: serving_model_config_pb2.ModelConfig) -> str:
    config = serving_model_config_pb2.ModelServerConfig()
    config.model_config_list.config.extend(configs)
    return text_format.MessageToString(config)


def test_a_config_file_is_hosted_and_followed(models, tmp_path):
    for name in ("a", "b", "c"):
        put(models, tmp_path / name, 1)
    file = tmp_path / "models.config"
    both = [model_config("a", tmp_path / "a", labels={"stable": 1}), model_config("team/b", tmp_path / "b")]
    file.write_text(config_text(*both) + "a_field_of_tomorrow: 1")
    # As in upstream's container, where both are given: the file counts.
    options = ["--model-base-path", str(tmp_path / "c"), "--model-config-file", str(file)]
    with ServerProcess(*options, "--model-config-file-poll-wait-seconds", "0.1") as own:
        stubs = Stubs(own.address)
        serving = ModelServiceStub(stubs.channel)
        settled(serving, "a", {1: "AVAILABLE"})
        settled(serving, "team/b", {1: "AVAILABLE"})
        assert half(stubs, "team", "b") == 4.0
        assert eventually(lambda: version_labels(stubs, "a") == {"stable": 1})
        assert serving.states("default") == {}
        file.write_text("model_config_list {")
        eventually(lambda: "the model config is not changed" in own.log())
        file.write_text(config_text(both[0], model_config("c", tmp_path / "c")))
        settled(serving, "c", {1: "AVAILABLE"})
        settled(serving, "team/b", {1: "END"})
        assert serving.states("a") == {1: "AVAILABLE"}
        stubs.close()


def version_labels(stubs: Stubs, model: str) -> dict[str, int]:
    answer = stubs.models.GetModel(model_service_pb2.GetModelRequest(scope="default", model=model), timeout=10)
    return dict(answer.model.labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model-config-file", "/nowhere/models.config"], "/nowhere/models.config: No such file or directory"),
        (["--model-name", "m"], "model_name: expected model_base_path, too; got it alone"),
        (["--model-name", "a b", "--model-base-path", "/m"], "model: expected letters, digits"),
    ],
)
def test_what_cannot_be_meant_is_told_at_once(options, message):
    command = [sys.executable, "-m", "modelhost_server", "--listen", "127.0.0.1:0", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode in (1, 2)
    assert message in done.stderr


# What directories hold


def test_the_newest_version_takes_the_place_of_the_one_before(own, serving, models, base, name):
    put(models, base, 3)
    serving.reload(model_config(name, base))
    assert half(own, "default", name) == 4.0
    put(models, base, 10, "half_plus_three")
    settled(serving, name, {10: "AVAILABLE", 3: "END"})
    assert half(own, "default", name) == 5.0


def test_a_copy_is_not_loaded_before_it_is_complete(own, serving, models, base, name):
    put(models, base, 1)
    serving.reload(model_config(name, base))
    source, half_way = models / "half_plus_three", base / "2"
    (half_way / "variables").mkdir(parents=True)
    shutil.copy2(source / "saved_model.pb", half_way)
    shutil.copy2(source / "variables" / "variables.index", half_way / "variables")
    settled(serving, name, {2: "START", 1: "AVAILABLE"})
    (status, _) = serving.statuses(name)
    assert "2 is not complete: variables/variables.data-00000-of-????? is missing" in status.status.error_message
    assert half(own, "default", name) == 4.0
    shutil.copy2(source / "variables" / "variables.data-00000-of-00001", half_way / "variables")
    settled(serving, name, {2: "AVAILABLE", 1: "END"})
    assert half(own, "default", name) == 5.0


def test_a_version_whose_directory_goes_is_unloaded(own, serving, models, base, name):
    put(models, base, 1)
    put(models, base, 2)
    serving.reload(model_config(name, base))
    assert serving.states(name) == {2: "AVAILABLE"}
    shutil.rmtree(base / "2")
    settled(serving, name, {2: "END", 1: "AVAILABLE"})
    shutil.rmtree(base / "1")
    settled(serving, name, {2: "END", 1: "END"})
    assert failure(lambda: half(own, "default", name))[1] == "MODEL_NOT_FOUND"
    put(models, base, 1)
    settled(serving, name, {2: "END", 1: "AVAILABLE"})


def test_what_is_hosted_stays_while_the_directory_is_away(own, serving, models, base, name):
    put(models, base, 1)
    serving.reload(model_config(name, base))
    base.rename(base.with_name("elsewhere"))
    eventually(lambda: f"{name}: the directory {base} cannot be read" in own.process.log())
    assert serving.states(name) == {1: "AVAILABLE"}
    put(models, base.with_name("elsewhere"), 2)
    base.with_name("elsewhere").rename(base)
    settled(serving, name, {2: "AVAILABLE", 1: "END"})


def test_a_broken_version_stops_nothing_and_is_loaded_when_it_is_mended(own, serving, models, base, name):
    put(models, base, 1)
    put(models, base.with_name("good"), 1)
    good = model_config(f"{name}-good", base.with_name("good"))
    serving.reload(model_config(name, base), good)
    broken = put(models, base, 2, "half_plus_three")
    shutil.copy2(broken / "saved_model.pb", base.parent)
    (broken / "saved_model.pb").write_bytes(b"no model")
    settled(serving, name, {2: "END", 1: "AVAILABLE"})
    status = serving.statuses(name, version=2)[0].status
    assert status.error_code
    assert status.error_message
    assert half(own, "default", name) == 4.0
    shutil.copy2(base.parent / "saved_model.pb", broken)
    settled(serving, name, {2: "AVAILABLE", 1: "END"})
    assert serving.statuses(name, version=2)[0].status.error_message == ""
    assert serving.states(f"{name}-good") == {1: "AVAILABLE"}


def test_a_version_in_quarantine_stays_there(own, serving, models, base, name):
    put(models, base, 1, "crasher")
    # In a scope of its own, for its worker is killed.
    name = f"fragile/{name}"
    serving.reload(model_config(name, base))
    scope, model = name.split("/")

    def crash_again() -> bool:
        version = version_of(own, scope, model)
        if version.state == model_pb2.VERSION_STATE_AVAILABLE:
            failure(lambda: own.predictions.Predict(request(scope, model, n=scalar(CRASH)), timeout=10))
        return version.state == model_pb2.VERSION_STATE_FAILED

    eventually(crash_again, 30)
    looks = len(own.process.log())
    # A try would come a second after the failure.
    assert not [each for each in itertools.islice(states_for(serving, name, 1.5), 1000) if each != {1: "END"}]
    assert len(own.process.log()) == looks, "it is told once"
    assert "quarantined" in serving.statuses(name)[0].status.error_message
    (base / "1" / "touched").touch()
    settled(serving, name, {1: "AVAILABLE"})


def states_for(serving: ModelServiceStub, name: str, seconds: float) -> Iterator[dict[int, str]]:
    import time

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield serving.states(name)
        time.sleep(0.05)


def test_what_somebody_else_loaded_is_left_alone(own, serving, models, base, name):
    load(own, "default", name, models / "half_plus_three", version=7)
    put(models, base, 1)
    put(models, base, 7)
    serving.reload(model_config(name, base, {"all": {}}))
    assert serving.states(name) == {7: "AVAILABLE", 1: "AVAILABLE"}
    assert half(own, "default", name) == 5.0
    # What the follower loaded is the follower's: it comes back.
    assert unload(own, "default", name, version=1) == [1]
    settled(serving, name, {7: "AVAILABLE", 1: "AVAILABLE"})
    serving.reload()
    settled(serving, name, {7: "AVAILABLE", 1: "END"})
    assert half(own, "default", name) == 5.0


# What ModelService is told


def test_a_policy_is_changed_by_a_reload(own, serving, models, base, name):
    for number in (1, 2, 3):
        put(models, base, number)
    serving.reload(model_config(name, base, {"latest": {"num_versions": 2}}))
    assert serving.states(name) == {3: "AVAILABLE", 2: "AVAILABLE"}
    serving.reload(model_config(name, base, {"specific": {"versions": [1, 4]}}))
    settled(serving, name, {3: "END", 2: "END", 1: "AVAILABLE"})
    serving.reload(model_config(name, base, {"all": {}}))
    assert serving.states(name) == {3: "AVAILABLE", 2: "AVAILABLE", 1: "AVAILABLE"}
    # Of another directory, the same numbers are other versions.
    put(models, base.with_name("other"), 3, "half_plus_three")
    serving.reload(model_config(name, base.with_name("other"), {"all": {}}))
    settled(serving, name, {3: "AVAILABLE", 2: "END", 1: "END"})
    assert half(own, "default", name) == 5.0


def test_labels_follow_the_config(own, serving, models, base, name):
    put(models, base, 1)
    put(models, base, 2)
    every = {"all": {}}
    serving.reload(model_config(name, base, every))
    serving.reload(model_config(name, base, every, {"stable": 1, "canary": 2}))
    assert version_labels(own, name) == {"stable": 1, "canary": 2}
    assert serving.states(name, label="stable") == {1: "AVAILABLE"}
    code, message = refused(serving, model_config(name, base, every, {"stable": 3}))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert message == (
        f"Request to assign label to version 3 of model {name}, which is not currently available for inference"
    )
    assert version_labels(own, name) == {"stable": 1, "canary": 2}
    serving.reload(model_config(name, base, every, {"stable": 2}))
    assert version_labels(own, name) == {"stable": 2}
    code, _, message = failure(lambda: serving.states(name, label="canary"))
    assert (code, message) == (
        grpc.StatusCode.INVALID_ARGUMENT, "Unrecognized servable version label: canary",
    )  # fmt: skip


def test_a_reload_is_applied_as_a_whole_or_not_at_all(serving, models, base, name):
    put(models, base, 1)
    serving.reload(model_config(name, base))
    good, bad = model_config(f"{name}-new", base), model_config("bad", "relative")
    assert refused(serving, good, bad) == (
        grpc.StatusCode.INVALID_ARGUMENT, "Expected model bad to have an absolute path or URI; got base_path()=relative",
    )  # fmt: skip
    assert refused(serving, good, good)[1] == f"Illegal to list model {name}-new multiple times in config list"
    assert refused(serving, good, model_config("bad", "/m", platform="onnx"))[1] == (
        "Model bad requests unsupported platform onnx"
    )
    assert serving.states(name) == {1: "AVAILABLE"}
    assert serving.states(f"{name}-new") == {}


def test_a_reload_without_a_list_of_models_is_refused(serving):
    code, _, message = failure(lambda: serving.HandleReloadConfigRequest(type_of_reload(), timeout=10))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message == (
        "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently supported"
    )


def type_of_reload():
    from modelhost_server.compat import serving_model_service_pb2

    request = serving_model_service_pb2.ReloadConfigRequest()
    request.config.custom_model_config.type_url = "type.googleapis.com/something"
    return request


def test_a_reload_tells_what_failed_and_hosts_the_others(own, serving, models, base, name):
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
    assert half(own, "default", name) == 4.0
    code, _, message = failure(lambda: serving.states(f"{name}-away", version=1))
    assert (code, message) == (grpc.StatusCode.NOT_FOUND, f"Could not find version 1 of model {name}-away")


def test_a_reload_ends_with_its_deadline_and_stays_in_force(own, serving, models, base, name):
    (base / "1").mkdir()
    code, _, message = failure(lambda: serving.reload(model_config(name, base), timeout=1.5))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert serving.states(name) == {1: "START"}
    shutil.copytree(models / "half_plus_two", base / "1", dirs_exist_ok=True)
    settled(serving, name, {1: "AVAILABLE"})


def test_a_model_that_nobody_knows_has_no_status(own, serving):
    def status(name: str):
        return lambda: serving.states(name, label="x") if name == "labelled" else serving.GetModelStatus(spec(name))

    code, _, message = failure(status("nobody"))
    assert (code, message) == (grpc.StatusCode.NOT_FOUND, "Could not find any versions of model nobody")
    code, _, message = failure(lambda: serving.GetModelStatus(spec(None)))
    assert (code, message) == (grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")


def spec(name: str | None):
    from modelhost_server.compat import serving_model_service_pb2, serving_predict_pb2

    model_spec = None if name is None else serving_predict_pb2.ModelSpec(name=name)
    return serving_model_service_pb2.GetModelStatusRequest(model_spec=model_spec)


def test_a_scope_is_made_for_its_models(own, serving, models, base, name):
    put(models, base, 1)
    serving.reload(model_config(f"new-{name}/half", base))
    assert half(own, f"new-{name}", "half") == 4.0
    assert scope_of(own, f"new-{name}").config.max_in_flight == scope_of(own, "default").config.max_in_flight


def test_the_server_ends_while_it_follows(own):
    assert own.process.stop(signal.SIGTERM) == 0
