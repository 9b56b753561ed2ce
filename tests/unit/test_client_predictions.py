"""Predictions of both clients."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import modelhost
import numpy as np
import pytest
from google.rpc import code_pb2
from modelhost import AsyncClient, Client, PredictItem
from support.service import FLOAT32, FLOAT64, NUMPY, Refused, Served

X = np.array([1, 2, 5], np.float32)


def test_arrays_by_name_cost_one_call(client: Any, served: Served) -> None:
    answer = client.predict("half@3", {"x": X})
    np.testing.assert_array_equal(answer["y"], [2.5, 3, 4.5])
    assert answer.version == 3
    assert [name for name, _, _ in served.service.calls] == ["Predict"]


@pytest.mark.parametrize("inputs", [X, [1.0, 2, 5], {"x": [1, 2, 5]}])
def test_the_signature_is_learnt_once(client: Any, served: Served, inputs: Any) -> None:
    for _ in range(3):
        np.testing.assert_array_equal(client.predict("half", inputs)["y"], [2.5, 3, 4.5])
    assert [name for name, _, _ in served.service.calls] == ["GetModel", "Predict", "Predict", "Predict"]
    assert served.service.seen("Predict")[0].inputs["x"].dtype == FLOAT32


def test_inputs_that_do_not_fit_are_not_sent(client: Any, served: Served) -> None:
    for inputs, reason in (
        ([[1.0]], "INPUT_SHAPE_MISMATCH"),
        (X.astype(np.float64), "INPUT_DTYPE_MISMATCH"),
        ({"z": [1.0]}, "INPUT_UNKNOWN"),
    ):
        with pytest.raises(modelhost.InvalidInputError) as caught:
            client.predict("half", inputs)
        assert caught.value.reason == reason
    assert not served.service.seen("Predict")


@pytest.mark.parametrize(("name", "dtype"), [("z", FLOAT32), ("x", FLOAT64), ("z", FLOAT64)])
def test_a_model_that_changed_is_learnt_again(client: Any, served: Served, name: str, dtype: int) -> None:
    client.predict("half", [1.0])
    served.service.input, served.service.dtype = name, dtype
    answer = client.predict("half", [1.0])
    assert answer["y"].dtype == NUMPY[dtype]
    assert len(served.service.seen("GetModel")) == 2
    # What fits the new model only is found to fit before it is sent.
    client.predict("half", {name: np.ones(1, NUMPY[dtype])})
    assert len(served.service.seen("GetModel")) == 2


def test_a_refusal_of_unchecked_inputs_stands(client: Any, served: Served) -> None:
    with pytest.raises(modelhost.InvalidInputError, match="input_dtype_mismatch"):
        client.predict("half", {"x": X.astype(np.float64)})
    assert [name for name, _, _ in served.service.calls] == ["Predict"]


def test_what_the_model_itself_refuses_is_not_sent_again(client: Any, served: Served) -> None:
    client.predict("half", [1.0])
    served.service.refuse["Predict"] = Refused(code_pb2.INVALID_ARGUMENT, "MODEL_REJECTED_INPUT")
    with pytest.raises(modelhost.InvalidInputError, match="model_rejected_input"):
        client.predict("half", [1.0])
    assert len(served.service.seen("GetModel")) == 1
    assert len(served.service.seen("Predict")) == 2


def test_what_a_prediction_says(connect: Callable[..., Any], served: Served) -> None:
    client = connect(served.target, token="secret")
    client.predict("half@stable", {"x": X}, signature="other", outputs=["y"])
    _, request, metadata = served.service.calls[0]
    assert (request.scope, request.model, request.label, request.signature) == ("default", "half", "stable", "other")
    assert request.output_filter == ["y"]
    assert metadata["modelhost-scope"] == "default"
    assert metadata["modelhost-model"] == "half"
    assert metadata["authorization"] == "Bearer secret"


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
        # Four, one more for the answer that was read, and the next, which waits for room.
        wait_until(lambda: len(read) == 6)
        time.sleep(0.3)
        assert len(read) == 6
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
        # The reader has the fourth request in its hands and waits for room.
        wait_until(lambda: len(readers) == 4)
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
