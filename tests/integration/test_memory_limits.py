"""Limits of memory: kept at admission, and told in a way that helps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from modelhost.v1 import model_pb2, scope_pb2, scope_service_pb2
from support.calls import eventually
from support.predict import SECONDS, assert_serves, describe, error_of, load, predict
from support.server import ServerProcess, Stubs

MB = 1 << 20


def set_limit(stubs: Stubs, scope: str, limit: int) -> None:
    stubs.scopes.UpdateScope(
        scope_service_pb2.UpdateScopeRequest(
            scope=scope,
            config=scope_pb2.ScopeConfig(memory_limit_bytes=limit),
            update_mask={"paths": ["memory_limit_bytes"]},
        ),
        timeout=SECONDS,
    )  # fmt: skip


def test_a_scope_tells_its_limit_and_its_memory(stubs, scope, models):
    set_limit(stubs, scope, 3 << 30)
    load(stubs, scope, models / "half_plus_two")
    told = stubs.scopes.GetScope(scope_service_pb2.GetScopeRequest(scope=scope), timeout=SECONDS).scope
    assert told.config.memory_limit_bytes == told.memory.limit_bytes == 3 << 30
    assert 0 < told.memory.private_bytes < 3 << 30
    assert describe(stubs, scope, "half_plus_two").memory.private_bytes > 0


def test_what_does_not_fit_into_its_scope_is_refused_and_the_others_go_on(stubs, scope, models):
    load(stubs, scope, models / "half_plus_two")
    set_limit(stubs, scope, MB)
    failure = error_of(lambda: load(stubs, scope, models / "half_plus_three"))
    assert (failure.code, failure.reason) == ("RESOURCE_EXHAUSTED", "MEMORY_LIMIT")
    assert f"scope '{scope}'" in failure.message
    assert "needed" in failure.message
    assert f"scopes/{scope}/models/half_plus_two/versions/1" in failure.message
    assert int(failure.metadata["limit_bytes"]) == MB
    assert int(failure.metadata["needed_bytes"]) > 0
    assert describe(stubs, scope, "half_plus_three").state == model_pb2.VERSION_STATE_FAILED
    assert_serves(stubs, scope, "half_plus_two")
    set_limit(stubs, scope, 0)
    load(stubs, scope, models / "half_plus_three")
    assert predict(stubs, scope, "half_plus_three", x=np.float32([2]))["y"].tolist() == [4.0]


def test_the_servers_limit_holds_for_all_scopes(models):
    with ServerProcess("--memory-limit-bytes", str(2 * MB)) as server:
        stubs = Stubs(server.address)
        failure = error_of(lambda: load(stubs, "default", models / "half_plus_two"))
        assert failure.reason == "MEMORY_LIMIT"
        assert failure.message.startswith("the server:")
        stubs.close()


@pytest.mark.parametrize("limit", [-1, -(2**62)])
def test_a_negative_limit_is_refused(stubs, scope, limit):
    assert error_of(lambda: set_limit(stubs, scope, limit)).code == "INVALID_ARGUMENT"


def test_a_restart_of_the_worker_ignores_no_version_for_its_limit(stubs, scope, models):
    """A limit set later than a version was loaded does not take it away."""
    load(stubs, scope, models / "half_plus_two")
    set_limit(stubs, scope, MB)
    stubs.scopes.UpdateScope(
        scope_service_pb2.UpdateScopeRequest(
            scope=scope, config=scope_pb2.ScopeConfig(max_in_flight=3), update_mask={"paths": ["max_in_flight"]}
        ),
        timeout=SECONDS,
    )
    assert_serves(stubs, scope, "half_plus_two")


def test_estimates_come_from_the_size_on_disk(stubs, scope, models, tmp_path: Path):
    set_limit(stubs, scope, MB)
    big = tmp_path / "big"
    (big / "variables").mkdir(parents=True)
    (big / "saved_model.pb").write_bytes((models / "half_plus_two" / "saved_model.pb").read_bytes())
    with (big / "variables" / "variables.data-00000-of-00001").open("wb") as file:
        file.truncate(100 * MB)
    failure = error_of(lambda: load(stubs, scope, big))
    assert failure.reason == "MEMORY_LIMIT"
    assert int(failure.metadata["needed_bytes"]) > 100 * MB


FLOATS = 4


def bounds_of(server: ServerProcess) -> list[int]:
    """Of those workers that have one: the most that they may map, in bytes."""
    texts = [Path(f"/proc/{worker.pid}/limits").read_text() for worker in server.workers()]
    soft = [line.split()[3] for text in texts for line in text.splitlines() if line.startswith("Max data size")]
    return [int(bound) for bound in soft if bound != "unlimited"]


@pytest.fixture
def limited_server():
    with ServerProcess() as process:
        yield process


@pytest.fixture
def limited(limited_server, models):
    """A server whose only scope has a limit, a model that takes what it is told to, and another."""
    stubs = Stubs(limited_server.address)
    set_limit(stubs, "default", 64 * MB)
    for name in ("hungry", "half_plus_two"):
        load(stubs, "default", models / name)
    yield stubs
    stubs.close()


def keep(stubs: Stubs, numbers: int) -> int:
    """Has a model keep a tensor of so many numbers; how many tensors it has."""
    return int(predict(stubs, "default", "hungry", "keep", n=np.int32(numbers))["kept"])


def fill(stubs: Stubs, numbers: int) -> int:
    """Has a model keep as many tensors as it finds memory for; how many it has."""
    kept = [0]

    def fill_up() -> None:
        while len(kept) < 100:
            kept.append(keep(stubs, numbers))

    failure = error_of(fill_up)
    assert (failure.code, failure.reason) == ("RESOURCE_EXHAUSTED", "MEMORY_LIMIT")
    return kept[-1]


def test_a_prediction_that_needs_more_than_there_is_fails_alone(limited, limited_server):
    (bound,) = bounds_of(limited_server)
    huge = np.int32(min(bound // FLOATS, 2**31 - 1))
    failure = error_of(lambda: predict(limited, "default", "hungry", "take", n=huge))
    assert (failure.code, failure.reason) == ("RESOURCE_EXHAUSTED", "MEMORY_LIMIT")
    assert "memory_limit_bytes" in failure.message
    assert f"[{huge}]" in failure.message
    assert 0 < predict(limited, "default", "hungry", "take", n=np.int32(1000))["sum"] < 1000
    assert_serves(limited, "default", "half_plus_two")


def test_a_model_that_takes_ever_more_is_stopped_and_the_others_go_on(limited, limited_server):
    (bound,) = bounds_of(limited_server)
    numbers = bound // FLOATS // 8
    kept = fill(limited, numbers)
    assert_serves(limited, "default", "half_plus_two")
    set_limit(limited, "default", 4 * bound)
    assert keep(limited, numbers) == kept + 1
    set_limit(limited, "default", MB)
    # What a worker has, it keeps, and goes on with it.
    assert keep(limited, 1000) == kept + 2
    assert_serves(limited, "default", "half_plus_two")


def test_a_worker_that_keeps_what_others_need_is_replaced(limited, limited_server):
    (bound,) = bounds_of(limited_server)
    fill(limited, bound // FLOATS // 16)
    (full,) = limited_server.workers()
    assert eventually(lambda: limited_server.workers() not in ([full], []) and not full.is_running(), 60)
    assert_serves(limited, "default", "half_plus_two")
    assert keep(limited, 1000) == 1
    assert "keeps too much memory" in limited_server.log()


def test_every_worker_of_a_limited_server_has_a_bound(models):
    with ServerProcess("--memory-limit-bytes", str(1 << 30)) as server:
        stubs = Stubs(server.address)
        load(stubs, "default", models / "half_plus_two")
        (of_server,) = bounds_of(server)
        assert of_server > 2 << 30
        set_limit(stubs, "default", 64 * MB)
        (of_scope,) = bounds_of(server)
        assert 128 * MB < of_scope < of_server
        set_limit(stubs, "default", 0)
        server.workers()[0].kill()
        assert eventually(lambda: predict(stubs, "default", "half_plus_two", x=np.float32([2]))["y"] == [3])
        assert min(bounds_of(server)) > of_scope
        stubs.close()


def test_without_a_limit_there_is_no_bound(limited, limited_server):
    assert bounds_of(limited_server)
    set_limit(limited, "default", 0)
    assert not bounds_of(limited_server)
