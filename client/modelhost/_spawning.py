"""Work beside the caller's own, for each of the two clients: a thread, or a task."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine


def spawn(work: Callable[[], None]) -> Callable[[], None]:
    """Runs `work` in a thread; the answer does nothing, because a thread ends when it sees that it is not needed."""
    threading.Thread(target=work, daemon=True, name="modelhost-requests").start()
    return lambda: None


def async_spawn(work: Callable[[], Coroutine[None, None, None]]) -> Callable[[], object]:
    """Runs `work` in a task; the answer cancels it."""
    return asyncio.get_running_loop().create_task(work()).cancel
