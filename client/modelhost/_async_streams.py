"""Asking models over streams."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, NamedTuple, TypeAlias, TypeVar

from numpy.typing import NDArray

from modelhost.v1.prediction_service_pb2 import StreamedResponse

from ._async_flow import AsyncFlow
from ._async_signatures import AsyncSignatures
from ._encoding import Question, encode_predict, encode_streamed, encode_timeout
from ._errors import ModelhostError, OperationCancelledError, UnreachableError
from ._items import AsyncRequests, AsyncStreamRequests, async_numbered
from ._messages import outcome
from ._names import parse_model, routing
from ._shared_memory import Exchange
from ._signatures import STALE_REASONS
from ._spawning import async_spawn
from ._types import (
    CLIENT_TIMEOUT,
    Inputs,
    Metadata,
    Prediction,
    PredictItem,
    StreamRequest,
    StreamResult,
    Timeout,
)

Asked: TypeAlias = tuple[Question, Mapping[str, NDArray[Any]]]
_Request = TypeVar("_Request")


class _UnderWay(NamedTuple):
    """What is kept of a prediction that was sent and may use shared memory."""

    question: Question | None = None
    exchange: Exchange | None = None

    def end(self, error: ModelhostError | None = None) -> None:
        """Gives back what it has of it."""
        if self.exchange is not None:
            self.exchange.end(error)


_NOTHING = _UnderWay()
_ABANDONED = OperationCancelledError("the stream ended before the answer")


class AsyncStreams(AsyncSignatures):
    """Asks models over streams."""

    async def map(
        self,
        model: str,
        inputs: AsyncRequests[Inputs],
        *,
        signature: str = "",
        version: int | None = None,
        label: str | None = None,
        outputs: Sequence[str] | None = None,
        priority: int = 0,
        in_flight: int = 256,
        timeout: Timeout = CLIENT_TIMEOUT,
        return_exceptions: bool = False,
    ) -> AsyncIterator[Prediction]:
        """Runs one signature of a model on many inputs, over one stream and several at a time.

        >>> [float(answer["y"][0]) async for answer in client.map("half_plus_two", ([i] for i in range(5)))]
        [2.0, 2.5, 3.0, 3.5, 4.0]

        It begins when the first answer is asked for. `inputs` may be without end: it is read no further than
        `in_flight` ahead of the answers that were taken. It is read in a thread or task beside the caller's.

        Args:
            model: names it as for `predict`.
            inputs: what `predict` takes, for each prediction.
            signature: the signature to run; "serving_default", or the only one, when empty.
            version: number of the version, if it is not part of `model`.
            label: label of the version, if it is not part of `model`.
            outputs: names of the outputs to compute; all when None.
            priority: among the predictions that wait in a scope, those with the highest run first; 0 is usual.
            in_flight: predictions under way at most, those among them whose answers wait for an earlier one.
            timeout: seconds, for each prediction.
            return_exceptions: yield the error of a prediction that failed in its place, and go on.

        Yields:
            The predictions, in the order of `inputs`.

        Raises:
            UnreachableError: the connection broke; `details` tells how many predictions had been answered.
            ModelhostError: a prediction failed, and it is its turn.
            Exception: whatever `inputs` raises, after the answers to those before.
        """
        ref = parse_model(model, version, label)
        question = Question(ref, signature, tuple(outputs or ()), priority)

        async def asked(given: Inputs) -> Asked:
            return question, await self._arrays(ref, signature, given)

        flow = AsyncFlow(in_flight)
        early: dict[int, Prediction | ModelhostError] = {}
        turn = 0
        async with aclosing(self._answers(inputs, asked, timeout, flow, routing(ref))) as answers:
            async for index, answer in answers:
                early[index] = answer
                while turn in early:
                    answer = early.pop(turn)
                    turn += 1
                    if isinstance(answer, ModelhostError) and not return_exceptions:
                        raise answer
                    yield answer  # type: ignore[misc]
                    flow.taken()

    async def predict_stream(
        self, requests: AsyncStreamRequests, *, in_flight: int = 64, timeout: Timeout = CLIENT_TIMEOUT
    ) -> AsyncIterator[StreamResult]:
        """Runs predictions of several models over one stream, many at a time.

        >>> requests = [("half_plus_two", [0.0]), ("no_such_model", [1.0]), ("half_plus_two", [5.0])]
        >>> results = {result.index: result async for result in client.predict_stream(requests)}
        >>> results[2].unwrap()["y"]
        array([4.5], dtype=float32)
        >>> results[1].error.reason
        'MODEL_NOT_FOUND'

        A prediction that fails is an answer like any other and stops nothing. When `requests` itself raises, the
        answers to the requests before are yielded, then the error is raised.

        Args:
            requests: `(model, inputs)` or `PredictItem`, read no faster than they are answered, in a thread or task
                beside the caller's.
            in_flight: predictions under way at most.
            timeout: seconds, for each prediction.

        Yields:
            Answers as they come, not in the order of the requests; `index` says which request each belongs to.

        Raises:
            UnreachableError: the connection broke; predictions that were under way are lost. `details` tells how many
                had been answered.
        """

        async def asked(request: StreamRequest) -> Asked:
            item = request if isinstance(request, PredictItem) else PredictItem(*request)
            ref = parse_model(item.model, item.version, item.label)
            question = Question(ref, item.signature, tuple(item.outputs or ()), item.priority)
            return question, await self._arrays(ref, item.signature, item.inputs)

        flow = AsyncFlow(in_flight)
        async with aclosing(self._answers(requests, asked, timeout, flow, ())) as answers:
            async for index, answer in answers:
                flow.taken()
                if isinstance(answer, ModelhostError):
                    yield StreamResult(index, error=answer)
                else:
                    yield StreamResult(index, prediction=answer)

    async def _answers(
        self,
        requests: AsyncRequests[_Request],
        asked: Callable[[_Request], Awaitable[Asked]],
        timeout: Timeout,
        flow: AsyncFlow,
        metadata: Metadata,
    ) -> AsyncGenerator[tuple[int, Prediction | ModelhostError], None]:
        """Sends requests and yields answers, each with the number of its request. The caller tells `flow` when it has
        taken one.
        """
        seconds = encode_timeout(self._seconds(timeout))
        region = await self._region(confirmed=True)
        under_way: dict[int, _UnderWay] = {}
        refused: dict[int, ModelhostError] = {}
        failures: list[Exception] = []

        def abandon() -> None:
            with suppress(KeyError):
                while True:
                    _, sent = under_way.popitem()
                    sent.end(_ABANDONED)

        async def encoded(index: int, request: _Request) -> bytes:
            question, arrays = await asked(request)
            if region is None:
                return encode_streamed(index, seconds, encode_predict(question, arrays))
            exchange = Exchange.within(region)
            under_way[index] = _UnderWay(question, exchange)
            sizes = self._output_sizes.of(question[:2], question.outputs)
            return encode_streamed(index, seconds, encode_predict(question, arrays, exchange, sizes))

        async def read() -> None:
            try:
                async for index, request in async_numbered(requests):
                    try:
                        flow.put(await encoded(index, request))
                    except ModelhostError as error:
                        # An empty request is answered by an error, which wakes the reader below to tell this one.
                        refused[index] = error
                        flow.put(encode_streamed(index, b"", []))
                    if not await flow.room():
                        abandon()
                        return
            except Exception as error:
                failures.append(error)
            flow.end()

        def told(response: StreamedResponse) -> Prediction | ModelhostError:
            sent = under_way.pop(response.id, _NOTHING)
            answer = refused.pop(response.id, None) or outcome(response, sent.exchange)
            if isinstance(answer, ModelhostError):
                if answer.reason in STALE_REASONS:
                    self._signatures.clear()
                sent.end(answer)
            else:
                sent.end()
                if sent.question is not None:
                    self._output_sizes.note(sent.question[:2], answer)
            return answer

        end_reading = async_spawn(read)
        call = self._stubs.predictions.PredictStream(flow.messages(), metadata=self._metadata + metadata)
        try:
            with self._told_errors():
                async for message in call:
                    for response in message.responses:
                        yield response.id, told(response)
        except UnreachableError as error:
            raise UnreachableError(
                f"{error}; {flow.answered} predictions had been answered, {flow.under_way} were under way",
                details={"answered": str(flow.answered), "under_way": str(flow.under_way)},
            ) from error
        finally:
            flow.stop()
            end_reading()
            call.cancel()
            abandon()
        if failures:
            raise failures[0]
