"""What both clients do on every call: connect, retry, give up; and the calls about scopes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import modelhost
import numpy as np
import pytest
from google.rpc import code_pb2
from modelhost import Client
from support.service import Refused, Served

X = np.array([1, 2, 5], np.float32)


@pytest.mark.parametrize(
    ("rpc", "call", "attempts"),
    [
        ("Predict", lambda client: client.predict("half", {"x": X}), 2),
        ("GetModel", lambda client: client.model("half"), 3),
        ("LoadModel", lambda client: client.load("half", "/half"), 3),
        ("UnloadModel", lambda client: client.unload("half"), 3),
        ("SetLabels", lambda client: client.set_labels("half", {"stable": 1}), 3),
        ("CreateScope", lambda client: client.create_scope("a"), 1),
        ("DeleteScope", lambda client: client.delete_scope("a"), 1),
    ],
)
def test_only_what_is_safe_is_sent_again(
    client: Any, served: Served, rpc: str, call: Callable[[Any], Any], attempts: int
) -> None:
    served.service.refuse[rpc] = Refused(code_pb2.UNAVAILABLE, "WORKER_DIED")
    with pytest.raises(modelhost.UnavailableError) as caught:
        call(client)
    assert caught.value.reason == "WORKER_DIED"
    requests = served.service.seen(rpc)
    assert len(requests) == attempts
    if rpc in ("LoadModel", "UnloadModel"):
        assert len({request.request_id for request in requests}) == 1
        assert requests[0].request_id


def test_other_failures_are_not_sent_again(client: Any, served: Served) -> None:
    served.service.refuse["Predict"] = Refused(code_pb2.RESOURCE_EXHAUSTED, "QUEUE_FULL")
    with pytest.raises(modelhost.ResourceExhaustedError):
        client.predict("half", {"x": X})
    assert len(served.service.seen("Predict")) == 1


def test_no_server(connect: Callable[..., Any]) -> None:
    client = connect("unix:/no/such/socket")
    with pytest.raises(modelhost.UnreachableError, match="no server answers at unix:/no/such/socket; start one with"):
        client.models()
    with pytest.raises(modelhost.UnreachableError, match="within the timeout"):
        client.ready(timeout=0.2)
    with pytest.raises(ConnectionError):
        client.predict_stream([("half", {"x": X})])


def test_ready_and_closing(served: Served) -> None:
    with Client(served.target) as client:
        client.ready(timeout=10)
        client.close()


def test_a_timeout_is_told(connect: Callable[..., Any], served: Served) -> None:
    served.service.run = lambda request: threading.Event().wait(1)  # type: ignore[assignment, return-value]
    client = connect(served.target, timeout=0.1)
    with pytest.raises(TimeoutError) as caught:
        client.predict("half", {"x": X})
    assert isinstance(caught.value, modelhost.DeadlineExceededError)
    with pytest.raises(modelhost.DeadlineExceededError):
        connect(served.target).predict("half", {"x": X}, timeout=0.1)


def test_scope_settings(client: Any, served: Served) -> None:
    info = client.create_scope("team", exist_ok=True, max_queue=5, drain_timeout=1.5, load_order="MEMORY_FIRST")
    assert (info.config.max_queue, info.config.drain_timeout, info.config.load_order) == (5, 1.5, "MEMORY_FIRST")
    assert info.config.overrun_grace is None
    client.update_scope("team", max_queue=0, overrun_grace=None)
    (update,) = served.service.seen("UpdateScope")
    assert sorted(update.update_mask.paths) == ["max_queue", "overrun_grace"]
    assert not update.config.HasField("overrun_grace")
    client.delete_scope("team", force=True)
    assert served.service.seen("DeleteScope")[0].force
    assert [scope.worker_state for scope in client.scopes()] == ["READY"]


@pytest.mark.parametrize(
    "options", [{"no_such": 1}, {"max_queue": "many"}, {"load_order": "SIDEWAYS"}, {"max_queue": 1 << 40}, {}]
)
def test_settings_that_make_no_sense_are_not_sent(client: Any, served: Served, options: dict[str, Any]) -> None:
    with pytest.raises(modelhost.InvalidRequestError):
        client.update_scope("team", **options)
    assert not served.service.calls
