"""What `predict_stream` takes, for each of the two clients."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import TypeAlias

from ._types import PredictItem, StreamRequest

StreamRequests: TypeAlias = Iterable[StreamRequest]
AsyncStreamRequests: TypeAlias = AsyncIterable[StreamRequest] | Iterable[StreamRequest]


def items(requests: StreamRequests) -> Iterator[tuple[int, PredictItem]]:
    """The requests, numbered."""
    for index, request in enumerate(requests):
        yield index, request if isinstance(request, PredictItem) else PredictItem(*request)


async def async_items(requests: AsyncStreamRequests) -> AsyncIterator[tuple[int, PredictItem]]:
    """The requests, numbered."""
    if not isinstance(requests, AsyncIterable):
        for item in items(requests):
            yield item
        return
    index = 0
    async for request in requests:
        yield index, request if isinstance(request, PredictItem) else PredictItem(*request)
        index += 1
