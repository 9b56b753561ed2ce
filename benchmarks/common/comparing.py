"""Measures one model on the engine that modelhost chooses, on TensorFlow in modelhost, and without modelhost."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

import modelhost
import numpy as np

from .answers import Agreement
from .hosted import LATENCY, THROUGHPUT, Hosted, Setting, host
from .on_command import CommandedCaller, Window
from .zoo import DIGITS, Subject, held_out, predict_request

AUTO, TENSORFLOW, DIRECT = "auto", "tensorflow", "direct"
_ENGINES: dict[str, Literal["tensorflow"] | None] = {AUTO: None, TENSORFLOW: "tensorflow"}
_SINGLE, _BATCHES = 20, 4
_BATCH = 6
Tell = Callable[[str], None]


@dataclass(slots=True)
class Comparison:
    """What was found out about a model.

    Attributes:
        windows: by setting and system, one for each round.
        accuracy: on held-out examples with TensorFlow and with the engine chosen, where there are such examples.
    """

    name: str
    hosted: dict[str, dict[str, Hosted]]
    agreement: Agreement
    windows: dict[str, dict[str, list[Window]]]
    accuracy: tuple[float, float] | None

    @property
    def engines(self) -> str:
        """What was chosen; two, where the number of threads makes a difference."""
        return " / ".join(dict.fromkeys(by_system[AUTO].engine for by_system in self.hosted.values()))

    @property
    def reasons(self) -> dict[str, list[str]]:
        """What became of the engines that were tried, by setting."""
        return {setting: by_system[AUTO].reasons for setting, by_system in self.hosted.items()}

    def latency(self, system: str) -> float:
        """Median milliseconds of one caller."""
        return median(window.p50 for window in self.windows[LATENCY.name][system])

    def throughput(self, system: str) -> float:
        """Calls a second of all callers."""
        return median(window.per_second for window in self.windows[THROUGHPUT.name][system])

    @property
    def gains(self) -> dict[str, float]:
        """How many times as fast as TensorFlow the engine chosen is, within rounds, by setting."""
        latency, throughput = self.windows[LATENCY.name], self.windows[THROUGHPUT.name]
        return {
            LATENCY.name: median(b.p50 / a.p50 for a, b in zip(latency[AUTO], latency[TENSORFLOW], strict=True)),
            THROUGHPUT.name: median(
                a.per_second / b.per_second for a, b in zip(throughput[AUTO], throughput[TENSORFLOW], strict=True)
            ),
        }

    @property
    def gains_of_itself(self) -> list[float]:
        """Those where the engine chosen is TensorFlow."""
        return [gain for setting, gain in self.gains.items() if self.hosted[setting][AUTO].engine == TENSORFLOW]

    def measured(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "engines": self.engines, "reasons": self.reasons, "windows": self.windows, "gains": self.gains,
            "accuracy": self.accuracy, "agreement": vars(self.agreement),
            "versions": {
                setting: {system: _told(hosted) for system, hosted in by_system.items()}
                for setting, by_system in self.hosted.items()
            },
        }  # fmt: skip


class Again(NamedTuple):
    """A model in a second server with the same cache."""

    auto: Hosted
    tensorflow: Hosted

    def measured(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {AUTO: _told(self.auto), TENSORFLOW: _told(self.tensorflow)}


def compare(
    client: modelhost.Client, address: str, subject: Subject, rounds: int, seconds: float, tell: Tell
) -> Comparison:
    """Compares the systems on a model that the server does not know yet."""
    path = subject.path
    hosted: dict[str, dict[str, Hosted]] = {}
    for setting in (THROUGHPUT, LATENCY):
        hosted[setting.name] = {}
        for system in _ENGINES:
            tell(f"loading with engine {system}, for {setting.name}")
            scope = f"{subject.name}-{setting.name}-{system}"
            hosted[setting.name][system] = host(client, scope, setting, path, _ENGINES[system])
        tell("; ".join(hosted[setting.name][AUTO].reasons) or "no engine was tried")
    agreement = Agreement()
    for by_system in hosted.values():
        _agree(client, subject, by_system, agreement)
    default = hosted[THROUGHPUT.name]
    accuracy = (
        (_accuracy(client, default[TENSORFLOW]), _accuracy(client, default[AUTO])) if subject.name == DIGITS else None
    )
    windows = {
        setting.name: _measure(address, subject, setting, hosted[setting.name], rounds, seconds, tell)
        for setting in (LATENCY, THROUGHPUT)
    }
    for by_system in hosted.values():
        for version in by_system.values():
            client.delete_scope(version.version.scope, force=True)
    return Comparison(subject.name, hosted, agreement, windows, accuracy)


def again(client: modelhost.Client, subject: Subject) -> Again:
    """Loads a model into a server that has the cache of the one that was compared."""
    found = Again(
        *(
            host(client, f"{subject.name}-{system}", THROUGHPUT, subject.path, engine)
            for system, engine in _ENGINES.items()
        )
    )
    for hosted in found:
        client.delete_scope(hosted.version.scope, force=True)
    return found


def _agree(client: modelhost.Client, subject: Subject, by_system: dict[str, Hosted], agreement: Agreement) -> None:
    random = np.random.default_rng(1)
    for size in (*[1] * _SINGLE, *[_BATCH] * _BATCHES):
        inputs = subject.make(random, size)
        answer, expected = (client.predict(by_system[system].ref, inputs) for system in (AUTO, TENSORFLOW))
        agreement.add(answer, expected)


def _accuracy(client: modelhost.Client, hosted: Hosted) -> float:
    images, digits = held_out()
    (scores,) = client.predict(hosted.ref, {"x": images}).values()
    return float((scores.argmax(axis=1) == digits).mean())


def _measure(
    address: str, subject: Subject, setting: Setting, by_system: dict[str, Hosted], rounds: int, seconds: float,
    tell: Tell,
) -> dict[str, list[Window]]:  # fmt: skip
    """Windows of each system, in turns, so that whatever else the machine does hits all alike."""
    inputs = subject.make(np.random.default_rng(2), 1)
    windows: dict[str, list[Window]] = {AUTO: [], TENSORFLOW: [], DIRECT: []}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        np.savez(folder / "inputs.npz", **inputs)
        for system, hosted in by_system.items():
            request = predict_request(hosted.version.scope, hosted.version.model, inputs)
            (folder / system).write_bytes(request.SerializeToString())
        of_server = stack.enter_context(
            CommandedCaller(
                "benchmarks.common.caller_of_server", address, *(str(folder / system) for system in by_system)
            )
        )
        of_signature = stack.enter_context(
            CommandedCaller(
                "benchmarks.common.caller_of_signature", "session" if subject.needs_session else "signature",
                str(subject.path), str(folder / "inputs.npz"), str(setting.threads),
            )
        )  # fmt: skip
        callers = {AUTO: (of_server, 0), TENSORFLOW: (of_server, 1), DIRECT: (of_signature, 0)}
        for number in range(rounds):
            tell(f"{setting.name}, round {number + 1}/{rounds}")
            for system in sorted(callers, reverse=bool(number % 2)):
                caller, which = callers[system]
                windows[system].append(caller.measure(which, setting.callers, seconds))
    return windows


def _told(hosted: Hosted) -> dict[str, Any]:
    info = hosted.version.engine
    assert info is not None
    return {
        "engine": hosted.engine, "explanation": info.explanation, "candidates": [asdict(c) for c in info.candidates],
        "load_seconds": hosted.seconds, "found_seconds": hosted.found_seconds,
        "memory": asdict(hosted.version.memory),
    }  # fmt: skip
