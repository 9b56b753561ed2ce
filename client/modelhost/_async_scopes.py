"""Which scopes there are."""

from __future__ import annotations

from typing import Unpack

from google.protobuf.field_mask_pb2 import FieldMask

from modelhost.v1 import scope_service_pb2

from ._async_connection import AsyncConnection
from ._errors import InvalidRequestError
from ._names import check_name
from ._scope_messages import scope_config_message, scope_info
from ._scope_types import ScopeInfo, ScopeOptions
from ._types import CLIENT_TIMEOUT, Timeout

_PAGE_SIZE = 1000


class AsyncScopes(AsyncConnection):
    """Creates, changes and deletes scopes."""

    async def scopes(self, *, timeout: Timeout = CLIENT_TIMEOUT) -> list[ScopeInfo]:
        """Lists all scopes by name.

        Args:
            timeout: seconds, for each page of a thousand scopes.
        """
        found: list[ScopeInfo] = []
        request = scope_service_pb2.ListScopesRequest(page_size=_PAGE_SIZE)
        while True:
            response = await self._call(self._stubs.scopes.ListScopes, request, timeout)
            found += map(scope_info, response.scopes)
            request.page_token = response.next_page_token
            if not request.page_token:
                return found

    async def scope(self, scope: str = "default", *, timeout: Timeout = CLIENT_TIMEOUT) -> ScopeInfo:
        """Describes a scope.

        Args:
            scope: its name.
            timeout: seconds.

        Raises:
            NotFoundError: there is no such scope.
        """
        request = scope_service_pb2.GetScopeRequest(scope=check_name("scope", scope))
        response = await self._call(self._stubs.scopes.GetScope, request, timeout)
        return scope_info(response.scope)

    async def create_scope(
        self,
        scope: str,
        *,
        exist_ok: bool = False,
        timeout: Timeout = CLIENT_TIMEOUT,
        **options: Unpack[ScopeOptions],
    ) -> ScopeInfo:
        """Creates a scope and starts its worker.

        >>> info = await client.create_scope("team-a", max_queue=50)
        >>> info.config.max_queue
        50
        >>> await client.delete_scope("team-a")

        Args:
            scope: its name.
            exist_ok: it may exist, if its settings are these.
            timeout: seconds.
            options: settings, as in `ScopeConfig`; the server's defaults for the others.

        Raises:
            AlreadyExistsError: it exists, with other settings if `exist_ok`.
            InvalidRequestError: a setting is unknown or out of range.
        """
        request = scope_service_pb2.CreateScopeRequest(
            scope=check_name("scope", scope), config=scope_config_message(options), allow_existing=exist_ok
        )
        response = await self._call(self._stubs.scopes.CreateScope, request, timeout)
        return scope_info(response.scope)

    async def update_scope(
        self, scope: str, *, timeout: float | None = None, **options: Unpack[ScopeOptions]
    ) -> ScopeInfo:
        """Changes settings of a scope and leaves the others as they are.

        Where a running worker cannot take the change, a new one loads the scope's models and takes over; that can
        take a while.

        Args:
            scope: its name.
            timeout: seconds to wait; None waits for as long as it takes.
            options: the settings to change, as in `ScopeConfig`; 0 or None goes back to the server's default.

        Raises:
            NotFoundError: there is no such scope.
            InvalidRequestError: a setting is unknown or out of range, or none is given.
        """
        config = scope_config_message(options)
        # An empty mask would mean every setting.
        mask = FieldMask(paths=sorted(options))
        if not mask.paths:
            raise InvalidRequestError("expected settings to change; got none", reason="INVALID_REQUEST")
        request = scope_service_pb2.UpdateScopeRequest(
            scope=check_name("scope", scope), config=config, update_mask=mask
        )
        response = await self._call(self._stubs.scopes.UpdateScope, request, timeout)
        return scope_info(response.scope)

    async def delete_scope(
        self, scope: str, *, force: bool = False, missing_ok: bool = False, timeout: float | None = None
    ) -> None:
        """Deletes a scope and ends its worker.

        Args:
            scope: its name.
            force: unload its models first.
            missing_ok: there may be no such scope.
            timeout: seconds to wait; None waits for as long as it takes.

        Raises:
            NotFoundError: there is no such scope.
            FailedPreconditionError: it holds models.
            InvalidRequestError: it is the scope "default".
        """
        request = scope_service_pb2.DeleteScopeRequest(
            scope=check_name("scope", scope), force=force, allow_missing=missing_ok
        )
        await self._call(self._stubs.scopes.DeleteScope, request, timeout)
