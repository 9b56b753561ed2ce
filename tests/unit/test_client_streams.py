"""Streams of both clients."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import modelhost
import numpy as np
import pytest
from modelhost import AsyncClient, Client, PredictItem
from support.service import FLOAT64, Served

X = np.array([1, 2, 5], np.float32)


def test_a_stream_tells_each_answer_by_its_index(client: Any, served: Served) -> None:
    requests = [
        ("half", [0.0]),
        PredictItem("half", {"x": np.array([1], np.float32)}, version=7),
        ("nope", [2.0]),
        ("half", {"x": np.array([3], np.float64)}),
        ("half", ["four"]),
        ("half", [5.0]),
        ("no/such/name", []),
    ]
    results = client.predict_stream(requests)
    by_index = {result.index: result for result in results}
    assert sorted(by_index) == list(range(7))
    assert [result.index for result in results] != list(range(7)), "the service answers in another order"
    for index in (0, 1, 5):
        assert by_index[index].unwrap()["y"] == index / 2 + 2
    assert by_index[1].unwrap().version == 7
    errors = {index: by_index[index].error.reason for index in (2, 3, 4, 6)}
    assert errors == {
        2: "MODEL_NOT_FOUND",
        3: "INPUT_DTYPE_MISMATCH",
        4: "INPUT_DTYPE_MISMATCH",
        6: "INVALID_NAME",
    }
    with pytest.raises(modelhost.NotFoundError):
        by_index[2].unwrap()


def wait_until(condition: Callable[[], bool]) -> None:
    """Gives other threads up to ten seconds."""
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


def test_a_stream_reads_no_faster_than_it_is_answered(served: Served) -> None:
    read: list[int] = []

    def requests() -> Iterator[tuple[str, Any]]:
        for number in range(1000):
            read.append(number)
            yield "half", {"x": X}

    with Client(served.target) as client:
        results = client.predict_stream(requests(), in_flight=4)
        next(iter(results))
        # Four, and one more for the answer that was read.
        wait_until(lambda: len(read) == 5)
        time.sleep(0.3)
        assert len(read) == 5
        results.close()  # type: ignore[attr-defined]


def test_an_abandoned_stream_leaves_no_thread(served: Served) -> None:
    readers: list[threading.Thread] = []

    def requests() -> Iterator[tuple[str, Any]]:
        while True:
            readers.append(threading.current_thread())
            yield "half", {"x": X}

    with Client(served.target) as client:
        results = client.predict_stream(requests(), in_flight=2)
        next(iter(results))
        # Two, one more for the answer that was read, and now the reader waits for room.
        wait_until(lambda: len(readers) == 3)
        results.close()  # type: ignore[attr-defined]
        assert readers[0] is not threading.current_thread()
        readers[0].join(10)
        assert not readers[0].is_alive()


def test_a_stream_learns_a_model_that_changed(client: Any, served: Served) -> None:
    client.predict("half", [1.0])
    served.service.dtype = FLOAT64
    (stale,) = client.predict_stream([("half", [1.0])])
    assert stale.error.reason == "INPUT_DTYPE_MISMATCH"
    (fresh,) = client.predict_stream([("half", [1.0])])
    assert fresh.unwrap()["y"].dtype == np.float64


def test_requests_that_raise_end_the_stream_after_the_answers(client: Any) -> None:
    def requests() -> Iterator[tuple[str, Any]]:
        yield "half", {"x": X}
        raise LookupError("no more")

    answers: list[modelhost.StreamResult] = []
    with pytest.raises(LookupError, match="no more"):
        client.stream(answers, "predict_stream", requests=requests())
    assert [answer.index for answer in answers] == [0]


async def test_an_async_stream_takes_an_async_iterable(served: Served) -> None:
    async def requests() -> AsyncIterator[tuple[str, Any]]:
        for value in range(5):
            yield "half", [float(value)]

    async with AsyncClient(served.target) as client:
        answers = {result.index: result.unwrap()["y"][0] async for result in client.predict_stream(requests())}
    assert answers == {0: 2.0, 1: 2.5, 2: 3.0, 3: 3.5, 4: 4.0}


def answers_of(predictions: list[modelhost.Prediction]) -> list[float]:
    return [float(prediction["y"][0]) for prediction in predictions]


def test_map_answers_in_order_though_answers_overtake(client: Any) -> None:
    assert answers_of(client.map("half", ([float(i)] for i in range(501)))) == [i / 2 + 2 for i in range(501)]


def test_map_says_what_a_prediction_says(connect: Callable[..., Any], served: Served) -> None:
    client = connect(served.target, timeout=7)
    (answer,) = client.map("half@stable", [{"x": X}], signature="other", outputs=["y"], priority=3)
    (item,) = served.service.seen("PredictStream")
    request = item.request
    assert (request.model, request.label, request.signature, request.priority) == ("half", "stable", "other", 3)
    assert list(request.output_filter) == ["y"]
    assert item.timeout.ToNanoseconds() == 7 * 10**9
    assert served.service.stream_metadata["modelhost-model"] == "half"
    np.testing.assert_array_equal(answer["y"], [2.5, 3, 4.5])


def test_the_signature_is_learnt_once_for_all(client: Any, served: Served) -> None:
    assert answers_of(client.map("half", [[1.0]] * 50)) == [2.5] * 50
    assert len(served.service.seen("GetModel")) == 1


def test_many_requests_share_a_message(client: Any, served: Served) -> None:
    assert len(client.map("half", [{"x": X}] * 1000, in_flight=256)) == 1000
    assert sum(served.service.stream_messages) == 1000
    assert max(served.service.stream_messages) == 64
    assert len(served.service.stream_messages) < 250


def test_large_requests_share_no_message(client: Any, served: Served) -> None:
    large = {"x": np.zeros(200_000, np.float32)}
    assert len(client.map("half", [large] * 6)) == 6
    assert served.service.stream_messages == [1] * 6


def test_a_failure_is_raised_when_its_turn_comes(client: Any) -> None:
    answers: list[Any] = []
    with pytest.raises(modelhost.InvalidInputError, match="float32"):
        client.stream(answers, "map", model="half", inputs=[[0.0], [1.0], ["two"], [3.0]])
    assert answers_of(answers) == [2.0, 2.5]


def test_failures_may_be_answers(client: Any) -> None:
    inputs = [[0.0], ["one"], {"x": np.float64([2])}, [3.0]]
    first, second, third, fourth = client.map("half", inputs, return_exceptions=True)
    assert answers_of([first, fourth]) == [2.0, 3.5]
    assert [error.reason for error in (second, third)] == ["INPUT_DTYPE_MISMATCH", "INPUT_DTYPE_MISMATCH"]


def test_inputs_that_raise_end_it_after_the_answers(client: Any) -> None:
    def inputs() -> Iterator[Any]:
        yield [0.0]
        yield [1.0]
        raise LookupError("no more")

    answers: list[Any] = []
    with pytest.raises(LookupError, match="no more"):
        client.stream(answers, "map", model="half", inputs=inputs())
    assert answers_of(answers) == [2.0, 2.5]


def test_an_array_may_be_used_again_for_the_next_input(client: Any) -> None:
    def inputs() -> Iterator[Any]:
        array = np.zeros(2000, np.float32)
        for i in range(100):
            array[:] = i
            yield {"x": array}

    assert answers_of(client.map("half", inputs())) == [i / 2 + 2 for i in range(100)]


@pytest.mark.parametrize(("in_flight", "ahead"), [(2, 2), (4, 4), (100, 100)])
def test_map_reads_no_further_than_told(served: Served, in_flight: int, ahead: int) -> None:
    read: list[int] = []

    def inputs() -> Iterator[Any]:
        for number in itertools.count():
            read.append(number)
            yield {"x": X}

    with Client(served.target) as client:
        answers = client.map("half", inputs(), in_flight=in_flight)
        next(answers)
        wait_until(lambda: len(read) == ahead)
        time.sleep(0.2)
        # The first answer counts as taken once the second is asked for.
        assert len(read) == ahead
        for _ in range(300):
            next(answers)
        assert 300 < len(read) <= 301 + ahead
        answers.close()  # type: ignore[attr-defined]


def test_inputs_may_depend_on_answers(served: Served) -> None:
    values = [8.0]
    more = threading.Semaphore(1)

    def inputs() -> Iterator[Any]:
        for i in range(6):
            more.acquire()
            # Twice, because the service answers in pairs.
            yield from ([values[i]], [values[i]])

    with Client(served.target) as client:
        for number, answer in enumerate(client.map("half", inputs())):
            if number % 2:
                values.append(float(answer["y"][0]))
                more.release()
    assert values == [8.0, 6.0, 5.0, 4.5, 4.25, 4.125, 4.0625]


def test_a_broken_connection_says_what_was_answered(served: Served) -> None:
    def inputs() -> Iterator[Any]:
        for i in itertools.count():
            if i == 20:
                stopping = threading.Thread(target=served.stop)
                stopping.start()
                stopping.join()
            yield {"x": X}

    with (
        Client(served.target) as client,
        pytest.raises(modelhost.UnreachableError, match="had been answered") as caught,
    ):
        list(client.map("half", inputs(), in_flight=8))
    answered, under_way = (int(caught.value.details[name]) for name in ("answered", "under_way"))
    assert answered <= 20 <= answered + under_way


@pytest.mark.parametrize("in_flight", [0, -1])
def test_nothing_in_flight_is_refused(client: Any, in_flight: int) -> None:
    with pytest.raises(modelhost.InvalidRequestError, match="in_flight"):
        client.map("half", [[1.0]], in_flight=in_flight)


async def test_an_async_map_takes_an_async_iterable(served: Served) -> None:
    async def inputs() -> AsyncIterator[Any]:
        for value in range(5):
            yield [float(value)]

    async with AsyncClient(served.target) as client:
        assert [float(answer["y"][0]) async for answer in client.map("half", inputs())] == [2.0, 2.5, 3.0, 3.5, 4.0]


async def test_an_abandoned_async_map_ends_the_reading(served: Served) -> None:
    ended = threading.Event()

    async def inputs() -> AsyncIterator[Any]:
        try:
            while True:
                yield {"x": X}
        finally:
            ended.set()

    async with AsyncClient(served.target) as client:
        answers = client.map("half", inputs(), in_flight=2)
        await anext(answers)
        await answers.aclose()  # type: ignore[attr-defined]
        for _ in range(1000):
            await asyncio.sleep(0.01)
            if ended.is_set():
                break
        assert ended.is_set()
