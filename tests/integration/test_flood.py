"""A flood: a thousand connections, ten times what the server can do, for a minute."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import flooding
from support.calls import eventually, load, scope_of, unload
from support.server import ServerProcess, Stubs

CONNECTIONS, GENERATORS, SECONDS, TIMES = 1000, 4, 60, 10
# Tens of milliseconds each: what the processes of this test cost themselves is no part of the flood.
STEPS = 1000
MAX_QUEUE = 200
GROWTH_BYTES = 256 << 20


def callers(address: str, connections: int, rate: float, seconds: float) -> subprocess.Popen[bytes]:
    arguments = [address, "slow", connections, rate, seconds, STEPS]
    # They step back behind the server, as if they were on other machines.
    command = ["nice", "-n", "10", sys.executable, flooding.__file__, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def told(process: subprocess.Popen[bytes]) -> dict[str, list[float]]:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    return json.loads(output)


def throughput(address: str, seconds: float = 8) -> float:
    """Predictions a second of eight callers in closed loops."""
    answers = told(callers(address, 8, 0, seconds))
    assert answers.keys() == {"OK"}
    return len(answers["OK"]) / seconds


def percentiles(values: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=1000)
    return {"count": len(values), "p50": cuts[499], "p90": cuts[899], "p99": cuts[989], "max": max(values)}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_flood_is_survived(models: Path, record_property: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with ServerProcess("--max-in-flight", "1", "--max-queue", str(MAX_QUEUE)) as server:
        stubs = Stubs(server.address)
        load(stubs, "default", "slow", models / "slow")
        process = psutil.Process(server.process.pid)
        throughput(server.address, 2)
        before, memory = throughput(server.address), process.memory_info().rss
        generators = [
            callers(server.address, CONNECTIONS // GENERATORS, TIMES * before / GENERATORS, SECONDS)
            for _ in range(GENERATORS)
        ]
        # A calm caller beside them: how long the server takes, not how long the generators take to notice.
        calm = callers(server.address, 1, 10, SECONDS)
        most = memory
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            most = max(most, process.memory_info().rss)
            time.sleep(0.5)
        answers: dict[str, list[float]] = {}
        for generator in generators:
            for outcome, times in told(generator).items():
                answers.setdefault(outcome, []).extend(times)
        calm_answers = told(calm)
        eventually(lambda: scope_of(stubs, "default").statistics.queued == 0, 60)
        after = throughput(server.address)
        report = {
            "predictions a second before, after": [round(before, 1), round(after, 1)],
            "asked a second": sum(map(len, answers.values())) / SECONDS,
            "answered a second": len(answers["OK"]) / SECONDS,
            "server MB before, most": [memory >> 20, most >> 20],
            "milliseconds": {outcome: percentiles(times) for outcome, times in answers.items()},
            "milliseconds of a calm caller": {o: percentiles(t) for o, t in calm_answers.items() if len(t) > 1},
        }
        with capsys.disabled():
            print(json.dumps(report, indent=1))
        record_property("flood", json.dumps(report))
        assert answers.keys() == {"OK", "RESOURCE_EXHAUSTED"}, "refused or answered, and nothing else"
        assert calm_answers.keys() <= {"OK", "RESOURCE_EXHAUSTED"}
        assert len(answers["RESOURCE_EXHAUSTED"]) > len(answers["OK"])
        # Not after a turn in the queue.
        assert statistics.median(answers["RESOURCE_EXHAUSTED"]) < statistics.median(answers["OK"])
        assert most - memory < GROWTH_BYTES
        assert len(answers["OK"]) / SECONDS > 0.3 * before
        assert after > 0.7 * before
        assert unload(stubs, "default", "slow") == [1]
        stubs.close()
