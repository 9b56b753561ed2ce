"""Remote sources, copied to the cache before they are loaded: complete or not at all, once for all who want them."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ..cached import checked_hash, read_cached
from ..errors import ModelhostError, Reason
from .disk import check_room, publish, storing
from .fetching import Look, fetch, look_at
from .filesystems import Store, open_filesystem
from .local import Resolved, model_in, resolve_path
from .remotes import AllowedRemotes, shown

_THREADS = 8
_TELL_SECONDS = 0.2
_LOOK_SECONDS = 60.0
_MAX_LOOKS = 100

_Result = TypeVar("_Result")
# Told how many bytes have come, of how many; answers whether they are still wanted.
Tell = Callable[[int, int], bool]


@dataclass(slots=True)
class _Fetch:
    """One that is under way, and how many wait for it."""

    look: Look
    stop: threading.Event = field(default_factory=threading.Event)
    done: int = 0
    waiting: int = 0
    task: asyncio.Task[None] | None = None


class Remote:
    """All remote sources.

    Args:
        folder: of the cache, for what has been fetched, each in a directory named by its `Look.key`.
        names: of the cache, for what of it each source was last.
        work: for what is being fetched, on the same disk; whatever is left there is removed by others.
        allowed: what may be fetched.
        limit: bytes that a source may have, unpacked.
    """

    def __init__(self, folder: Path, names: Path, work: Path, allowed: AllowedRemotes, limit: int) -> None:
        self._folder = folder
        self._names = names
        self._work = work
        self._allowed = allowed
        self._limit = limit
        self._threads = ThreadPoolExecutor(_THREADS, "fetching")
        self._filesystems: dict[str, Any] = {}
        self._filesystems_lock = threading.Lock()
        self._closing = threading.Event()
        self._looks: dict[str, Look] = {}
        self._fetches: dict[str, _Fetch] = {}

    def close(self) -> None:
        """Ends what is under way."""
        self._closing.set()
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def resolve(self, uri: str, version: int) -> Resolved:
        """Where a source will be, once it has been fetched.

        Raises:
            ModelhostError: INVALID_REQUEST, SOURCE_FORBIDDEN, SOURCE_NOT_FOUND, SOURCE_INVALID, SOURCE_UNSUPPORTED,
                SOURCE_UNAVAILABLE.
        """
        self._allowed.check(uri)
        look = await self._look(uri, version)
        self._looks[look.key] = look
        while len(self._looks) > _MAX_LOOKS:
            # Of loads that were not accepted.
            del self._looks[next(iter(self._looks))]
        return Resolved(str(self._folder / look.key), look.number)

    async def fetched(self, uri: str, version: int) -> Resolved | None:
        """What was last fetched of a source, if it is still there."""
        self._allowed.check(uri)
        return await self._run(lambda: self._fetched_as(uri, version) or self._fetched_as(uri, 0))

    def _fetched_as(self, uri: str, number: int) -> Resolved | None:
        try:
            folder = self._folder / checked_hash(read_cached(self._name_file(uri, number)).decode())
        except (OSError, ValueError):
            return None
        return Resolved(str(folder), number) if folder.is_dir() else None

    def _name_file(self, uri: str, number: int) -> Path:
        return self._names / hashlib.sha256(f"{number} {uri}".encode()).hexdigest()

    async def fetch(self, uri: str, path: str, version: int, tell: Tell) -> str:
        """Fetches a source, unless it is there; the path of the model.

        Args:
            uri: the source.
            path: what `resolve`, or this, has answered before; when it is gone the source is fetched as it is now.
            version: its number.
            tell: told how far it is.

        Raises:
            ModelhostError: as `resolve`, STORAGE_FAILED, and CANCELLED when nobody wants it any more.
        """
        folder = self._place(path)
        if folder is None and await self._run(Path(path).exists):
            # What was converted from what was fetched.
            return path
        if folder is None or not folder.is_dir():
            look = self._looks.pop(folder.name, None) if folder is not None else None
            look = look or await self._look(uri, version)
            await self._fetched(look, tell)
            folder = self._folder / look.key
        with storing("the cache"):
            os.utime(folder)
        return await self._run(lambda: resolve_path(model_in(folder), 0).path)

    def _place(self, path: str) -> Path | None:
        """The directory of what was fetched that a path is in."""
        if not Path(path).is_relative_to(self._folder):
            return None
        return self._folder / Path(path).relative_to(self._folder).parts[0]

    async def _look(self, uri: str, version: int) -> Look:
        return await self._run(lambda: self._look_now(uri, version))

    def _look_now(self, uri: str, version: int) -> Look:
        end = time.monotonic() + _LOOK_SECONDS

        def check() -> None:
            if time.monotonic() > end:
                raise ModelhostError(
                    Reason.SOURCE_UNAVAILABLE,
                    f"source: {shown(uri)} did not answer within {_LOOK_SECONDS:.0f} s; try again later",
                    field="source",
                    retry_after=_LOOK_SECONDS,
                )
            self._check_open()

        return look_at(Store(self._filesystem(uri), check), uri, version, self._limit)

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise ModelhostError(Reason.SERVER_DRAINING, "the server is shutting down; load it again later")

    async def _fetched(self, look: Look, tell: Tell) -> None:
        """Waits until a source is there; who comes while it is being fetched shares that."""
        while (under_way := self._fetches.get(look.key)) is not None and under_way.stop.is_set():
            # Those who wanted it have left: it is about to end.
            assert under_way.task is not None
            await asyncio.wait([under_way.task])
        if (self._folder / look.key).is_dir():
            return
        if under_way is None:
            under_way = self._fetches[look.key] = _Fetch(look)
            under_way.task = asyncio.create_task(self._bring(under_way))
            # When all have left, nobody asks how it ended.
            under_way.task.add_done_callback(lambda task: task.cancelled() or task.exception())
        assert under_way.task is not None
        under_way.waiting += 1
        try:
            while not under_way.task.done():
                if not tell(under_way.done, look.byte_size):
                    raise ModelhostError(Reason.CANCELLED, f"source: {shown(look.uri)} is not wanted any more")
                await asyncio.wait([under_way.task], timeout=_TELL_SECONDS)
            under_way.task.result()
        finally:
            under_way.waiting -= 1
            if under_way.waiting == 0:
                under_way.stop.set()

    async def _bring(self, under_way: _Fetch) -> None:
        try:
            await self._run(lambda: self._bring_now(under_way))
        finally:
            del self._fetches[under_way.look.key]

    def _bring_now(self, under_way: _Fetch) -> None:
        look = under_way.look
        what = f"source: {shown(look.uri)}"

        def note(size: int) -> None:
            under_way.done += size
            self._check_open()
            if under_way.stop.is_set():
                raise ModelhostError(Reason.CANCELLED, f"{what} is not wanted any more")
            if under_way.done > self._limit:
                raise ModelhostError(
                    Reason.SOURCE_INVALID, f"{what} has more than {self._limit} bytes (--upload-limit-bytes)",
                    field="source",
                )  # fmt: skip

        with storing(what):
            self._work.mkdir(parents=True, exist_ok=True)
            self._folder.mkdir(parents=True, exist_ok=True)
            check_room(self._work, what, look.byte_size)
            folder = Path(tempfile.mkdtemp(dir=self._work))
            try:
                fetch(Store(self._filesystem(look.uri), lambda: note(0)), look, folder, self._limit, note)
                if self._look_now(look.uri, look.number) != look:
                    raise ModelhostError(
                        Reason.SOURCE_UNAVAILABLE, f"{what} has changed while it was fetched; try again",
                        field="source", retry_after=1.0,
                    )  # fmt: skip
                publish(folder, self._folder / look.key)
                self._names.mkdir(parents=True, exist_ok=True)
                self._name_file(look.uri, look.number).write_text(look.key)
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def _filesystem(self, uri: str) -> Any:
        scheme = urlsplit(uri).scheme
        with self._filesystems_lock:
            if scheme not in self._filesystems:
                self._filesystems[scheme] = open_filesystem(uri, self._allowed.check)
            return self._filesystems[scheme]

    async def _run(self, work: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
