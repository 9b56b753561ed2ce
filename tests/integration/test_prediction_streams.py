"""PredictStream: many predictions a message, many under way, each answered once."""

from __future__ import annotations

import itertools
import queue
import time
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import numpy as np
import pytest
from modelhost.v1 import model_pb2, prediction_service_pb2_grpc
from modelhost.v1.prediction_service_pb2 import PredictStreamRequest, PredictStreamResponse, StreamedRequest
from support.calls import eventually, scope_of, unload, version_of
from support.predict import SECONDS, array, load, predict, request
from support.queued import batching_models, gate, make_narrow_scope, narrow_scope, options, outcome, start
from support.server import OWN_CONNECTION, ServerProcess, Stubs

ON, OFF = model_pb2.BATCHING_MODE_ON, model_pb2.BATCHING_MODE_OFF
# Predictions that a stream has under way at most.
IN_FLIGHT = 256


@pytest.fixture
def scope(stubs) -> Iterator[str]:
    with narrow_scope(stubs) as name:
        load(stubs, name, batching_models() / "counter")
        load(stubs, name, batching_models() / "plus_1", "plus")
        yield name


def item(number: int, scope: str, model: str = "plus", timeout: float = 0.0, **fields: Any) -> StreamedRequest:
    """A request whose input is its number."""
    made = StreamedRequest(id=number, request=request(scope, model, {"x": np.float32([number])}, **fields))
    if timeout:
        made.timeout.FromMicroseconds(round(timeout * 1e6))
    return made


class Stream:
    """A stream to which a test sends as it goes."""

    def __init__(self, stubs: Stubs, **options: Any) -> None:
        self._messages: queue.SimpleQueue[PredictStreamRequest | None] = queue.SimpleQueue()
        self.call = stubs.predictions.PredictStream(iter(self._messages.get, None), timeout=SECONDS, **options)

    def send(self, *items: StreamedRequest) -> None:
        self._messages.put(PredictStreamRequest(requests=items))

    def close(self) -> None:
        self._messages.put(None)

    def message(self) -> PredictStreamResponse:
        return next(self.call)

    def rest(self) -> list[Any]:
        return [response for message in self.call for response in message.responses]


def exchange(stubs: Stubs, *messages: Sequence[StreamedRequest]) -> list[PredictStreamResponse]:
    """The messages that come back."""
    requests = (PredictStreamRequest(requests=items) for items in messages)
    return list(stubs.predictions.PredictStream(requests, timeout=SECONDS))


def values(messages: Sequence[PredictStreamResponse]) -> dict[int, float]:
    """What each was answered."""
    responses = [response for message in messages for response in message.responses]
    answers = {response.id: float(array(response.response.outputs["y"])[0]) for response in responses}
    assert len(answers) == len(responses), "each is answered once"
    return answers


def test_one_message_may_carry_more_than_may_be_under_way(stubs, scope):
    messages = exchange(stubs, [item(i, scope) for i in range(1000)])
    assert values(messages) == {i: i + 1.0 for i in range(1000)}
    assert len(messages) < 1000, "answers share messages"


def test_many_messages_of_all_sizes(stubs, scope):
    numbers = iter(range(10_000))
    sizes = [1, 0, 300, 1, 2, 3, 700, 0, 1]
    sent = [[item(next(numbers), scope) for _ in range(size)] for size in sizes]
    assert values(exchange(stubs, *sent)) == {i: i + 1.0 for i in range(sum(sizes))}


def test_an_empty_stream_has_no_answers(stubs):
    assert exchange(stubs) == []
    assert exchange(stubs, []) == []


def test_predictions_of_a_stream_run_in_the_order_in_which_they_were_sent(stubs, scope):
    messages = exchange(stubs, [item(i, scope, "counter") for i in range(500)])
    answers = [response for message in messages for response in message.responses]
    assert [response.id for response in answers] == list(range(500))
    assert [int(array(r.response.outputs["before"])[0]) for r in answers] == list(range(500))


def test_streams_fill_batches(stubs, scope, tmp_path):
    load(stubs, scope, batching_models() / "together", "on", options=options(mode=ON, max_batch_size=64))
    items = [item(i, scope, "on", signature="rows") for i in range(64)]
    with gate(stubs, scope, tmp_path) as closed:
        stream = Stream(stubs)
        stream.send(*items)
        stream.close()
        closed.wait_for(64)
        closed.open()
        answers = stream.rest()
    assert [array(r.response.outputs["y"]).tolist() for r in answers] == [[64]] * 64


def test_failures_have_their_ids_and_end_nothing(stubs, scope):
    items = [item(i, scope) for i in range(6)]
    items[1].request.model = "nobody"
    items[2].request.inputs["x"].raw = b"odd"
    items[3].timeout.FromSeconds(-1)
    answers = {r.id: r for message in exchange(stubs, items) for r in message.responses}
    assert sorted(answers) == list(range(6))
    assert {i: r.error.reason for i, r in answers.items() if r.WhichOneof("outcome") == "error"}.keys() == {1, 2, 3}


def test_large_answers_go_into_several_messages(server, stubs, scope):
    load(stubs, scope, batching_models() / "together")
    x = np.zeros((2, 40_000), np.float32)
    items = [
        StreamedRequest(id=i, request=request(scope, "together", {"x": x + i}, signature="large")) for i in range(24)
    ]
    # As clients are that were told nothing: they take 4 MB.
    with grpc.insecure_channel(server.address) as channel:
        plain = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        messages = list(plain.PredictStream(iter([PredictStreamRequest(requests=items)]), timeout=SECONDS))
    assert max(message.ByteSize() for message in messages) < 2 << 20
    assert len(messages) >= 24 * x.nbytes // (2 << 20)
    found = {r.id: float(array(r.response.outputs["y"])[1, -1]) for m in messages for r in m.responses}
    assert found == {i: i + 1.0 for i in range(24)}


