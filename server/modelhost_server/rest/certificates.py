"""Has uvicorn tell of client certificates, as ASGI's TLS extension does; by itself it does not."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from .http1 import Http1Protocol

# What stands for something else in a name of RFC 4514.
_SPECIAL = re.compile(r'[,+"\\<>;=# ]')


class CertificateProtocol(Http1Protocol):
    """HTTP/1.1 of one connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        super().connection_made(transport)
        connection = transport.get_extra_info("ssl_object")
        name = _common_name(connection.getpeercert() or {}) if connection is not None else ""
        if not name:
            return
        tls = {"client_cert_name": "CN=" + _SPECIAL.sub(lambda found: "\\" + found[0], name)}
        application: Any = self.app

        async def told(scope: Any, receive: Any, send: Any) -> None:
            scope.setdefault("extensions", {})["tls"] = tls
            await application(scope, receive, send)

        self.app = told


def _common_name(certificate: dict[str, Any]) -> str:
    names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    return names[0] if names else ""
