"""Servers to measure, as processes of their own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from types import TracebackType
from typing import Self

from . import ROOT

_START_SECONDS = 120
_STOP_SECONDS = 40


class Server:
    """A server process, which tells its address on its first line: "... is ready on ADDRESS"."""

    def __init__(self, module: str, *options: str) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *options], cwd=ROOT, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        assert self._process.stdout is not None
        watchdog = threading.Timer(_START_SECONDS, self._process.kill)
        watchdog.start()
        line = self._process.stdout.readline()
        watchdog.cancel()
        _, _, self.address = line.strip().rpartition(" is ready on ")
        if not self.address:
            self._process.kill()
            self._log.seek(0)
            raise RuntimeError(f"{module} did not start:\n{self._log.read().decode()[-4000:]}")
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def modelhost_server() -> Server:
    """The server as it comes, on a free port."""
    cache = ROOT / ".cache" / "bench-server"
    return Server("modelhost_server", "--listen", "127.0.0.1:0", "--cache-dir", str(cache))
