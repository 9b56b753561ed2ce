"""Front processes, which take calls from callers and hand them to this process, the primary.

Only reading and writing HTTP/2 is theirs; hosting, limits and batching stay in one place.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from .base import TransportName, TransportOptions
from .frames import FrameLink, Kind
from .relay import Relay
from .routes import Route

logger = logging.getLogger(__name__)

_START_SECONDS = 60.0
_RESTART_SECONDS = 1.0
# After the drain's time, for fronts to end what they still have.
_END_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class FrontConfig:
    """What all fronts are told."""

    transport: TransportName
    options: TransportOptions
    addresses: Sequence[str]
    log_level: str
    log_json: bool

    def to_json(self, routes: Sequence[Route]) -> bytes:
        """As it is sent to a front."""
        tls = self.options.tls
        files = (tls.certificate, tls.key, tls.client_ca) if tls else ()
        return json.dumps(
            {
                "transport": self.transport,
                "addresses": self.addresses,
                "options": {name: getattr(self.options, name) for name in self.options.__slots__ if name != "tls"},
                "tls": [path and str(path) for path in files],
                "log_level": self.log_level,
                "log_json": self.log_json,
                "routes": [(route.path, route.streams_requests, route.streams_responses) for route in routes],
            }
        ).encode()


class Fronts:
    """Keeps as many front processes as were asked for; one that dies is started again."""

    def __init__(self, count: int, routes: Sequence[Route], config: FrontConfig) -> None:
        self._count = count
        self._routes = routes
        self._config = config.to_json(routes)
        self._running: set[_Front] = set()
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = False

    async def start(self) -> None:
        """Starts all; returns when all listen.

        Raises:
            OSError: one does not start.
        """
        fronts = await asyncio.gather(*(self._start_one() for _ in range(self._count)))
        self._keepers = [asyncio.create_task(self._keep(front)) for front in fronts]

    async def stop(self, seconds: float) -> None:
        """Has them refuse new calls and end when those under way are answered, at the latest after so many seconds."""
        self._stopping = True
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*(front.stop(seconds) for front in tuple(self._running)))

    async def _start_one(self) -> _Front:
        front = _Front(self._routes)
        self._running.add(front)
        try:
            await front.start(self._config)
        except BaseException:
            self._running.discard(front)
            raise
        return front

    async def _keep(self, front: _Front) -> None:
        while True:
            code = await front.wait()
            self._running.discard(front)
            logger.error("a front process ended unasked (status %d); another one is started", code)
            while True:
                await asyncio.sleep(_RESTART_SECONDS)
                try:
                    front = await self._start_one()
                    break
                except OSError as error:
                    logger.error("%s; trying again", error)


class _Front:
    """One process, and the link to it."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._link = FrameLink(self._handle, self._lost)
        self._relay = Relay(routes, self._link)
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, config: bytes) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", f"{__package__}.front", str(theirs.fileno()),
                pass_fds=[theirs.fileno()], stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
        await asyncio.get_running_loop().create_unix_connection(lambda: self._link, sock=ours)
        self._link.send(Kind.CONFIG, 0, config)
        try:
            await asyncio.wait_for(asyncio.shield(self._ready), _START_SECONDS)
        except BaseException as error:
            self._kill()
            if isinstance(error, TimeoutError):
                raise OSError("a front process did not start in time") from None
            raise

    async def wait(self) -> int:
        assert self._process is not None
        return await self._process.wait()

    async def stop(self, seconds: float) -> None:
        self._link.send(Kind.DRAIN, 0, json.dumps(seconds).encode())
        try:
            await asyncio.wait_for(self.wait(), seconds + _END_SECONDS)
        except TimeoutError:
            self._kill()
            await self.wait()

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
        self._link.close()

    def _handle(self, kind: int, call_id: int, body: memoryview) -> None:
        if kind == Kind.READY:
            self._ready.set_result(None)
        else:
            self._relay.handle(kind, call_id, body)

    def _lost(self) -> None:
        if not self._ready.done():
            self._ready.set_exception(OSError("a front process ended before it was ready; the log says why"))
        self._relay.lost()
