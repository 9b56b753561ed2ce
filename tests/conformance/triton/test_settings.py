"""Trace and log settings, by tritonclient."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tritonclient.grpc as grpcclient
import tritonclient.grpc.aio as aioclient
from tritonclient.utils import InferenceServerException

LOGGED = {
    "log_file": "", "log_info": True, "log_warning": True, "log_error": True, "log_verbose_level": 0,
    "log_format": "default",
}  # fmt: skip


@pytest.fixture(scope="module")
def own_server(start_server: Callable[..., Any]) -> Any:
    """Its log is looked at."""
    return start_server()


@pytest.fixture
def client(own_server: Any) -> Iterator[Any]:
    with grpcclient.InferenceServerClient(own_server.address) as client:
        yield client
        client.update_log_settings({name: value for name, value in LOGGED.items() if name != "log_file"})


def refused(call: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as caught:
        call()
    return caught.value.status(), caught.value.message()


def logged(response: Any) -> dict[str, Any]:
    return {name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in response.settings.items()}


def test_log_settings_are_told_and_changed(client: Any) -> None:
    assert logged(client.get_log_settings()) == LOGGED
    changed = {"log_verbose_level": 1, "log_info": False, "log_warning": True, "log_format": "default"}
    assert logged(client.update_log_settings(changed)) == {**LOGGED, **changed}
    assert logged(client.get_log_settings()) == {**LOGGED, **changed}


def test_log_settings_take_effect(client: Any, own_server: Any) -> None:
    def warn(name: str) -> bool:
        with pytest.raises(InferenceServerException):
            client.load_model(name)
        return name in own_server.log()

    assert warn("first")
    client.update_log_settings({"log_warning": False})
    assert not warn("second")
    client.update_log_settings({"log_warning": True})
    assert warn("third")


@pytest.mark.parametrize(
    ("settings", "code", "message"),
    [
        ({"log_info": None}, "INVALID_ARGUMENT", "expect boolean for 'log_info'"),
        ({"log_verbose_level": None}, "INVALID_ARGUMENT", "expect int32 for 'log_verbose_level'"),
        ({"log_format": "fancy"}, "INVALID_ARGUMENT", "invalid argument for log_format, got: fancy"),
        ({"log_file": "/tmp/x"}, "UNIMPLEMENTED", "log file location can not be updated through network protocol"),
    ],
)
def test_log_settings_that_are_refused(client: Any, settings: dict[str, Any], code: str, message: str) -> None:
    assert refused(lambda: client.update_log_settings({"log_error": False, **settings})) == (
        f"StatusCode.{code}", message,
    )  # fmt: skip
    # All or nothing.
    assert logged(client.get_log_settings()) == LOGGED


def test_nothing_is_traced(client: Any) -> None:
    settings = {name: list(value.value) for name, value in client.get_trace_settings().settings.items()}
    assert settings["trace_level"] == ["OFF"]
    assert settings["trace_count"] == ["-1"]
    answer = client.update_trace_settings(settings={"trace_level": ["OFF"], "trace_rate": None})
    assert {name: list(value.value) for name, value in answer.settings.items()} == settings


def test_traces_cannot_be_turned_on(client: Any, own_server: Any) -> None:
    status, message = refused(lambda: client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]}))
    assert status == "StatusCode.UNIMPLEMENTED"
    assert "does not trace" in message
    status, message = refused(lambda: client.update_trace_settings(settings={"trace_file": "/tmp/x"}))
    assert (status, message) == (
        "StatusCode.UNIMPLEMENTED", "trace file location can not be updated through network protocol",
    )  # fmt: skip
    for settings, told in (
        ({"trace_rate": "x"}, "Unable to parse 'trace_rate', got: x"),
        ({"trace_count": ["1", "2"]}, "expect only 1 value for 'trace_count'"),
        ({"trace_level": ["OFF", "TIMESTAMPS"]}, "Expect only one trace level 'OFF' is specified"),
    ):
        assert refused(lambda settings=settings: client.update_trace_settings(settings=settings)) == (
            "StatusCode.INVALID_ARGUMENT", told,
        )  # fmt: skip
    assert refused(lambda: client.get_trace_settings(model_name="nobody")) == (
        "StatusCode.INVALID_ARGUMENT", "Request for unknown model : nobody",
    )  # fmt: skip

    async def ask() -> Any:
        async with aioclient.InferenceServerClient(own_server.address) as asynchronous:
            return await asynchronous.get_trace_settings()

    assert list(asyncio.run(ask()).settings["trace_level"].value) == ["OFF"]
