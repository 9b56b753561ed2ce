"""Which transports there are."""

from __future__ import annotations

from collections.abc import Sequence

from .base import Transport, TransportName, TransportOptions
from .grpcio import GrpcioTransport
from .routes import Route


def make_transport(name: TransportName, routes: Sequence[Route], options: TransportOptions) -> Transport:
    """The transport of that name.

    Raises:
        OSError: the TLS files are not right.
    """
    if options.tls is not None:
        options.tls.context()
    if name == "grpcio":
        return GrpcioTransport(routes, options)
    # Whoever does not use it need not have it in memory.
    from .h2corn import H2cornTransport

    return H2cornTransport(routes, options)
