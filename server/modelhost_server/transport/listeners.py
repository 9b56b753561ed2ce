"""Listening sockets, for transports that want them made."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
from collections.abc import Sequence

_BACKLOG = 1024
_ANY_PORT = "0"
_MAX_PORT = 65_535


def host_and_port(address: str) -> tuple[str, str]:
    """The parts of HOST:PORT.

    Raises:
        OSError: it is something else.
    """
    host, _, port = address.rpartition(":")
    if not host or not re.fullmatch("[0-9]{1,5}", port) or int(port) > _MAX_PORT:
        raise OSError("expected HOST:PORT or unix:PATH")
    return host, port


def socket_path(address: str) -> str:
    """The path of unix:PATH.

    Raises:
        OSError: there is none.
    """
    path = address.removeprefix("unix:").removeprefix("//")
    if not path:
        raise OSError("expected HOST:PORT or unix:PATH")
    return path


def check_free(addresses: Sequence[str]) -> None:
    """Finds out whether somebody listens already, which those who share their ports would not be told.

    Raises:
        OSError: somebody does, or it is no address.
    """
    probe = Listeners(reuse_port=False)
    probe.open(addresses)
    probe.close()


class Listeners:
    """The sockets of a server's addresses."""

    def __init__(self, reuse_port: bool) -> None:
        self._reuse_port = reuse_port
        self._paths: list[str] = []
        self.tcp: list[socket.socket] = []
        self.unix: list[socket.socket] = []

    def open(self, addresses: Sequence[str]) -> list[str]:
        """Listens on all; answers them with their real ports.

        Raises:
            OSError: one of them cannot be listened on.
        """
        opened = []
        for address in addresses:
            try:
                opened.append(self._open_unix(address) if address.startswith("unix:") else self._open_tcp(address))
            except OSError as error:
                self.close()
                raise OSError(f"cannot listen on {address}: {error.strerror or error}") from None
        return opened

    def close(self) -> None:
        """Ends the listening, for whoever else holds these sockets as well, and removes the files of the Unix ones."""
        for listener in (*self.tcp, *self.unix):
            # A copy of a socket that listens and is not accepted from keeps callers waiting; this one is over for all.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for path in self._paths:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        self._paths.clear()

    def _open_tcp(self, address: str) -> str:
        host, port = host_and_port(address)
        # A name may stand for several addresses (localhost: one of IPv4, one of IPv6); they get one port.
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, (ip, number, *_) in found:
            listener = socket.create_server(
                (ip, int(port if port != _ANY_PORT else number)), family=family, backlog=_BACKLOG,
                reuse_port=self._reuse_port, dualstack_ipv6=family == socket.AF_INET6 and ip == "::",
            )  # fmt: skip
            self.tcp.append(listener)
            port = str(listener.getsockname()[1])
        return f"{host}:{port}"

    def _open_unix(self, address: str) -> str:
        path = socket_path(address)
        _remove_stale(path)
        listener = socket.socket(socket.AF_UNIX)
        self.unix.append(listener)
        listener.bind(path)
        self._paths.append(path)
        listener.listen(_BACKLOG)
        return address


def _remove_stale(path: str) -> None:
    """Removes the file of a server that has gone; one that is there is told by `bind`."""
    if not os.path.exists(path) or not stat.S_ISSOCK(os.stat(path).st_mode):
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
