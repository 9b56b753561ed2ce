"""The thread that makes what engines run: interpreters, compiled models.

Not the thread that loads, for two reasons. Whoever makes such a thing starts its threads, which inherit that loads step
back behind predictions; they would for ever. And LiteRT holds Python's lock while it packs weights: a thread that
stepped back would keep the lock from every prediction of the process.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")

_executor = ThreadPoolExecutor(1, "maker")


def start() -> None:
    """Starts the thread, which takes over how the calling thread is scheduled."""
    _executor.submit(int).result()


def make(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
    """Calls a function in that thread."""
    return _executor.submit(function, *args, **kwargs)
