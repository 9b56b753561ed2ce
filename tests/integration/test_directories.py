"""Directories of models: what they hold is what is hosted, as TensorFlow Serving has it."""

from __future__ import annotations

import itertools
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import text_format
from modelhost.v1 import model_pb2, model_service_pb2, scope_pb2, scope_service_pb2
from modelhost_server.compat import serving_model_config_pb2
from support.calls import CRASH, eventually, failure, half, load, request, scalar, unload, version_of
from support.server import ServerProcess, Stubs
from support.serving import STATE, ModelServiceStub, model_config, put

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def own(transport: str) -> Iterator[Stubs]:
    """A server that looks often; each test has it follow models of its own, and no others."""
    with ServerProcess("--transport", transport, "--file-system-poll-wait-seconds", "0.1") as process:
        stubs = Stubs(process.address)
        stubs.process = process
        yield stubs
        stubs.close()


@pytest.fixture(scope="module")
def serving(own: Stubs) -> ModelServiceStub:
    return ModelServiceStub(own.channel)


@pytest.fixture
def name() -> str:
    return f"m{next(_numbers)}"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    directory = tmp_path / "base"
    directory.mkdir()
    return directory


# What the command line says


def test_a_directory_given_as_upstream_does_is_hosted(models, base):
    put(models, base, 1)
    put(models, base, 2, "half_plus_three")
    with ServerProcess("--model_name=half", f"--model_base_path={base}", "--file_system_poll_wait_seconds=0.1") as own:
        stubs = Stubs(own.address)
        serving = ModelServiceStub(stubs.channel)
        serving.settle("half", {2: "AVAILABLE"})
        assert half(stubs, "default", "half") == 5.0
        put(models, base, 5)
        serving.settle("half", {5: "AVAILABLE", 2: "END"})
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
    with ServerProcess(*options, "--model_config_file_poll_wait_seconds=0.1") as own:
        stubs = Stubs(own.address)
        serving = ModelServiceStub(stubs.channel)
        serving.settle("a", {1: "AVAILABLE"})
        serving.settle("team/b", {1: "AVAILABLE"})
        assert half(stubs, "team", "b") == 4.0
        eventually(lambda: serving.states("a", label="stable") == {1: "AVAILABLE"})
        assert serving.states("default") == {}
        file.write_text("model_config_list {")
        eventually(lambda: "the model config is not changed" in own.log())
        file.write_text(config_text(both[0], model_config("c", tmp_path / "c")))
        serving.settle("c", {1: "AVAILABLE"})
        serving.settle("team/b", {1: "END"})
        assert serving.states("a") == {1: "AVAILABLE"}
        stubs.close()


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
    serving.settle(name, {10: "AVAILABLE", 3: "END"})
    assert half(own, "default", name) == 5.0


def test_a_copy_is_not_loaded_before_it_is_complete(own, serving, models, base, name):
    put(models, base, 1)
    serving.reload(model_config(name, base))
    source, half_way = models / "half_plus_three", base / "2"
    (half_way / "variables").mkdir(parents=True)
    shutil.copy2(source / "saved_model.pb", half_way)
    shutil.copy2(source / "variables" / "variables.index", half_way / "variables")
    serving.settle(name, {2: "START", 1: "AVAILABLE"})
    (status, _) = serving.statuses(name)
    assert "2 is not complete: variables/variables.data-00000-of-????? is missing" in status.status.error_message
    assert half(own, "default", name) == 4.0
    shutil.copy2(source / "variables" / "variables.data-00000-of-00001", half_way / "variables")
    serving.settle(name, {2: "AVAILABLE", 1: "END"})
    assert half(own, "default", name) == 5.0


def test_a_version_whose_directory_goes_is_unloaded(own, serving, models, base, name):
    put(models, base, 1)
    put(models, base, 2)
    serving.reload(model_config(name, base))
    assert serving.states(name) == {2: "AVAILABLE"}
    shutil.rmtree(base / "2")
    serving.settle(name, {2: "END", 1: "AVAILABLE"})
    shutil.rmtree(base / "1")
    serving.settle(name, {2: "END", 1: "END"})
    assert failure(lambda: half(own, "default", name))[1] == "MODEL_NOT_FOUND"
    put(models, base, 1)
    serving.settle(name, {2: "END", 1: "AVAILABLE"})


