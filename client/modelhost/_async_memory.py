"""The memory that a client shares with its server."""

from __future__ import annotations

import asyncio

import grpc

from modelhost.v1 import shared_memory_service_pb2

from ._async_connection import AsyncConnection
from ._errors import InvalidRequestError, ModelhostError, UnsupportedError
from ._regions import Region
from ._shared_memory import OutputSizes, is_on_this_machine
from ._types import CLIENT_TIMEOUT


class AsyncMemory(AsyncConnection):
    """Has the server know a region, when the client shares memory with it."""

    def __init__(
        self,
        target: str,
        *,
        timeout: float | None,
        credentials: grpc.ChannelCredentials | None,
        token: str | None,
        insecure: bool,
        max_message_bytes: int | None,
        shared_memory: bool,
    ) -> None:
        self._shares_memory = self._retries_predictions = shared_memory and is_on_this_machine(target)
        super().__init__(
            target,
            timeout=timeout,
            credentials=credentials,
            token=token,
            insecure=insecure,
            max_message_bytes=max_message_bytes,
            retry_predictions=not self._retries_predictions,
        )
        self._output_sizes = OutputSizes()
        self._current: Region | None = None
        self._changing = asyncio.Lock()

    async def close(self) -> None:
        """Closes the connection; calls under way are cancelled. Closing twice does no harm."""
        await super().close()
        self._shares_memory = False
        if self._current is not None:
            self._current.close()

    async def _region(self, *, confirmed: bool = False) -> Region | None:
        """A region that the server knows; None when no memory is shared.

        Args:
            confirmed: ask the server, for it may have been started again.
        """
        region = self._current
        if not self._shares_memory or (region is not None and not region.is_worn and not confirmed):
            return region if self._shares_memory else None
        async with self._changing:
            current = self._current
            if current is not None and not current.is_worn and (current is not region or await self._is_known(current)):
                return current
            self._forget(current)
            try:
                region = Region()
            except OSError:
                self._shares_memory = False
                return None
            try:
                await self._register(region)
            except BaseException as error:
                region.close()
                if not isinstance(error, ModelhostError):
                    raise
                # The server does not offer it, or does not see the file: it has another /dev/shm.
                if isinstance(error, UnsupportedError | InvalidRequestError):
                    self._shares_memory = False
                return None
            region.unlink()
            self._current = region
            return region

    def _forget(self, region: Region | None) -> None:
        """Has no further prediction use a region."""
        if region is not None:
            region.close()
            if self._current is region:
                self._current = None

    async def _is_known(self, region: Region) -> bool:
        # To register a region that the server knows changes nothing; the file of another it would not find any more.
        try:
            await self._register(region)
        except ModelhostError:
            return False
        return True

    async def _register(self, region: Region) -> None:
        request = shared_memory_service_pb2.RegisterRegionRequest(
            region=region.name, file_name=region.name, byte_size=region.byte_size
        )
        await self._call(self._stubs.memory.RegisterRegion, request, CLIENT_TIMEOUT)
