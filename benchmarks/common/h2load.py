"""Closed-loop load by h2load (Debian's nghttp2-client): in C, so that it takes little of the processors it shares.

It knows nothing of gRPC: a request is a prepared body, and an answer counts by its size, which a failed call's (which
is empty) does not have.
"""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from .window import Window

# As many as a service has channels; more callers share them.
_CONNECTIONS = 8
_HEADERS = {"te": "trailers", "content-type": "application/grpc", "grpc-timeout": "60S"}
_DONE = re.compile(r"requests: .* (\d+) done, (\d+) succeeded,")
_DATA = re.compile(r"\((\d+)\) data")


def framed(message: bytes) -> bytes:
    """A message as gRPC puts it into a body: not compressed, so many bytes."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def require_h2load() -> None:
    """Raises RuntimeError where there is none."""
    if shutil.which("h2load") is None:
        raise RuntimeError("h2load is not there: install it with `apt-get install nghttp2-client`")


def closed_loop(
    url: str, headers: Mapping[str, str], request: bytes, answer_bytes: int, callers: int, warm_up: float,
    seconds: float, server_cpu: Callable[[], float],
) -> Window:  # fmt: skip
    """Callers who wait for their answer before they call again, for some seconds after a warm-up.

    Raises:
        RuntimeError: calls failed, or none was answered in time.
    """
    connections = min(callers, _CONNECTIONS)
    with tempfile.TemporaryDirectory() as folder:
        body, log = Path(folder) / "body", Path(folder) / "log"
        body.write_bytes(framed(request))
        command = [
            "h2load", f"--duration={(warm_up + seconds) * 1000:.0f}ms", f"--clients={connections}",
            f"--max-concurrent-streams={callers // connections}", f"--data={body}", f"--log-file={log}",
            *(f"--header={name}: {value}" for name, value in {**_HEADERS, **headers}.items()), url,
        ]  # fmt: skip
        before, own = server_cpu(), _cpu_of_children()
        done = subprocess.run(command, capture_output=True, text=True)
        cpu, own = server_cpu() - before, _cpu_of_children() - own
        if done.returncode:
            raise RuntimeError(f"h2load failed: {(done.stderr or done.stdout)[-1000:]}")
        count = _answered(done.stdout, len(framed(b"")) + answer_bytes)
        rows = np.loadtxt(log, usecols=(0, 2), ndmin=2) / 1e6
    started, latencies = rows[:, 0], rows[:, 1]
    ended, begin = started + latencies, started.min() + warm_up
    within = (ended >= begin) & (ended < begin + seconds)
    return Window(latencies[within], seconds, cpu / count, own / (warm_up + seconds))


def _answered(output: str, answer_bytes: int) -> int:
    found = _DONE.search(output), _DATA.search(output)
    if None in found:
        raise RuntimeError(f"h2load said: {output[-1000:]}")
    (requests, data) = found
    assert requests is not None
    assert data is not None
    done, succeeded = map(int, requests.groups())
    # Answers under way at the end count as data, never as answers.
    failed = max(done - succeeded, done - int(data[1]) // answer_bytes)
    if not done:
        raise RuntimeError("no call was answered in time: give it more --seconds")
    if failed:
        raise RuntimeError(f"{failed} of {done} calls failed")
    return done


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