def test_each_has_its_own_timeout(stubs, scope, tmp_path):
    before = int(predict(stubs, scope, "counter", x=np.float32([1]))["before"][0])
    with gate(stubs, scope, tmp_path) as closed:
        stream = Stream(stubs)
        stream.send(item(1, scope, "counter"), item(2, scope, "counter", timeout=0.1), item(3, scope, "counter"))
        (late,) = stream.message().responses
        assert late.id == 2
        assert late.error.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
        closed.open()
        stream.close()
        assert sorted(response.id for response in stream.rest()) == [1, 3]
    # Three runs in all: what was late was never run.
    assert int(predict(stubs, scope, "counter", x=np.float32([1]))["before"][0]) == before + 3


def test_a_stream_has_so_many_under_way_and_no_more(stubs, scope, tmp_path):
    with gate(stubs, scope, tmp_path) as closed:
        stream = Stream(stubs)
        stream.send(*(item(i, scope) for i in range(1000)))
        stream.close()
        closed.wait_for(IN_FLIGHT)
        # As long as another prediction takes to come in.
        other = start(stubs, scope, "plus", {"x": np.float32([0])})
        closed.wait_for(IN_FLIGHT + 1)
        assert scope_of(stubs, scope).statistics.queued == IN_FLIGHT + 1
        closed.open()
        assert sorted(response.id for response in stream.rest()) == list(range(1000))
        assert isinstance(outcome(other), dict)


def test_nothing_is_run_for_a_reader_who_does_not_read(server, stubs, scope):
    load(stubs, scope, batching_models() / "together")
    # Its connection may be full of what is not read.
    reader = Stubs(server.address, OWN_CONNECTION)
    stream = Stream(reader)
    x = np.zeros((1, 40_000), np.float32)
    for number in range(1200):
        stream.send(StreamedRequest(id=number, request=request(scope, "together", {"x": x}, signature="large")))
    stream.close()

    def ran() -> int:
        return version_of(stubs, scope, "together").statistics.success_count

    eventually(ran)
    # It stands still: what is under way, and what fits into the buffers between.
    last = -1
    while (now := ran()) != last or scope_of(stubs, scope).statistics.in_flight:
        last = now
        time.sleep(0.3)
    assert last < 800
    assert sorted(response.id for response in stream.rest()) == list(range(1200))
    reader.close()


@pytest.mark.parametrize("leave", ["cancel", "deadline"])
def test_a_stream_that_ends_early_leaves_nothing_behind(stubs, scope, tmp_path, leave):
    before = int(predict(stubs, scope, "counter", x=np.float32([1]))["before"][0])
    with gate(stubs, scope, tmp_path) as closed:
        messages: queue.SimpleQueue[PredictStreamRequest | None] = queue.SimpleQueue()
        call = stubs.predictions.PredictStream(
            iter(messages.get, None), timeout=1.0 if leave == "deadline" else SECONDS
        )
        messages.put(PredictStreamRequest(requests=[item(i, scope, "counter") for i in range(400)]))
        if leave == "cancel":
            closed.wait_for(IN_FLIGHT)
            call.cancel()
        with pytest.raises(grpc.RpcError) as ended:
            next(call)
        assert ended.value.code().name == {"cancel": "CANCELLED", "deadline": "DEADLINE_EXCEEDED"}[leave]
        messages.put(None)
        eventually(lambda: scope_of(stubs, scope).statistics.queued == 0)
        closed.open()
    assert int(predict(stubs, scope, "counter", x=np.float32([1]))["before"][0]) == before + 1
    assert unload(stubs, scope, "counter") == [1], "no handle is left"


def test_a_stream_that_is_cut_off_while_predictions_run_leaves_nothing_behind(stubs, scope):
    for _ in range(5):
        stream = Stream(stubs)
        stream.send(*(item(i, scope) for i in range(500)))
        stream.message()
        stream.call.cancel()
        stream.close()
    eventually(lambda: scope_of(stubs, scope).statistics.queued == 0)
    assert unload(stubs, scope, "plus") == [1]


def test_two_streams_share_a_scope_fairly(server, stubs, scope, tmp_path):
    other = Stubs(server.address, OWN_CONNECTION)
    with gate(stubs, scope, tmp_path) as closed:
        big, small = Stream(stubs), Stream(other)
        big.send(*(item(i, scope, "counter") for i in range(200)))
        big.close()
        closed.wait_for(200)
        small.send(*(item(i, scope, "counter") for i in range(10)))
        small.close()
        closed.wait_for(210)
        closed.open()
        places = [int(array(r.response.outputs["before"])[0]) for r in small.rest()]
        assert max(places) <= 20
        assert len(big.rest()) == 200
    other.close()


def test_a_drain_answers_what_is_under_way_and_ends_the_stream(tmp_path):
    with ServerProcess() as server:
        stubs = Stubs(server.address)
        scope = make_narrow_scope(stubs)
        load(stubs, scope, batching_models() / "plus_1", "plus")
        with gate(stubs, scope, tmp_path) as closed:
            stream = Stream(stubs)
            stream.send(*(item(i, scope) for i in range(20)))
            closed.wait_for(20)
            server.process.terminate()
            eventually(lambda: "drain" in server.log().lower())
            closed.open()
            answers = list(itertools.islice(_responses(stream.call), 20))
            assert sorted(response.id for response in answers) == list(range(20))
            with pytest.raises(grpc.RpcError) as ended:
                next(stream.call)
            assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
            stream.close()
        assert server.process.wait(40) == 0
        stubs.close()


def _responses(call: Any) -> Iterator[Any]:
    for message in call:
        yield from message.responses
