"""The server under test: started again on the same data, cache and port whenever it was killed."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import psutil
from support.disks import mount, unmount

from .judge import Judge

READY = "modelhost is ready on "
START_SECONDS = 60.0
STOP_SECONDS = 60.0


class ServerUnderTest:
    """A server process; `starts` counts how often it was started."""

    def __init__(self, data: Path, log: Path, options: Sequence[str], judge: Judge) -> None:
        self.address = "127.0.0.1:0"
        self.starts = 0
        self.log = log
        self._data, self._options, self._judge = data, options, judge
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> bool:
        """Starts it, and waits until it is ready; False when it ended instead."""
        with open(self.log, "a") as log:
            log.write(f"--- start {self.starts + 1}\n")
            log.flush()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "modelhost_server", "--listen", self.address, "--data-dir",
                 str(self._data / "data"), "--cache-dir", str(self._data / "cache"), *self._options],
                stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
            )  # fmt: skip
        assert self._process.stdout is not None
        watchdog = threading.Timer(START_SECONDS, self._process.kill)
        watchdog.start()
        # It says nothing more.
        with self._process.stdout as stdout:
            line = stdout.readline()
        watchdog.cancel()
        if not line.startswith(READY):
            self._process.wait()
            return False
        self.address = line.removeprefix(READY).strip()
        self.starts += 1
        return True

    @property
    def has_ended(self) -> bool:
        """Whether it has ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def processes(self) -> dict[str, list[psutil.Process]]:
        """Its templates, workers and converters."""
        found: dict[str, list[psutil.Process]] = {"template": [], "worker": [], "converter": []}
        assert self._process is not None
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self._process.pid).children():
                with contextlib.suppress(psutil.Error):
                    modules = " ".join(child.cmdline())
                    if "modelhost_server.runtime.template" in modules:
                        found["template"].append(child)
                        found["worker"] += child.children()
                    elif "modelhost_server.converter" in modules:
                        found["converter"].append(child)
        return found

    def kill(self) -> None:
        """As by kill -9; all processes of its must be gone with it."""
        assert self._process is not None
        with contextlib.suppress(psutil.Error):
            family = psutil.Process(self._process.pid).children(recursive=True)
            self._process.kill()
            self._process.wait()
            _, alive = psutil.wait_procs(family, timeout=10)
            for process in alive:
                self._judge.violate(f"an orphan was left: {process}")

    def stop(self) -> None:
        """Ends it as its operator would; it must end well."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if code:
            self._judge.violate(f"at the end, the server ended with {code}")


class Disk:
    """Where data and cache are: a small file system of its own, if this user may mount one."""

    MEGABYTES = 160

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self.is_small = mount(directory, f"{self.MEGABYTES}m")

    def fill(self) -> None:
        """Takes all the room there is."""
        with contextlib.suppress(OSError), open(self.directory / "filler", "ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12):
                with contextlib.suppress(OSError):
                    file.writelines(itertools.repeat(b"\0" * size))

    def free(self) -> None:
        """Gives it back."""
        (self.directory / "filler").unlink(missing_ok=True)

    def close(self) -> None:
        """Unmounts it."""
        if self.is_small:
            unmount(self.directory)