def test_what_is_hosted_stays_while_the_directory_is_away(own, serving, models, base, name):
    put(models, base, 1)
    serving.reload(model_config(name, base))
    base.rename(base.with_name("elsewhere"))
    eventually(lambda: f"{name}: the directory {base} cannot be read" in own.process.log())
    assert serving.states(name) == {1: "AVAILABLE"}
    put(models, base.with_name("elsewhere"), 2)
    base.with_name("elsewhere").rename(base)
    serving.settle(name, {2: "AVAILABLE", 1: "END"})


def test_a_broken_version_stops_nothing_and_is_loaded_when_it_is_mended(own, serving, models, base, name):
    put(models, base, 1)
    put(models, base.with_name("good"), 1)
    good = model_config(f"{name}-good", base.with_name("good"))
    serving.reload(model_config(name, base), good)
    broken = put(models, base, 2, "half_plus_three")
    shutil.copy2(broken / "saved_model.pb", base.parent)
    (broken / "saved_model.pb").write_bytes(b"no model")
    serving.settle(name, {2: "END", 1: "AVAILABLE"})
    status = serving.statuses(name, version=2)[0].status
    assert status.error_code
    assert status.error_message
    assert half(own, "default", name) == 4.0
    shutil.copy2(base.parent / "saved_model.pb", broken)
    serving.settle(name, {2: "AVAILABLE", 1: "END"})
    assert serving.statuses(name, version=2)[0].status.error_message == ""
    assert serving.states(f"{name}-good") == {1: "AVAILABLE"}


def test_where_memory_comes_first_the_old_version_goes_before_the_new_one_comes(own, serving, models, base, name):
    config = scope_pb2.ScopeConfig(load_order=scope_pb2.LOAD_ORDER_MEMORY_FIRST)
    own.scopes.CreateScope(scope_service_pb2.CreateScopeRequest(scope=name, config=config), timeout=30)
    put(models, base, 1)
    serving.reload(model_config(f"{name}/half", base))
    watch = own.models.WatchModels(model_service_pb2.WatchModelsRequest(scope=name), timeout=30)
    # What there is, and that it is all.
    assert [next(watch).version.version, next(watch).version.version] == [1, 0]
    put(models, base, 2)
    changes = []
    while (2, model_pb2.VERSION_STATE_AVAILABLE) not in changes:
        version = next(watch).version
        changes.append((version.version, version.state))
    watch.cancel()
    gone = changes.index((1, model_pb2.VERSION_STATE_UNLOADED))
    assert gone < changes.index((2, model_pb2.VERSION_STATE_LOADING))


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
    # Another try would come one second after the failure.
    time.sleep(1.5)
    (status,) = serving.statuses(name)
    assert status.state == STATE.END
    assert "quarantined" in status.status.error_message
    assert version_of(own, scope, model).statistics.crash_count == 3
    assert own.process.log().count("quarantined") == 1
    (base / "1" / "touched").touch()
    serving.settle(name, {1: "AVAILABLE"})


def test_what_somebody_else_loaded_is_left_alone(own, serving, models, base, name):
    load(own, "default", name, models / "half_plus_three", version=7)
    put(models, base, 1)
    put(models, base, 7)
    serving.reload(model_config(name, base, {"all": {}}))
    assert serving.states(name) == {7: "AVAILABLE", 1: "AVAILABLE"}
    assert half(own, "default", name) == 5.0
    # What the follower loaded is the follower's: it comes back.
    assert unload(own, "default", name, version=1) == [1]
    serving.settle(name, {7: "AVAILABLE", 1: "AVAILABLE"})
    serving.reload()
    serving.settle(name, {7: "AVAILABLE", 1: "END"})
    assert half(own, "default", name) == 5.0


def test_zero_seconds_mean_one_look(models, base):
    put(models, base, 1)
    (base.with_name("empty") / "1").mkdir(parents=True)
    options = [f"--model-base-path={base}", "--model-name=half", "--file-system-poll-wait-seconds=0"]
    with ServerProcess(*options) as own:
        stubs = Stubs(own.address)
        serving = ModelServiceStub(stubs.channel)
        serving.settle("half", {1: "AVAILABLE"})
        put(models, base, 2, "half_plus_three")
        # What is added is looked at, once, and what is not complete then is told.
        _, _, message = failure(
            lambda: serving.reload(model_config("half", base), model_config("empty", base.with_name("empty")))
        )
        assert "1 is not complete: saved_model.pb is missing" in message
        assert serving.states("half") == {1: "AVAILABLE"}
        serving.reload(model_config("half", base, {"latest": {"num_versions": 2}}))
        assert serving.states("half") == {2: "AVAILABLE", 1: "AVAILABLE"}
        stubs.close()


def test_the_server_ends_while_it_follows(own):
    assert own.process.stop(signal.SIGTERM) == 0
