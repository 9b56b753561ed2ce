"""Clients that share memory with their server."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import modelhost
import numpy as np
import pytest
from google.rpc import code_pb2
from modelhost import AsyncClient, Client
from modelhost._shared_memory import LARGE_BYTES, is_on_this_machine
from support.service import Refused, Served

COUNT = 50_000
LARGE = np.arange(COUNT, dtype=np.float32)


@pytest.fixture
def sharing(connect: Callable[..., Any], served: Served) -> Any:
    return connect(served.target, shared_memory=True)


def inputs_of(served: Served, rpc: str = "Predict") -> list[Any]:
    requests = served.service.seen(rpc)
    return [(request.request if rpc == "PredictStream" else request).inputs["x"] for request in requests]


def kinds(tensors: list[Any]) -> list[str]:
    return [tensor.WhichOneof("content") for tensor in tensors]


def expect(answer: Any, x: Any) -> None:
    np.testing.assert_array_equal(answer["y"], x / 2 + 2)


def test_large_tensors_are_in_shared_memory_both_ways(sharing: Any, served: Served) -> None:
    for i in range(3):
        answer = sharing.predict("half", {"x": LARGE + i})
        expect(answer, LARGE + i)
        assert not answer["y"].flags.writeable
    assert kinds(inputs_of(served)) == ["shared_memory"] * 3
    # Where outputs go is asked for once it is known how large they are.
    asked = [request.output_regions["y"].byte_size for request in served.service.seen("Predict")]
    assert asked[0] == 0
    assert min(asked[1:]) >= LARGE.nbytes
    assert len(served.service.seen("RegisterRegion")) == 1


def test_small_tensors_are_sent(sharing: Any, served: Served) -> None:
    edge = LARGE_BYTES // 4
    for size in (1, edge - 1, edge):
        expect(sharing.predict("half", {"x": LARGE[:size]}), LARGE[:size])
    assert kinds(inputs_of(served)) == ["raw", "raw", "shared_memory"]


@pytest.mark.parametrize("array", [LARGE.astype(">f4"), LARGE[::2], np.asfortranarray(LARGE)], ids=["big", "gaps", "f"])
def test_elements_are_laid_out_as_they_travel(sharing: Any, served: Served, array: Any) -> None:
    expect(sharing.predict("half", {"x": array}), array)
    assert kinds(inputs_of(served)) == ["shared_memory"]


def test_without_being_told_nothing_is_shared(client: Any, served: Served) -> None:
    expect(client.predict("half", {"x": LARGE}), LARGE)
    assert kinds(inputs_of(served)) == ["raw"]
    assert not served.service.seen("RegisterRegion")


def test_answers_stay_what_they_are(sharing: Any, served: Served) -> None:
    answers = [sharing.predict("half", {"x": LARGE + i})["y"][100:] for i in range(20)]
    for i, answer in enumerate(answers):
        np.testing.assert_array_equal(answer, (LARGE[100:] + i) / 2 + 2)
    places = [request.output_regions["y"].offset for request in served.service.seen("Predict")[1:]]
    assert len(set(places)) == len(places)


def test_ranges_are_used_again(sharing: Any, served: Served) -> None:
    for _ in range(20):
        sharing.predict("half", {"x": LARGE})
    places = {request.inputs["x"].shared_memory.offset for request in served.service.seen("Predict")}
    assert len(places) <= 3


def test_an_output_larger_than_ever_is_sent(sharing: Any, served: Served) -> None:
    for size in (20_000, 50_000, 50_000, 30_000):
        expect(sharing.predict("half", {"x": LARGE[:size]}), LARGE[:size])
    asked = [request.output_regions["y"].byte_size for request in served.service.seen("Predict")]
    assert asked[1] < 200_000 <= asked[2] == asked[3]


def test_only_outputs_that_are_wanted_get_a_place(sharing: Any, served: Served) -> None:
    for outputs in (None, ["y"], ["z"], ["y"]):
        sharing.predict("half", {"x": LARGE}, outputs=outputs)
    asked = [list(request.output_regions) for request in served.service.seen("Predict")]
    assert asked == [[], ["y"], [], ["y"]]


def test_a_server_that_was_started_again_is_told_of_another_region(sharing: Any, served: Served) -> None:
    sharing.predict("half", {"x": LARGE})
    served.service.forget_regions()
    expect(sharing.predict("half", {"x": LARGE}), LARGE)
    regions = [request.region for request in served.service.seen("RegisterRegion")]
    assert len(set(regions)) == len(regions) == 2
    assert kinds(inputs_of(served)) == ["shared_memory"] * 3


@pytest.mark.parametrize(
    "refusal",
    [Refused(code_pb2.UNIMPLEMENTED, "UNSUPPORTED"), Refused(code_pb2.INVALID_ARGUMENT, "REGION_INVALID")],
    ids=["off", "elsewhere"],
)
def test_where_memory_cannot_be_shared_tensors_are_sent(sharing: Any, served: Served, refusal: Refused) -> None:
    served.service.refuse["RegisterRegion"] = refusal
    for _ in range(3):
        expect(sharing.predict("half", {"x": LARGE}), LARGE)
    assert kinds(inputs_of(served)) == ["raw"] * 3
    assert len(served.service.seen("RegisterRegion")) == 1


def test_a_prediction_that_was_not_taken_is_sent_once_more_from_elsewhere(sharing: Any, served: Served) -> None:
    sharing.predict("half", {"x": LARGE})
    served.service.refuse["Predict"] = Refused(code_pb2.UNAVAILABLE, "WORKER_DIED")
    with pytest.raises(modelhost.UnavailableError):
        sharing.predict("half", {"x": LARGE})
    assert len(served.service.seen("Predict")) == 3
    regions = [tensor.shared_memory.region for tensor in inputs_of(served)]
    assert regions[0] == regions[1] != regions[2]


def test_what_the_server_may_still_read_is_not_written_to(served: Served) -> None:
    go_on = threading.Event()
    seen = []

    def read_late(tensor: Any) -> bytes:
        if len(seen) == 1:
            go_on.wait(10)
        place = tensor.shared_memory
        seen.append(os.pread(served.service.region(place), place.byte_size, place.offset))
        return seen[-1]

    with Client(served.target, shared_memory=True) as client:
        client.predict("half", {"x": LARGE})
        served.service.content = read_late  # type: ignore[method-assign]
        client.predict("half", {"x": LARGE + 1})
        with pytest.raises(modelhost.DeadlineExceededError):
            client.predict("half", {"x": LARGE + 2}, timeout=0.3)
        for i in (3, 4, 5):
            seen.append(b"")
            client.predict("half", {"x": LARGE + i})
        go_on.set()
        wanted = (LARGE + 2).tobytes()
        for _ in range(1000):
            if wanted in seen:
                break
            threading.Event().wait(0.01)
    assert wanted in seen


def test_a_map_shares_memory(sharing: Any, served: Served) -> None:
    for _ in range(2):
        answers = sharing.map("half", ({"x": LARGE + i} for i in range(100)), in_flight=8)
        for i, answer in enumerate(answers):
            expect(answer, LARGE + i)
    assert kinds(inputs_of(served, "PredictStream")) == ["shared_memory"] * 200
    later = served.service.seen("PredictStream")[100:]
    assert all("y" in item.request.output_regions for item in later)
    del answers, answer


def test_streams_find_out_whether_the_server_is_the_same(sharing: Any, served: Served) -> None:
    for _ in range(3):
        (result,) = sharing.predict_stream([("half", {"x": LARGE})])
        expect(result.unwrap(), LARGE)
        served.service.forget_regions()
    assert len({request.region for request in served.service.seen("RegisterRegion")}) == 3


def test_failures_give_back_what_they_had(sharing: Any, served: Served) -> None:
    for _ in range(20):
        with pytest.raises(modelhost.NotFoundError):
            sharing.predict("nope", {"x": LARGE})
    assert {request.inputs["x"].shared_memory.offset for request in served.service.seen("Predict")} == {0}


def test_an_abandoned_map_leaves_what_was_under_way_alone(served: Served) -> None:
    with Client(served.target, shared_memory=True) as client:
        answers = client.map("half", ({"x": LARGE} for _ in itertools.count()), in_flight=4)
        next(answers)
        answers.close()  # type: ignore[attr-defined]
        lost = {item.request.inputs["x"].shared_memory.offset for item in served.service.seen("PredictStream")[2:]}
        client.predict("half", {"x": LARGE})
        (tensor,) = inputs_of(served)
        assert tensor.shared_memory.offset not in lost


def regions_in(directory: str) -> set[str]:
    return {path.name for path in Path(directory).iterdir() if path.name.startswith("modelhost-")}


def test_nothing_is_left_behind(served: Served) -> None:
    before = regions_in("/dev/shm")
    with Client(served.target, shared_memory=True) as client:
        client.predict("half", {"x": LARGE})
        answer = client.predict("half", {"x": LARGE})
        # Even a client that is killed leaves no file.
        assert regions_in("/dev/shm") == before
    expect(answer, LARGE)


def test_threads_share_a_region(served: Served) -> None:
    wrong: list[Exception] = []

    def ask(client: Client, mark: int) -> None:
        try:
            for i in range(30):
                expect(client.predict("half", {"x": LARGE + mark * 1000 + i}), LARGE + mark * 1000 + i)
        except Exception as error:
            wrong.append(error)

    with Client(served.target, shared_memory=True) as client:
        threads = [threading.Thread(target=ask, args=(client, mark)) for mark in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
    assert len(served.service.seen("RegisterRegion")) == 1


async def test_tasks_share_a_region(served: Served) -> None:
    async with AsyncClient(served.target, shared_memory=True) as client:
        answers = await asyncio.gather(*(client.predict("half", {"x": LARGE + i}) for i in range(30)))
    for i, answer in enumerate(answers):
        expect(answer, LARGE + i)
    assert len(served.service.seen("RegisterRegion")) == 1


@pytest.mark.parametrize(
    ("target", "here"),
    [
        ("localhost:8500", True),
        ("127.0.0.1:8500", True),
        ("[::1]:8500", True),
        ("unix:/run/modelhost.sock", True),
        ("example.com:8500", False),
        ("10.0.0.1:8500", False),
        ("dns:///models:8500", False),
    ],
)
def test_which_servers_are_on_this_machine(target: str, here: bool) -> None:
    assert is_on_this_machine(target) is here
