"""Starts the real server, as a user would, on a free port."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
import psutil
import pytest
from modelhost.v1 import (
    model_service_pb2_grpc,
    optimization_service_pb2_grpc,
    prediction_service_pb2_grpc,
    scope_service_pb2,
    scope_service_pb2_grpc,
)

_READY = "modelhost is ready on "
_START_SECONDS = 60

# For tests of what a transport must do: each runs once with each.
BOTH_TRANSPORTS = pytest.mark.parametrize("transport", ["grpcio", "h2corn"], indirect=True, scope="session")


def _children(template: psutil.Process) -> list[psutil.Process]:
    try:
        return template.children()
    except psutil.NoSuchProcess:
        # One that has no workers ends.
        return []


class ServerProcess:
    """A server process; `address` is where it listens, `addresses` all the places, the REST door's URL last."""

    def __init__(self, *options: str, listen: Sequence[str] = ("127.0.0.1:0",), cache_dir: Path | None = None) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="modelhost-test-")
        cache = cache_dir or Path(self._directory.name)
        listening = [part for address in listen for part in ("--listen", address)]
        self._log = open(Path(self._directory.name) / "log", "w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "modelhost_server", *listening, "--cache-dir", str(cache), "--no-tuning", *options],
            stdout=subprocess.PIPE, stderr=self._log, text=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        )  # fmt: skip
        assert self.process.stdout is not None
        watchdog = threading.Timer(_START_SECONDS, self.process.kill)
        watchdog.start()
        self.addresses = []
        for _ in range(len(listen) + ("--rest" in options)):
            line = self.process.stdout.readline()
            if not line.startswith(_READY):
                log = self.log()
                self.process.kill()
                self._clean_up()
                watchdog.cancel()
                raise AssertionError(f"the server did not start: {line!r}\n{log}")
            self.addresses.append(line.removeprefix(_READY).strip())
        watchdog.cancel()
        self.address = self.addresses[0]

    def log(self) -> str:
        """What the server has logged so far."""
        self._log.flush()
        return Path(self._log.name).read_text(errors="replace")

    def processes(self) -> list[psutil.Process]:
        """The server, its templates and its workers."""
        server = psutil.Process(self.process.pid)
        return [server, *server.children(recursive=True)]

    def templates(self) -> list[psutil.Process]:
        """The processes that start workers, the ones that have some first."""
        children = psutil.Process(self.process.pid).children()
        return sorted(children, key=lambda template: not _children(template))

    def fronts(self) -> list[psutil.Process]:
        """The front processes."""
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if "modelhost_server.transport.front" in child.cmdline()]

    def workers(self) -> list[psutil.Process]:
        """The worker processes."""
        return [worker for template in self.templates() for worker in _children(template)]

    def stop(self, number: int = signal.SIGTERM, timeout: float = 40) -> int:
        """Sends a signal and answers the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout)

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            self.stop()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self._clean_up()

    def _clean_up(self) -> None:
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()
        self._directory.cleanup()


OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)


class _WithToken(
    grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamStreamClientInterceptor
):
    """Gives calls a token."""

    def __init__(self, token: str) -> None:
        self._metadata = [("authorization", f"Bearer {token}")]

    def _intercept(self, go_on: Any, details: Any, request: Any) -> Any:
        return go_on(details._replace(metadata=[*(details.metadata or ()), *self._metadata]), request)

    intercept_unary_unary = intercept_unary_stream = intercept_stream_stream = _intercept


class Stubs:
    """The generated stubs over one channel: for tests that must say what the SDK would never say. Channels of a process
    share a connection unless `options` is OWN_CONNECTION. With a token, every call has it.
    """

    def __init__(self, address: str, options: Sequence[tuple[str, int]] = (), token: str = "") -> None:
        self.channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1), *options])
        if token:
            self.channel = grpc.intercept_channel(self.channel, _WithToken(token))
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)
        self.predictions = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.scopes = scope_service_pb2_grpc.ScopeServiceStub(self.channel)
        self.optimizations = optimization_service_pb2_grpc.OptimizationServiceStub(self.channel)

    def create_scope(self, scope: str) -> None:
        """Creates a scope."""
        self.scopes.CreateScope(scope_service_pb2.CreateScopeRequest(scope=scope), timeout=30)

    def close(self) -> None:
        """Closes the channel."""
        self.channel.close()
