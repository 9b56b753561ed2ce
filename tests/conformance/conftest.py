"""Fixtures of the clients' tests. They run where nothing of ours is installed, so servers, models and loads are made by
the Python that MODELHOST_PYTHON names.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

_READY = "modelhost is ready on "
_TESTS = Path(__file__).parents[1]

# pytest as everybody runs it finds no clients to import.
collect_ignore_glob = [] if "MODELHOST_PYTHON" in os.environ else ["*"]


class Server:
    """A server process; `address` is where it listens, `addresses` all the places, the REST door's URL last."""

    def __init__(self, *options: str) -> None:
        self._python = os.environ["MODELHOST_PYTHON"]
        self._cache = tempfile.TemporaryDirectory(prefix="modelhost-test-")
        self.cache = Path(self._cache.name)
        self._log = open(Path(self._cache.name) / "log", "w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [self._python, "-m", "modelhost_server", "--listen", "127.0.0.1:0", "--cache-dir", self._cache.name,
             "--no-tuning", *options],
            stdout=subprocess.PIPE, stderr=self._log, text=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        )  # fmt: skip
        assert self.process.stdout is not None
        self.addresses = [self._announced() for _ in range(1 + ("--rest" in options))]
        self.address = self.addresses[0]

    def _announced(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith(_READY), f"the server did not start: {line!r}\n{self.log()}"
        return line.removeprefix(_READY).strip()

    def log(self) -> str:
        """What the server has logged so far."""
        self._log.flush()
        return Path(self._log.name).read_text()

    def modelhost(self, *arguments: str) -> str:
        """What a command of ours prints: modelhost.modelhost("load", "simple", "/models/simple")."""
        done = subprocess.run(
            [self._python, "-c", "from modelhost.cli import main; main()", *arguments], capture_output=True, text=True,
            env={**os.environ, "MODELHOST_TARGET": self.address},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def load(self, name: str, path: Path | str, *options: str) -> None:
        """Loads a model, and waits for it."""
        self.modelhost("load", name, str(path), *options)

    def stop(self) -> None:
        """Ends it."""
        self.process.terminate()
        self.process.wait(40)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()
        self._cache.cleanup()


@pytest.fixture(scope="session")
def start_server() -> Iterator[Callable[..., Server]]:
    """Starts servers with options; they end with the session."""
    servers: list[Server] = []

    def start(*options: str) -> Server:
        servers.append(Server(*options))
        return servers[-1]

    yield start
    # Each takes a moment to drain.
    with ThreadPoolExecutor() as threads:
        list(threads.map(Server.stop, servers))


@pytest.fixture(scope="session")
def server(start_server: Callable[..., Server]) -> Server:
    """A server that the tests of a suite share."""
    return start_server()


@pytest.fixture(scope="session")
def built() -> Callable[[str], Path]:
    """The models that a builder in tests/models makes, as support.building has it."""

    def build(builder: str) -> Path:
        code = "import sys; from support.building import built; print(built(sys.argv[1]))"
        done = subprocess.run(
            [os.environ["MODELHOST_PYTHON"], "-c", code, builder], capture_output=True, text=True, check=True,
            cwd=_TESTS,
        )  # fmt: skip
        return Path(done.stdout.splitlines()[-1])

    return build
