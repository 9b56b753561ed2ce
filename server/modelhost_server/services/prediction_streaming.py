"""Many predictions over one stream: begun as their requests come, answered as they are ready, so many under way at
most. What requests and answers look like is a protocol's own, see `Exchange`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from ..errors import ForeignError, ModelhostError, Reason
from ..hosting.host import Host
from ..hosting.prediction import Begun, Prediction
from .call import Call

# Predictions under way; reading stops there, and so, by flow control, does the sender.
_IN_FLIGHT = 256

Message = TypeVar("Message", contravariant=True)
Item = TypeVar("Item")
Answer = TypeVar("Answer")
_Outcome = Prediction | ModelhostError | ForeignError


class Exchange(Protocol[Message, Item, Answer]):
    """What a protocol sends to and fro.

    Attributes:
        in_order: answers come in the order of their requests.
    """

    in_order: bool

    def items(self, message: Message) -> Iterable[Item]:
        """The requests in a message."""

    def seconds(self, item: Item) -> float | None:
        """How long the caller of a request waits for its answer."""

    def begin(self, item: Item, call: Call) -> Begun:
        """Begins the prediction that a request asks for."""

    def answer(self, item: Item, prediction: Prediction) -> Answer:
        """What a request is answered."""

    def failure(self, item: Item, error: Exception) -> Answer:
        """What a request is answered that failed."""

    def count(self, ready: Sequence[Answer]) -> int:
        """How many of the answers that are ready, one at least, go into one message."""


class PredictionStream(Generic[Message, Item, Answer]):
    """A stream; see `answers`."""

    def __init__(self, exchange: Exchange[Message, Item, Answer], call: Call) -> None:
        self._exchange = exchange
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._under_way: dict[Begun, asyncio.TimerHandle | None] = {}
        self._ready: list[Answer] = []
        # Where answers come in order: those that are missing, and those that wait for one that is.
        self._ordered: deque[_Place[Answer]] = deque()
        self._room = asyncio.Semaphore(_IN_FLIGHT)
        self._something = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    def end_reading(self) -> None:
        """Takes no more requests; those that have been read are answered."""
        if self._reader is not None:
            self._reader.cancel()

    async def answers(self, requests: AsyncIterator[Message]) -> AsyncIterator[Sequence[Answer]]:
        """Answers requests, each time what goes into one message.

        Raises:
            Exception: what reading the requests raised, after the answers to those before.
            asyncio.CancelledError: reading was ended.
        """
        reader = self._reader = self._loop.create_task(self._read(requests))
        reader.add_done_callback(lambda _: self._something.set())
        try:
            while self._ready or self._under_way or not reader.done():
                if not self._ready:
                    self._something.clear()
                    await self._something.wait()
                    continue
                count = self._exchange.count(self._ready)
                message = self._ready[:count]
                del self._ready[:count]
                yield message
                # Only now, so that nothing is buffered for a reader that does not read.
                for _ in message:
                    self._room.release()
            await reader
        finally:
            reader.cancel()
            for begun, alarm in self._under_way.items():
                begun.cancel()
                if alarm is not None:
                    alarm.cancel()

    async def _read(self, requests: AsyncIterator[Message]) -> None:
        async for message in requests:
            for item in self._exchange.items(message):
                await self._room.acquire()
                self._start(item)

    def _start(self, item: Item) -> None:
        place: _Place[Answer] = _Place()
        if self._exchange.in_order:
            self._ordered.append(place)
        deadline = self._call.deadline
        try:
            seconds = self._exchange.seconds(item)
            if seconds is not None:
                if seconds <= 0:
                    raise _late()
                own = self._loop.time() + seconds
                deadline = own if deadline is None else min(own, deadline)
            begun = self._exchange.begin(item, self._call.until(deadline))
        except Exception as error:
            self._answer(place, self._exchange.failure(item, error))
            return
        # The stream's own deadline ends the stream; no timer is needed for that.
        self._under_way[begun] = (
            None if seconds is None else self._loop.call_later(seconds, self._expire, begun, item, place)
        )
        begun.when_done(partial(self._done, begun, item, place))

    def _done(self, begun: Begun, item: Item, place: _Place[Answer], outcome: _Outcome) -> None:
        alarm = self._under_way.pop(begun, None)
        if alarm is not None:
            alarm.cancel()
        try:
            if isinstance(outcome, Exception):
                raise outcome
            answer = self._exchange.answer(item, outcome)
        except Exception as error:
            answer = self._exchange.failure(item, error)
        self._answer(place, answer)

    def _expire(self, begun: Begun, item: Item, place: _Place[Answer]) -> None:
        if begun not in self._under_way:
            return
        del self._under_way[begun]
        begun.cancel()
        self._answer(place, self._exchange.failure(item, _late()))

    def _answer(self, place: _Place[Answer], answer: Answer) -> None:
        if not self._exchange.in_order:
            self._ready.append(answer)
        else:
            place.answer = (answer,)
            while self._ordered and self._ordered[0].answer:
                self._ready += self._ordered.popleft().answer
        self._something.set()


class _Place(Generic[Answer]):
    """Where an answer belongs among the others; it is empty until there is one."""

    __slots__ = ("answer",)

    def __init__(self) -> None:
        self.answer: tuple[Answer, ...] = ()


async def predict_stream(
    host: Host, exchange: Exchange[Any, Any, Answer], requests: AsyncIterator[Any], call: Call
) -> AsyncIterator[Sequence[Answer]]:
    """Answers the requests of a stream, each time what goes into one message.

    Raises:
        ModelhostError: SERVER_DRAINING, once what had been read is answered.
    """
    stream: PredictionStream[Any, Any, Answer] = PredictionStream(exchange, call)
    # A drain ends the reading; what has been read is answered.
    stop_listening = host.draining.listen(stream.end_reading)
    try:
        async for message in stream.answers(requests):
            yield message
    except asyncio.CancelledError:
        host.draining.check_accepting()
        raise
    finally:
        stop_listening()


def _late() -> ModelhostError:
    return ModelhostError(Reason.DEADLINE_EXCEEDED, "the prediction's timeout passed before its answer")
