"""What streams of predictions take, for each of the two clients."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import TypeAlias, TypeVar

from ._types import StreamRequest

_Item = TypeVar("_Item")

Requests: TypeAlias = Iterable[_Item]
AsyncRequests: TypeAlias = AsyncIterable[_Item] | Iterable[_Item]
StreamRequests: TypeAlias = Requests[StreamRequest]
AsyncStreamRequests: TypeAlias = AsyncRequests[StreamRequest]


def numbered(requests: Requests[_Item]) -> Iterator[tuple[int, _Item]]:
    """The requests, from 0."""
    return enumerate(requests)


async def async_numbered(requests: AsyncRequests[_Item]) -> AsyncIterator[tuple[int, _Item]]:
    """The requests, from 0."""
    if not isinstance(requests, AsyncIterable):
        for numbered_item in enumerate(requests):
            yield numbered_item
        return
    index = 0
    async for request in requests:
        yield index, request
        index += 1
