"""What came of every operation, and what of that must not be."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import modelhost

RETRYABLE = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED", "DEADLINE_EXCEEDED"})
# A call may end so many seconds after its deadline: caller and server share a machine with all that is done to them.
GRACE = 5.0


class Outcome(NamedTuple):
    """What came of a call: a value, or a code, a reason and a text."""

    value: Any = None
    code: str = ""
    reason: str = ""
    text: str = ""

    @property
    def is_quarantine(self) -> bool:
        """Whether a version is FAILED because it was busy each time that a worker was killed: it cannot know better."""
        return self.code == "FAILED_PRECONDITION" and "quarantined" in self.text


class Judge:
    """Counts and writes down operations and violations. Used by all threads."""

    def __init__(self, log: Path) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.violations: list[str] = []
        self.recoveries: dict[str, list[float]] = defaultdict(list)
        self.log = log
        self._file = open(log, "w")  # noqa: SIM115
        self._lock = threading.Lock()
        self._began = time.monotonic()

    def note(self, kind: str, outcome: str, detail: str = "", count: int = 1) -> None:
        """Notes what came of an operation."""
        with self._lock:
            self.counts[kind, outcome] += count
            # Predictions that went well would hide the rest.
            if outcome != "OK" or not kind.startswith("predict"):
                self._write(kind, outcome, detail)

    def violate(self, what: str) -> None:
        """Notes what must not be."""
        with self._lock:
            self.violations.append(what)
            self._write("VIOLATION", what, "")

    def recovered(self, what: str, seconds: float) -> None:
        """Notes how long it took until all was well again."""
        with self._lock:
            self.recoveries[what].append(seconds)
            self._write("recovered", what, f"{seconds:.2f} s")

    def _write(self, *what: str) -> None:
        self._file.write(json.dumps([round(time.monotonic() - self._began, 3), *what]) + "\n")
        self._file.flush()

    def attempt(
        self, kind: str, about: str, timeout: float, call: Callable[[], Any],
        excused: Callable[[Outcome], bool] = lambda outcome: False,
    ) -> Outcome:  # fmt: skip
        """Makes a call that must end in time, with an answer, a retryable code, or a failure that is excused."""
        began = time.monotonic()
        try:
            outcome = Outcome(call())
        except modelhost.ModelhostError as error:
            outcome = Outcome(None, error.code, error.reason, str(error))
        except grpc.RpcError as error:
            outcome = Outcome(None, error.code().name, "", error.details() or "")
        took = time.monotonic() - began
        if took > timeout + GRACE:
            self.violate(f"{kind} {about}: took {took:.1f} s; its deadline was {timeout:g} s")
        if outcome.code and outcome.code not in RETRYABLE and not outcome.is_quarantine and not excused(outcome):
            self.violate(f"{kind} {about}: {outcome.code} {outcome.reason}: {outcome.text[:300]}")
        told = outcome.reason or outcome.code or "OK"
        self.note(kind, told, f"{about}; {took:.2f} s; {outcome.text[:200]}")
        return outcome

    def close(self) -> None:
        """Closes the log."""
        self._file.close()
