"""One run: the models, who changes and who calls them, what befalls the server, and what came of it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import modelhost

from .callers import call_in_threads
from .faults import Faults
from .judge import Judge
from .managers import ModelManager, ScopeManager
from .oracle import Model
from .server import Disk, ServerUnderTest

MEGABYTE = 1 << 20
PROCESSES = 2
# What there is at the start: scopes with their options, and models with the engine that they are loaded on.
SCOPES: dict[str, dict[str, int]] = {"default": {}, "twins": {"replicas": 2}}
ENGINES = {"default/a": None, "default/b": "tensorflow", "twins/c": None, "twins/d": "litert"}
# A scope that has room for two of its three models.
TIGHT, TIGHT_OPTIONS, LARGE = "tight", {"memory_limit_bytes": 42 * MEGABYTE}, 3
FLEETING = "fleeting"


class Chaos:
    """A run, in a directory of its own."""

    def __init__(self, directory: Path, seed: int, options: Sequence[str] = (), is_short: bool = False) -> None:
        self._seed = seed
        self._directory = directory
        self._is_short = is_short
        self._scopes = SCOPES if is_short else {**SCOPES, TIGHT: TIGHT_OPTIONS}
        self.judge = Judge(directory / "operations.jsonl")
        self._disk = Disk(directory / "disk")
        limits = ["--cache-limit-bytes", str(64 * MEGABYTE), "--drain-seconds", "10"]
        self.server = ServerUnderTest(self._disk.directory, directory / "server.log", [*options, *limits], self.judge)
        self._over = threading.Event()

    def run(self, seconds: float) -> Judge:
        """Has it all happen for a while; then all must be as it was acknowledged."""
        try:
            if not self.server.start():
                self.judge.violate("the server did not start")
                return self.judge
            managers = self._managers()
            # Not before there is something to call.
            for manager in managers:
                if not isinstance(manager, ScopeManager):
                    manager.change()
            self._happen(managers, seconds)
            for manager in managers:
                manager.settle()
                manager.check_answers()
                manager.close()
            self._check_scopes()
            self.server.stop()
        finally:
            self.server.kill()
            self._disk.free()
            self._disk.close()
            self.judge.close()
        return self.judge

    def _managers(self) -> list[ModelManager]:
        sources = self._directory / "sources"
        sources.mkdir()
        with modelhost.Client(self.server.address) as client:
            for scope, options in self._scopes.items():
                if scope != "default":
                    client.create_scope(scope, **options)  # type: ignore[arg-type]

        def manager(kind: type[ModelManager], model: Model, **options: Any) -> ModelManager:
            return kind(model, self.server, self.judge, sources, self._seed + model.number, **options)

        managers = []
        for number, (name, engine) in enumerate(ENGINES.items(), 1):
            scope, _, model = name.partition("/")
            engine = "tensorflow" if self._is_short and engine is not None else engine
            managers.append(manager(ModelManager, Model(scope, model, number), engine=engine))
        for number in range(20, 20 + LARGE if TIGHT in self._scopes else 20):
            large = Model(TIGHT, f"large{number}", number)
            managers.append(manager(ModelManager, large, engine="tensorflow", is_large=True))
        managers.append(manager(ScopeManager, Model(FLEETING, "e", 10, may_be_missing=True)))
        return managers

    def _happen(self, managers: list[ModelManager], seconds: float) -> None:
        models = [manager.model for manager in managers]
        lasting = [model for model in models if not model.may_be_missing]
        # What shares too little room may have to wait for others.
        roomy = [model for model in lasting if model.scope != TIGHT]
        faults = Faults(self.server, self._disk, roomy, self.judge, self._seed, hurry=4 if self._is_short else 1)
        end = time.monotonic() + seconds
        named = [f"{model.full_name}={model.number}" for model in lasting]
        # From the directory of tests, where this package is.
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "chaos.callers", self.server.address, str(self._seed + i), str(seconds), *named],
                cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True,
            )
            for i in range(1 if self._is_short else PROCESSES)
        ]  # fmt: skip
        threads = [self._thread(lambda manager=manager: manager.run(self._over.is_set)) for manager in managers]
        threads += call_in_threads(self.server.address, models, self.judge, self._seed + 100, self._over.is_set)
        faulty = self._thread(lambda: faults.run(lambda: time.monotonic() >= end))
        faulty.join()
        self._over.set()
        for thread in threads:
            thread.join()
        for process in processes:
            output, _ = process.communicate()
            self._take_over(output)

    def _thread(self, work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except Exception:
                self.judge.violate(f"a thread of this test failed: {traceback.format_exc()}")

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def _take_over(self, output: str) -> None:
        if not output:
            self.judge.violate("a process of callers failed")
            return
        told = json.loads(output)
        for kind, outcome, count in told["counts"]:
            self.judge.note(kind, outcome, "in other processes", count)
        for violation in told["violations"]:
            self.judge.violate(violation)

    def _check_scopes(self) -> None:
        with modelhost.Client(self.server.address) as client:
            there = {scope.scope for scope in client.scopes()} - {FLEETING}
        if there != self._scopes.keys():
            self.judge.violate(f"scopes {sorted(there)}; expected {sorted(self._scopes)}")

    def report(self) -> str:
        """Counts, recovery times and violations, as text."""
        judge = self.judge
        where = (
            f"on a disk of {Disk.MEGABYTES} MB"
            if self._disk.is_small
            else "without full disks: mounting one is not allowed"
        )
        lines = [
            f"{self.server.starts} starts of the server, {where}",
            "",
            f"{'operation':44} {'outcome':24} {'count':>8}",
        ]
        lines += [f"{kind:44} {outcome:24} {count:8}" for (kind, outcome), count in sorted(judge.counts.items())]
        lines += ["", f"{'recovery, in seconds':60} {'times':>6} {'median':>8} {'longest':>8}"]
        for what, seconds in sorted(judge.recoveries.items()):
            seconds.sort()
            lines.append(f"{what:60} {len(seconds):6} {seconds[len(seconds) // 2]:8.2f} {seconds[-1]:8.2f}")
        lines += ["", *(f"VIOLATION: {violation}" for violation in judge.violations[:50])]
        return "\n".join(lines)
