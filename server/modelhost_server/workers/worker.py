"""One worker process as the server sees it: from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import ModelhostError, Reason
from ..ipc.arena import Arena, create_arena_fd
from .link import WorkerLink

logger = logging.getLogger(__name__)

_LOG_LINES = 20
_LOG_LINE_CHARACTERS = 300
# How long a worker may take to end after its socket was closed before it is killed.
_END_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class WorkerEnd:
    """How a worker ended: its exit code (negative: the signal), what it was busy with, and its last words; and whether
    the server has killed it.
    """

    code: int
    busy_keys: frozenset[int]
    log: tuple[str, ...]
    is_by_server: bool = False

    @property
    def is_by_others(self) -> bool:
        """Whether somebody else has killed it: an operator, or a system that is short of memory."""
        return self.code == -signal.SIGKILL and not self.is_by_server

    @property
    def cause(self) -> str:
        """The end in words."""
        if self.code < 0:
            try:
                name = signal.Signals(-self.code).name
            except ValueError:
                name = "an unnamed signal"
            return f"killed by signal {-self.code} ({name})"
        return f"exited with status {self.code}"


class Worker:
    """A worker process. `ended` is resolved once it is gone and everything that waited for it has been told."""

    def __init__(self, name: str, pid: int, link: WorkerLink, log: deque[str], kill: Callable[[], None]) -> None:
        self.name = name
        self.pid = pid
        self.link = link
        self.loaded: set[int] = set()
        self.with_tensorflow = False
        # Its anonymous memory before its first load.
        self.baseline = 0
        self.started = asyncio.get_running_loop().time()
        self.ended: asyncio.Future[WorkerEnd] = asyncio.get_running_loop().create_future()
        self._log = log
        self._kill = kill
        self._stopping = False
        link.on_broken = self._end
        self._is_killed = False

    @property
    def alive(self) -> bool:
        """Whether the process has not been reported as ended."""
        return not self.ended.done()

    def on_end(self, code: int) -> None:
        """The template's report; tells everybody who waits."""
        if self.ended.done():
            return
        end = WorkerEnd(code, frozenset(self.link.busy_keys()), tuple(self._log), self._is_killed)
        if not self._stopping:
            logger.warning("worker of %s %s", self.name, end.cause)
        self.ended.set_result(end)
        self.link.fail(
            ModelhostError(
                Reason.WORKER_DIED,
                f"the worker of {self.name} died during the call ({end.cause}); it is being replaced",
                retry_after=0.5,
                cause=end.cause,
            )
        )

    def kill(self) -> None:
        """Kills the process at once; what it was doing fails with WORKER_DIED."""
        if self.alive:
            self._is_killed = True
            self._end()

    def _end(self) -> None:
        # When its template has gone, so has the worker.
        with contextlib.suppress(OSError):
            if self.alive:
                self._kill()

    async def stop(self) -> None:
        """Ends the process and waits until it is gone."""
        self._stopping = True
        self.link.close()
        try:
            await asyncio.wait_for(asyncio.shield(self.ended), _END_SECONDS)
        except TimeoutError:
            self.kill()
            await self.ended


class _LogReader(asyncio.Protocol):
    """Keeps the last lines a worker wrote, and hands each to the server's log."""

    def __init__(self, name: str, lines: deque[str]) -> None:
        self._name = name
        self._lines = lines
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-_LOG_LINE_CHARACTERS:]
        for line in lines:
            text = line.decode("utf-8", "replace").strip()[:_LOG_LINE_CHARACTERS]
            if text:
                self._lines.append(text)
                logger.info("worker of %s: %s", self._name, text)


@dataclass(slots=True)
class WorkerSockets:
    """The server's ends of what it shares with a worker, and the descriptors that are the worker's."""

    sock: socket.socket
    log_read: int
    inputs: int
    outputs: int
    theirs: list[int]

    @classmethod
    def create(cls) -> WorkerSockets:
        """New sockets, arenas and a log pipe."""
        ours, worker_sock = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        inputs, outputs = create_arena_fd(), create_arena_fd()
        log_read, log_write = os.pipe2(os.O_CLOEXEC)
        return cls(ours, log_read, inputs, outputs, [worker_sock.detach(), inputs, outputs, log_write])

    def hand_over(self, send: Callable[[list[int]], None]) -> None:
        """Sends the worker's descriptors and closes our copies of what only the worker uses."""
        try:
            send(self.theirs)
        finally:
            for fd in (self.theirs[0], self.theirs[3]):
                os.close(fd)

    async def connect(self, name: str, pid: int, kill: Callable[[], None]) -> Worker:
        """The worker behind these sockets."""
        loop = asyncio.get_running_loop()
        lines: deque[str] = deque(maxlen=_LOG_LINES)
        inputs, outputs = Arena(self.inputs), Arena(self.outputs)
        os.close(self.inputs)
        os.close(self.outputs)
        transport, link = await loop.create_unix_connection(lambda: WorkerLink(inputs, outputs), sock=self.sock)
        try:
            await loop.connect_read_pipe(lambda: _LogReader(name, lines), os.fdopen(self.log_read, "rb", buffering=0))
        except BaseException:
            # A worker that nobody knows ends by itself, once its socket is closed.
            transport.close()
            raise
        return Worker(name, pid, link, lines, kill)

    def close(self) -> None:
        """Closes our ends, when no worker came of them."""
        self.sock.close()
        for fd in (self.log_read, self.inputs, self.outputs):
            os.close(fd)
