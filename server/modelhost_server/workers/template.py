"""The server's end of the template process: starts it, asks it for workers, and hears from it how they end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import socket
import sys
from typing import Any

from ..errors import ModelhostError, Reason
from ..sandbox.launch import environment
from ..sandbox.rights import Rights
from .worker import Worker, WorkerSockets

logger = logging.getLogger(__name__)

_START_SECONDS = 60.0
_MESSAGE_BYTES = 64 << 10
_KILLED = -9
# A template that is not kept ends when it has had no worker for this long.
_IDLE_SECONDS = 1.0
# Workers compute nothing with numpy, whose threads would only make forking unsafe.
_FIXED = {"OPENBLAS_NUM_THREADS": "1"}


_TEMPLATE_ENDED = "the worker template ended"


class WorkerLostError(ModelhostError):
    """A new worker, or the template that was to start it, ended before it was there. Another try may do."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.WORKER_UNAVAILABLE, message, retry_after=1.0)


class Templates:
    """The template for workers that run TensorFlow, and the one for workers that do not: it is a quarter of the size.
    Each is started when it is first needed; the large one ends with the last of its workers.
    """

    def __init__(self, rights: Rights) -> None:
        self._heavy = WorkerTemplate("tensorflow", rights, _IDLE_SECONDS)
        self._light = WorkerTemplate("litert", rights)

    def get(self, with_tensorflow: bool) -> WorkerTemplate:
        """The template for workers with TensorFlow, or without."""
        return self._heavy if with_tensorflow else self._light

    async def stop(self) -> None:
        """Ends the templates and all their workers."""
        await asyncio.gather(self._heavy.stop(), self._light.stop())


class WorkerTemplate:
    """Starts workers by forking a process that is warm already, for one engine. Started again when it dies.

    Args:
        engine: what its workers run.
        rights: what they may do.
        idle_seconds: it ends when it had no worker for this long; None to keep it.
    """

    def __init__(self, engine: str, rights: Rights, idle_seconds: float | None = None) -> None:
        self._engine = engine
        self._rights = rights
        self._idle_seconds = idle_seconds
        self._requests = 0
        self._idle: asyncio.Task[None] | None = None
        self._ids = itertools.count(1)
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._ready: asyncio.Future[None] | None = None
        self._starting: dict[int, asyncio.Future[int]] = {}
        self._workers: dict[int, Worker] = {}
        # Ends reported before `start_worker` had the worker to tell.
        self._early_ends: dict[int, int] = {}
        self._lock = asyncio.Lock()
        self._watcher: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The template's process id, while it runs."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Starts the template, unless it runs; returns when it is warm.

        Raises:
            ModelhostError: WORKER_UNAVAILABLE when it does not start.
        """
        async with self._lock:
            if self._process is not None:
                return
            loop = asyncio.get_running_loop()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours.setblocking(False)
            self._ready = loop.create_future()
            with theirs:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable, "-P", "-m", "modelhost_server.runtime.template", str(theirs.fileno()), self._engine,
                    self._rights.to_json(), pass_fds=[theirs.fileno()], stdin=asyncio.subprocess.DEVNULL,
                    env=environment(**_FIXED), start_new_session=True,
                )  # fmt: skip
            self._control = ours
            loop.add_reader(ours, self._receive)
            self._watcher = loop.create_task(self._watch(self._process))
            try:
                await asyncio.wait_for(asyncio.shield(self._ready), _START_SECONDS)
            except TimeoutError:
                self._process.kill()
                raise ModelhostError(Reason.WORKER_UNAVAILABLE, "the worker template did not start in time") from None

    async def start_worker(self, name: str, config: dict[str, Any]) -> Worker:
        """A new worker for the scope called `name`.

        Raises:
            ModelhostError: WORKER_UNAVAILABLE when none can be started.
            WorkerLostError: the template ended meanwhile.
        """
        # From now on, so that the template does not end for want of workers.
        self._requests += 1
        try:
            await self.start()
            assert self._watcher is not None
            return await self._start_worker(name, config, self._watcher)
        finally:
            self._requests -= 1

    async def _start_worker(self, name: str, config: dict[str, Any], watcher: asyncio.Task[None]) -> Worker:
        worker_id = next(self._ids)
        started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._starting[worker_id] = started
        message = {"command": "start", "id": worker_id, "config": config}
        sockets = WorkerSockets.create()
        try:
            sockets.hand_over(lambda fds: self._send(message, fds))
            pid = await asyncio.wait_for(started, _START_SECONDS)
        except BaseException as error:
            # A worker that is there by now finds that nobody else is, and ends.
            sockets.close()
            if isinstance(error, ConnectionError):
                # Whoever tries again must find that this one is gone.
                await asyncio.shield(watcher)
                raise WorkerLostError(_TEMPLATE_ENDED) from None
            if not isinstance(error, OSError):
                raise
            raise ModelhostError(
                Reason.WORKER_UNAVAILABLE, f"no worker can be started ({type(error).__name__})", retry_after=1.0
            ) from None
        finally:
            self._starting.pop(worker_id, None)
        worker = await sockets.connect(name, pid, lambda: self._send({"command": "kill", "id": worker_id}))
        self._workers[worker_id] = worker
        if watcher.done():
            # It had nobody to tell of this one.
            self._ended(worker_id, _KILLED)
        elif worker_id in self._early_ends:
            self._ended(worker_id, self._early_ends.pop(worker_id))
        return worker

    async def stop(self) -> None:
        """Ends the template and all workers that are left."""
        process, self._process = self._process, None
        if process is None:
            return
        self._close_control()
        try:
            await asyncio.wait_for(process.wait(), 5.0)
        except TimeoutError:
            process.kill()
            await process.wait()
        if self._watcher is not None:
            await self._watcher

    def _send(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        if self._control is None:
            raise ConnectionError("the worker template has gone")
        socket.send_fds(self._control, [json.dumps(message).encode()], fds or [])

    def _receive(self) -> None:
        assert self._control is not None
        try:
            data = self._control.recv(_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            # The process has ended or is about to; `_watch` takes it from there.
            asyncio.get_running_loop().remove_reader(self._control)
            return
        message = json.loads(data)
        match message["event"]:
            case "ready":
                if self._ready is not None and not self._ready.done():
                    self._ready.set_result(None)
            case "started":
                started = self._starting.get(message["id"])
                if started is not None and not started.done():
                    started.set_result(message["pid"])
            case "ended":
                self._ended(message["id"], message["code"])

    def _ended(self, worker_id: int, code: int) -> None:
        worker = self._workers.pop(worker_id, None)
        if worker is None:
            self._early_ends[worker_id] = code
            return
        worker.on_end(code)
        if self._idle_seconds is not None and not self._workers:
            self._idle = asyncio.get_running_loop().create_task(self._end_when_idle(self._idle_seconds))

    async def _end_when_idle(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        # A new one starts when this one is gone, not before.
        async with self._lock:
            if not (self._workers or self._requests):
                await self.stop()

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        self._close_control()
        if self._process is process:
            self._process = None
            logger.error("the worker template ended unasked (status %d); it will be started again when needed", code)
        for future in (self._ready, *self._starting.values()):
            if future is not None and not future.done():
                future.set_exception(WorkerLostError(_TEMPLATE_ENDED))
        # The kernel kills the workers together with their parent.
        for worker_id in list(self._workers):
            self._ended(worker_id, _KILLED)
        self._early_ends.clear()

    def _close_control(self) -> None:
        control, self._control = self._control, None
        if control is not None:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(control)
            control.close()
