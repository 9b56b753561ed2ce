"""What a server does from time to time, unasked, so that it does not grow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from ..memory import give_back, resident
from ..sources.uploads import SCHEME, Uploads
from ..store.records import Version

logger = logging.getLogger(__name__)

# A server that is asked for nothing for this long is idle.
_IDLE_SECONDS = 5.0
# Less than this is not worth a look through all of the allocator's memory.
_WORTH_BYTES = 8 << 20
_COLLECT_SECONDS = 60.0
_BOUNDS_SECONDS = 1.0


async def give_back_when_idle(count: Callable[[], int]) -> None:
    """Returns what large messages left, once nobody asks for more predictions: until then the next one takes it over.

    Args:
        count: of the predictions asked for so far.
    """
    given, least = 0, _held()
    while True:
        before = count()
        await asyncio.sleep(_IDLE_SECONDS)
        if before != count():
            continue
        # A flood need not be of predictions.
        if given != before or _held() > least + _WORTH_BYTES:
            await asyncio.to_thread(give_back)
            given, least = before, _held()
        least = min(least, _held())


def _held() -> int:
    return resident()["anonymous"]


async def keep_bounds(put_on: Callable[[], None]) -> None:
    """Has bounds of workers follow what they do.

    Args:
        put_on: does it.
    """
    while True:
        await asyncio.sleep(_BOUNDS_SECONDS)
        put_on()


async def keep_collecting(uploads: Uploads, versions: Callable[[], Iterable[Version]]) -> None:
    """Removes uploads that no version uses.

    Args:
        uploads: that there are.
        versions: all, whoever sees them.
    """

    def in_use() -> set[tuple[str, str]]:
        sources = {(version.scope, version.source) for version in versions()}
        return {(scope, source.removeprefix(SCHEME)) for scope, source in sources if source.startswith(SCHEME)}

    while True:
        await asyncio.sleep(_COLLECT_SECONDS)
        try:
            await uploads.collect(in_use)
        except OSError as error:
            logger.warning("looking for uploads that nobody uses failed: %s", error)
