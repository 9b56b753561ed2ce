"""How a peer says where it will listen, for peers that cannot be told to take any free port."""

from __future__ import annotations

import os
import socket


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def announced_port() -> int:
    """A free port, told to the process that started this one (see `common.servers`). All further output is log."""
    port = free_port()
    print(f"the server will listen on 127.0.0.1:{port}", flush=True)
    os.dup2(2, 1)
    return port
