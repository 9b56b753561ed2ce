"""A system that runs, and how to put load on it: a server, or a model in the calling process itself."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import grpc
import numpy as np

from ..common.cases import Case
from ..common.expected import is_right
from ..common.h2load import closed_loop
from ..common.load import Load
from ..common.servers import Server
from ..common.window import Window
from .protocols import NATIVE
from .protocols import Protocol as WireProtocol

# Of each measurement, before what counts.
WARM_UP = 0.4
# Of each case, once a server has started.
_FIRST_SECONDS = 1.0
_START_SECONDS = 120.0
_RETRY_SECONDS = 0.3
_CHANNEL = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1),
            ("grpc.max_reconnect_backoff_ms", 300)]  # fmt: skip
# Names of metadata and their values, for a case.
Metadata = Callable[[Case], dict[str, str]]


class WrongAnswer(Exception):
    """A system does not answer what TensorFlow answers."""


class Running(Protocol):
    """What can be measured."""

    def check(self, case: Case) -> None:
        """Raises WrongAnswer, or what a failed call raises."""

    def closed(self, case: Case, callers: int, seconds: float) -> Window:
        """Callers who wait for their answer before they call again."""

    def open(self, case: Case, rate: float, seconds: float) -> Window:
        """So many calls a second, whatever comes back."""


def no_metadata(case: Case) -> dict[str, str]:
    """Of servers that need none."""
    return {}


class Hosted:
    """The models in a server, called over gRPC.

    Args:
        cpu: processor time that counts; all the server's when None.
    """

    def __init__(
        self, server: Server, protocol: WireProtocol, metadata: Metadata = no_metadata,
        cpu: Callable[[], float] | None = None,
    ) -> None:  # fmt: skip
        self._server, self._protocol, self._metadata = server, protocol, metadata
        self._cpu = cpu or server.cpu_seconds
        self._answer_bytes: dict[str, int] = {}

    def await_right(self, case: Case) -> None:
        """Waits until the server, which may be on its way still, answers rightly."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                self.check(case)
                return
            except (grpc.RpcError, WrongAnswer) as error:
                if self._server.has_ended or time.monotonic() > deadline:
                    raise RuntimeError(f"{case.name}: {_brief(error)}; its log ends: {self._server.log()}") from error
            time.sleep(_RETRY_SECONDS)

    def check(self, case: Case) -> None:
        """See Running; with a real gRPC client."""
        with grpc.insecure_channel(self._server.address, options=_CHANNEL) as channel:
            answer = channel.unary_unary(self._protocol.path)(
                self._request(case), metadata=tuple(self._metadata(case).items()), timeout=_START_SECONDS
            )
        if not is_right(case, self._protocol.answer(answer)):
            raise WrongAnswer(f"{case.name}: not TensorFlow's answer")
        self._answer_bytes[case.name] = len(answer)

    def warm_up(self, case: Case) -> None:
        """Has many callers call, so that what is learnt under load has been learnt.

        With inputs that differ: modelhost batches what was found to be the same in a batch and alone, and calls that
        are all alike say nothing of that.
        """
        random = np.random.default_rng(1)
        metadata = tuple(self._metadata(case).items())
        deadline = time.monotonic() + _FIRST_SECONDS
        with grpc.insecure_channel(self._server.address, options=_CHANNEL) as channel:
            call = channel.unary_unary(self._protocol.path)
            while time.monotonic() < deadline:
                inputs = [case.x * random.random(dtype=np.float32) for _ in range(max(case.callers))]
                requests = [self._protocol.request(case.model.name, x) for x in inputs]
                answers = [call.future(request, metadata=metadata, timeout=_START_SECONDS) for request in requests]
                for answer in answers:
                    answer.result()

    def closed(self, case: Case, callers: int, seconds: float) -> Window:
        """See Running. `check` must have been called."""
        return closed_loop(
            f"http://{self._server.address}{self._protocol.path}", self._metadata(case), self._request(case),
            self._answer_bytes[case.name], callers, WARM_UP, seconds, self._cpu,
        )  # fmt: skip

    def open(self, case: Case, rate: float, seconds: float) -> Window:
        """See Running."""
        with tempfile.NamedTemporaryFile() as file:
            Path(file.name).write_bytes(self._request(case))
            metadata = [f"{name}={value}" for name, value in self._metadata(case).items()]
            arguments = (self._server.address, file.name, "open", str(rate), self._protocol.path, *metadata)
            with Load("benchmarks.common.generator", *arguments) as load:
                time.sleep(WARM_UP)
                begin = time.monotonic()
                own, cpu = load.cpu_seconds(), self._cpu()
                time.sleep(seconds)
                end = time.monotonic()
                own, cpu = load.cpu_seconds() - own, self._cpu() - cpu
                # For those that are under way.
                time.sleep(WARM_UP)
                latencies = load.stop().begun_within(begin, end)
        # Calls that it could not answer in time may keep it busy for some more.
        self.await_right(case)
        failed, answered = np.isnan(latencies), int(np.isfinite(latencies).sum())
        return Window(
            np.where(failed, np.inf, latencies), end - begin, cpu / answered if answered else np.nan,
            own / (end - begin), int(failed.sum()),
        )  # fmt: skip

    def _request(self, case: Case) -> bytes:
        return self._protocol.request(case.model.name, case.x)


class BySdk(Hosted):
    """The models in modelhost, called by a process that uses its client (see `sdk_caller`)."""

    def __init__(self, server: Server, way: str) -> None:
        super().__init__(server, NATIVE)
        self._way = way

    def closed(self, case: Case, callers: int, seconds: float) -> Window:
        """See Running."""
        return _called(
            ["benchmarks.common.sdk_caller", self._way, self._server.address, case.model.name], case, callers, seconds,
            self._cpu,
        )  # fmt: skip


class Direct:
    """The models in the calling process, called by its threads: what no server can be faster than.

    Args:
        way: see `direct_caller`.
        path: of what it calls, for a case.
    """

    def __init__(self, way: str, path: Callable[[Case], str]) -> None:
        self._way, self._path = way, path

    def check(self, case: Case) -> None:
        """See Running: it is what others are compared with."""

    def closed(self, case: Case, callers: int, seconds: float) -> Window:
        """See Running."""
        return _called(["benchmarks.direct_caller", self._way, self._path(case)], case, callers, seconds)

    def open(self, case: Case, rate: float, seconds: float) -> Window:
        """See Running."""
        raise NotImplementedError("a loop has no rate")


def _called(
    command: list[str], case: Case, callers: int, seconds: float, server_cpu: Callable[[], float] | None = None
) -> Window:
    """What a process that calls in a closed loop has seen. Its own time counts where there is no server."""
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file.name, case.x)
        with Load(*command, file.name, str(callers)) as load:
            cpu_of = server_cpu or load.cpu_seconds
            time.sleep(WARM_UP)
            begin, cpu, own = time.monotonic(), cpu_of(), load.cpu_seconds()
            time.sleep(seconds)
            end, cpu, own = time.monotonic(), cpu_of() - cpu, load.cpu_seconds() - own
            latencies = load.stop().ended_within(begin, end)
    return Window(latencies, end - begin, cpu / max(1, len(latencies)), own / (end - begin) if server_cpu else 0.0)


def _brief(error: Exception) -> str:
    return error.details() if isinstance(error, grpc.Call) else str(error)
