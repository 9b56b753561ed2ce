"""Servers to measure, as processes of their own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from . import ROOT
from .clocks import cpu_seconds
from .processes import MARK, cpu_seconds_of, marked

_START_SECONDS = 120
_STOP_SECONDS = 40


class Server:
    """A server process, which tells its address on its first line: "... on ADDRESS"."""

    def __init__(
        self, module: str, *options: str, python: str = sys.executable, environment: Mapping[str, str] | None = None
    ) -> None:
        self._module = module
        self._mark = uuid.uuid4().hex
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [python, "-m", module, *options], cwd=ROOT, stdout=subprocess.PIPE, stderr=self._log, text=True,
            env={**os.environ, **(environment or {}), MARK: self._mark},
        )  # fmt: skip
        assert self._process.stdout is not None
        watchdog = threading.Timer(_START_SECONDS, self._process.kill)
        watchdog.start()
        line = self._process.stdout.readline()
        watchdog.cancel()
        _, _, self.address = line.strip().rpartition(" on ")
        if not self.address:
            self._process.kill()
            raise RuntimeError(f"{module} did not start:\n{self.log()}")
        self.pid = self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended by itself."""
        return self._process.poll() is not None

    def log(self) -> str:
        """The end of what it wrote to standard error."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-4000:]

    def cpu_seconds(self) -> float:
        """Processor time that all its processes have taken."""
        return cpu_seconds_of(self._mark)

    def cpu_seconds_of_others(self) -> float:
        """The same without the process that was started itself: modelhost's workers."""
        return self.cpu_seconds() - cpu_seconds(self.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        # Some servers leave processes behind, which would take time from those measured next.
        for process in marked(self._mark):
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._log.close()


def modelhost_server(*options: str, cache: Path = ROOT / ".cache" / "bench-server") -> Server:
    """The server as it comes, on a free port."""
    return Server("modelhost_server", "--listen", "127.0.0.1:0", "--cache-dir", str(cache), *options)
