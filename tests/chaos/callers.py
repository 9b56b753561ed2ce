"""Predictions: any model, any version, any protocol, and every answer looked at.

As a process of its own: `python -m chaos.callers ADDRESS SEED SECONDS MODEL=NUMBER…` prints counts and violations.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import modelhost
import numpy as np
from support.asking import native, open_inference_unary, tensorflow_serving
from support.server import OWN_CONNECTION
from support.telling import teller

from .judge import Judge, Outcome
from .oracle import CANARY, DEFAULT, STABLE, Mark, Model

TIMEOUT = 10.0
THREADS = 3
STREAMED = 8
# What TensorFlow Serving and Triton say of a version that is not ready, or not there: they give no reason.
FOREIGN_NOT_READY = frozenset({"NOT_FOUND", "FAILED_PRECONDITION"})


class Caller:
    """Asks without a pause, until told to stop."""

    def __init__(self, address: str, models: Sequence[Model], judge: Judge, seed: int) -> None:
        self._client = modelhost.Client(address, timeout=TIMEOUT)
        self._channel = grpc.insecure_channel(
            address, options=[*OWN_CONNECTION, ("grpc.max_reconnect_backoff_ms", 1000)]
        )
        self._models = models
        self._judge = judge
        self._random = random.Random(seed)
        self._numbers = itertools.count(1)

    def run(self, is_over: Callable[[], bool]) -> None:
        """Asks until it is over."""
        kinds = [self._unary] * 5 + [self._stream, self._tensorflow_serving, self._open_inference]
        while not is_over():
            model = self._random.choice(self._models)
            ways = [STABLE, STABLE, DEFAULT]
            if model.is_known:
                ways += [CANARY, *(str(version) for version in list(model.live)[:3])]
            self._random.choice(kinds)(model, self._random.choice(ways))
        self._client.close()
        self._channel.close()

    def _x(self) -> float:
        return float(next(self._numbers) % (1 << 20))

    def _ask(self, kind: str, model: Model, way: str, ask: Any, is_foreign: bool = False) -> None:
        mark, x = model.mark(way), self._x()

        def excused(outcome: Outcome) -> bool:
            if not is_foreign:
                return model.excuses(mark, outcome.reason)
            # A label that is nowhere is an invalid argument there.
            is_label = outcome.code == "INVALID_ARGUMENT" and "version" in outcome.text
            return outcome.code in FOREIGN_NOT_READY or (is_label and model.excuses(mark, "LABEL_NOT_FOUND"))

        about = f"{model.full_name}@{way}"
        outcome = self._judge.attempt(kind, about, TIMEOUT, lambda: ask(way, x, TIMEOUT), excused)
        if outcome.value is not None:
            self._check(kind, model, mark, x, *outcome.value)

    def _check(self, kind: str, model: Model, mark: Mark, x: float, told: int, answer: Any) -> None:
        found = teller(answer)
        why = model.wrong(mark, found.version)
        if found.model != model.number or found.x != (x,) or found.version != told or why:
            self._judge.violate(f"{kind} {model.full_name}@{mark.way}: {found}, told {told}, asked {x}: {why}")

    def _unary(self, model: Model, way: str) -> None:
        self._ask("predict", model, way, native(self._client, model.full_name))

    def _tensorflow_serving(self, model: Model, way: str) -> None:
        ask = tensorflow_serving(self._channel, model.full_name)
        self._ask("predict, TensorFlow Serving", model, way, ask, is_foreign=True)

    def _open_inference(self, model: Model, way: str) -> None:
        ask = open_inference_unary(self._channel, model.full_name)
        self._ask("predict, Open Inference", model, way, ask, is_foreign=True)

    def _stream(self, model: Model, way: str) -> None:
        kind, mark, name = "predict, stream", model.mark(way), f"{model.full_name}{way and '@'}{way}"
        xs = [self._x() for _ in range(STREAMED)]

        def ask() -> list[Any]:
            inputs = ({"x": np.float32([x])} for x in xs)
            return list(self._client.map(name, inputs, return_exceptions=True, timeout=TIMEOUT))

        outcome = self._judge.attempt(kind, name, TIMEOUT, ask)
        for x, item in zip(xs, outcome.value or (), strict=False):
            if not isinstance(item, modelhost.ModelhostError):
                self._check(kind, model, mark, x, item.version, item["answer"])
                continue
            error = item

            def fail(error: modelhost.ModelhostError = error) -> None:
                raise error

            self._judge.attempt(f"{kind}, each", name, TIMEOUT, fail, lambda o: model.excuses(mark, o.reason))


def call_in_threads(
    address: str, models: Sequence[Model], judge: Judge, seed: int, is_over: Callable[[], bool]
) -> list[threading.Thread]:
    """Several callers, each in a thread."""
    callers = [Caller(address, models, judge, seed + i) for i in range(THREADS)]
    threads = [threading.Thread(target=caller.run, args=(is_over,)) for caller in callers]
    for thread in threads:
        thread.start()
    return threads


def main(address: str, seed: str, seconds: str, *named: str) -> None:
    """See above."""
    end = time.monotonic() + float(seconds)
    models = []
    for item in named:
        name, _, number = item.partition("=")
        scope, _, model = name.partition("/")
        models.append(Model(scope, model, int(number), is_known=False))
    with tempfile.TemporaryDirectory() as directory:
        judge = Judge(Path(directory) / "log")
        for thread in call_in_threads(address, models, judge, int(seed), lambda: time.monotonic() >= end):
            thread.join()
        judge.close()
    counts = [[*key, count] for key, count in judge.counts.items()]
    print(json.dumps({"counts": counts, "violations": judge.violations}))


if __name__ == "__main__":
    main(*sys.argv[1:])
