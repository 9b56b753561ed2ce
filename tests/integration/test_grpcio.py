"""What is told to gRPC's core, which only the transport of its own has."""

from support.frames import Connection
from support.server import ServerProcess


def test_a_caller_that_acknowledges_no_settings_is_cut_off():
    """Until then the core knows no limit of metadata but its own of 16 MB."""
    with ServerProcess("--transport", "grpcio") as server, Connection(server.address) as caller:
        caller.socket.settimeout(25)
        said = b"".join(iter(lambda: caller.socket.recv(4096), b""))
    assert b"settings_timeout" in said
