"""What is done to the server: its processes are killed and stopped, and its disk fills up."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Sequence

import modelhost
import numpy as np
import psutil

from .judge import Judge
from .oracle import STABLE, Model
from .server import Disk, ServerUnderTest

# Each with how often it comes, compared with the others. In this order the first round goes.
WEIGHTS = {
    "kill worker": 6,
    "stop worker": 4,
    "fill disk": 2,
    "kill server": 3,
    "kill template": 2,
    "kill converter": 2,
}
RECOVERY = 60.0
_ASK_SECONDS = 5.0


class Faults:
    """Does something to the server every few seconds, and watches it recover."""

    def __init__(
        self, server: ServerUnderTest, disk: Disk, models: Sequence[Model], judge: Judge, seed: int, hurry: float = 1
    ) -> None:
        self._server, self._disk, self._models, self._judge = server, disk, models, judge
        self._random = random.Random(seed)
        self._hurry = hurry
        self._freeing: threading.Timer | None = None

    def run(self, is_over: Callable[[], bool]) -> None:
        """Goes on until it is over; the first round has one of each."""
        kinds = [kind for kind in WEIGHTS if self._disk.is_small or kind != "fill disk"]
        first = iter(kinds)
        while not is_over():
            time.sleep(self._random.uniform(1, 4) / self._hurry)
            if self._server.has_ended:
                self._judge.violate("the server has ended by itself")
                self._start()
            kind = next(first, None) or self._random.choices(kinds, [WEIGHTS[kind] for kind in kinds])[0]
            match kind:
                case "kill worker" | "kill template" | "kill converter":
                    self._kill(kind.removeprefix("kill "))
                case "stop worker":
                    self._stop_worker()
                case "kill server":
                    self._kill_server()
                case _:
                    self._fill_disk()
        if self._freeing is not None:
            self._freeing.join()

    def _kill(self, kind: str) -> None:
        processes = self._server.processes()[kind]
        if not processes:
            return
        began = time.monotonic()
        with contextlib.suppress(psutil.Error):
            self._random.choice(processes).kill()
            self._judge.note("fault", f"kill {kind}")
        if kind != "converter":
            self._wait_for_answers(f"{kind} killed", began)

    def _stop_worker(self) -> None:
        workers = self._server.processes()["worker"]
        if workers:
            worker = self._random.choice(workers)
            with contextlib.suppress(psutil.Error):
                worker.suspend()
                self._judge.note("fault", "stop worker")
                # At times longer than a call waits.
                time.sleep(self._random.choice([0.5, 1, 3, 12]) / self._hurry)
                worker.resume()
            self._wait_for_answers("worker stopped and continued", time.monotonic())

    def _kill_server(self) -> None:
        began = time.monotonic()
        self._server.kill()
        self._judge.note("fault", "kill server")
        self._start()
        self._judge.recovered("server killed -> ready", time.monotonic() - began)
        self._wait_for_answers("server killed", began)

    def _start(self) -> None:
        if not self._server.start():
            if self._freeing is None or not self._freeing.is_alive():
                self._judge.violate("the server did not start")
            self._disk.free()
            self._judge.note("start", "failed while the disk was full")
            if not self._server.start():
                self._judge.violate("the server did not start")

    def _fill_disk(self) -> None:
        if self._freeing is not None and self._freeing.is_alive():
            return
        self._disk.fill()
        self._judge.note("fault", "fill disk")
        # Meanwhile other things happen.
        self._freeing = threading.Timer(self._random.uniform(2, 8) / self._hurry, self._disk.free)
        self._freeing.start()

    def _wait_for_answers(self, what: str, began: float) -> None:
        """Until each model has answered by its label."""
        end = began + RECOVERY
        with modelhost.Client(self._server.address) as client:
            for i, model in enumerate(self._models):
                while True:
                    try:
                        client.predict(f"{model.full_name}@{STABLE}", {"x": np.float32([1])}, timeout=_ASK_SECONDS)
                    except modelhost.ModelhostError as error:
                        # It waits for somebody to load it again.
                        if "quarantined" in str(error):
                            break
                        if time.monotonic() > end:
                            self._judge.violate(
                                f"{what}: {model.full_name} does not answer within {RECOVERY:g} s: {error}"
                            )
                            break
                        time.sleep(0.02)
                    else:
                        break
                if i == 0:
                    self._judge.recovered(f"{what} -> first right answer", time.monotonic() - began)
        self._judge.recovered(f"{what} -> all models answer", time.monotonic() - began)
