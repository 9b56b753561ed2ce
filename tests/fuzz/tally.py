"""What came of a target's cases."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

# More of them say no more.
_MOST_TOLD = 20


@dataclass
class Tally:
    """The cases of one target, and those that failed, with what is needed to look into them."""

    target: str
    cases: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)
    # How cases were answered, by status.
    answers: Counter[str] = field(default_factory=Counter)

    def fail(self, what: str) -> None:
        """Notes a failure."""
        self.failures.append(what)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Counts the time that passes within."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds += time.monotonic() - started


def told(tallies: list[Tally]) -> str:
    """A table of all targets, and the first failures of each."""
    lines = [f"{'target':34}{'cases':>9}{'failures':>10}{'cases/s':>9}  answers"]
    for tally in tallies:
        speed = tally.cases / tally.seconds if tally.seconds else 0.0
        answers = ", ".join(f"{name} {count}" for name, count in tally.answers.most_common(6))
        lines.append(f"{tally.target:34}{tally.cases:9}{len(tally.failures):10}{speed:9.0f}  {answers}")
    lines.append(f"{'all':34}{sum(t.cases for t in tallies):9}{sum(len(t.failures) for t in tallies):10}")
    for tally in tallies:
        lines += [f"\n{tally.target}: {what}" for what in tally.failures[:_MOST_TOLD]]
    return "\n".join(lines)
