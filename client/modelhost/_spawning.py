"""Work beside the caller's own, for each of the two clients: a thread, or a task."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def spawn(work: Callable[[], None]) -> Callable[[], None]:
    """Runs `work` in a thread; the answer does nothing, because a thread ends when it sees that it is not needed."""
    threading.Thread(target=work, daemon=True, name="modelhost-requests").start()
    return lambda: None


def async_spawn(work: Callable[[], Coroutine[None, None, None]]) -> Callable[[], object]:
    """Runs `work` in a task; the answer cancels it."""
    return asyncio.get_running_loop().create_task(work()).cancel


def in_thread(work: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
    """Does what blocks, where the caller is: nobody else waits there."""
    return work(*args, **kwargs)


async def async_in_thread(
    work: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
) -> _Result:
    """Does what blocks, beside the event loop."""
    return await asyncio.to_thread(work, *args, **kwargs)
