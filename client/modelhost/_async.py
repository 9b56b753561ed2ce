"""The client. The modules `_async*.py` are written by hand; `_sync*.py` are generated from them."""

from __future__ import annotations

import grpc

from ._async_models import AsyncModels
from ._async_optimizations import AsyncOptimizations
from ._async_predictions import AsyncPredictions
from ._async_scopes import AsyncScopes
from ._async_streams import AsyncStreams
from ._types import DEFAULT_TIMEOUT


class AsyncClient(AsyncPredictions, AsyncStreams, AsyncModels, AsyncOptimizations, AsyncScopes):
    """A client of one modelhost server.

    It connects when it is first used and again whenever the connection breaks, and may be used by any number of
    callers at the same time. Loads, unloads, labels and questions that a server did not take (UNAVAILABLE) are sent
    up to twice more, predictions once more.

    Args:
        target: "host:port", or "unix:/path" for a server on this machine.
        timeout: seconds that a call may take which is not given a timeout of its own; None for no limit. Calls that
            may rightly take long (`load`, `unload`, `optimize`, `wait_tuned`,
            `update_scope`, `delete_scope`) have no limit unless given one.
        credentials: of an encrypted connection, e.g. `modelhost.tls(ca="ca.pem")`; None for a plain one.
        token: says who is calling; sent with every call. Over a plain connection it goes to this machine only.
        insecure: send it over a plain connection to other machines, too, e.g. where a service mesh encrypts what is on
            the way. Whoever can read it there can use it.
        max_message_bytes: size of the largest answer to accept; None for no limit.
        shared_memory: give and take tensors of 64 kB and more in memory that is shared with the server. Where that is
            not possible (the server is on another machine, or does not offer it) they are sent as ever.
    """

    def __init__(
        self,
        target: str = "localhost:8500",
        *,
        timeout: float | None = DEFAULT_TIMEOUT,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | None = None,
        insecure: bool = False,
        max_message_bytes: int | None = None,
        shared_memory: bool = False,
    ) -> None:
        super().__init__(
            target,
            timeout=timeout,
            credentials=credentials,
            token=token,
            insecure=insecure,
            max_message_bytes=max_message_bytes,
            shared_memory=shared_memory,
        )
        self._signatures = {}
