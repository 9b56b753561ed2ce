"""One connection to a server, and how calls are made over it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TypeVar

import grpc
import grpc.aio

from modelhost.v1 import scope_service_pb2

from ._channel import AsyncStubs, authorization, open_async_channel
from ._errors import DeadlineExceededError, UnreachableError, from_rpc_error
from ._shared_memory import is_on_this_machine
from ._types import CLIENT_TIMEOUT, Timeout

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class AsyncConnection:
    """One connection to a server; what the rooms of the client have in common."""

    def __init__(
        self,
        target: str,
        *,
        timeout: float | None,
        credentials: grpc.ChannelCredentials | None,
        token: str | None,
        insecure: bool,
        max_message_bytes: int | None,
        retry_predictions: bool,
    ) -> None:
        if token and credentials is None and not insecure and not is_on_this_machine(target):
            raise ValueError(
                f"the token would go to {target} in plain text; encrypt the connection (tls), or, where something else "
                "encrypts what is on the way, say that it may (insecure)"
            )
        self.target = target
        self.timeout = timeout
        self._channel = open_async_channel(target, credentials, max_message_bytes, retry_predictions)
        self._stubs = AsyncStubs(self._channel)
        self._metadata = authorization(token)

    async def close(self) -> None:
        """Closes the connection; calls under way are cancelled. Closing twice does no harm."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        """Nothing happens on entry; leaving the block closes the client."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Closes the client."""
        await self.close()

    async def ready(self, timeout: Timeout = CLIENT_TIMEOUT) -> None:
        """Waits until a server answers.

        Args:
            timeout: seconds to wait at most.

        Raises:
            UnreachableError: no server answered in that time.
        """
        request = scope_service_pb2.ListScopesRequest(page_size=1)
        try:
            await self._call(self._stubs.scopes.ListScopes, request, timeout, wait_for_ready=True)
        except DeadlineExceededError as error:
            raise UnreachableError(f"no server answered at {self.target} within the timeout") from error

    async def _call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        timeout: Timeout,
        *,
        metadata: tuple[tuple[str, str], ...] = (),
        wait_for_ready: bool = False,
    ) -> _Response:
        with self._told_errors():
            return await method(
                request,
                timeout=self._seconds(timeout),
                metadata=self._metadata + metadata,
                wait_for_ready=wait_for_ready,
            )

    @contextmanager
    def _told_errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.target) from error

    def _seconds(self, timeout: Timeout) -> float | None:
        return self.timeout if timeout is CLIENT_TIMEOUT else timeout
