"""The threads that answer a worker's calls, and how they take turns at reading them.

A lane that has read a call hands the reading over to the next lane, and runs the call itself: no call waits for
another, or for a hand-over between threads. Where runs are short, that is the wrong way: waking up the next lane takes
longer than the run. So a lane goes on reading while it runs short calls; should one of them take its time, the reading
is taken away from it.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable

from .reader import FrameReader

Handle = Callable[[int, int, memoryview], None]
IsShort = Callable[[int, memoryview], bool]

# A run that was expected to be short has taken its time from here on.
_SHORT_SECONDS = 0.003
# The watch goes to sleep when there was no call while it looked so many times.
_LOOKS = 100


class Lanes:
    """So many threads that read frames and handle them.

    Args:
        reader: of the frames.
        handle: handles one; called by several threads at once.
        is_short: whether a frame is handled in less time than it takes to wake up a thread.
    """

    def __init__(self, reader: FrameReader, handle: Handle, is_short: IsShort) -> None:
        self._reader = reader
        self._handle = handle
        self._is_short = is_short
        # Held by the lane that reads; released by it, or, in its place, by the watch.
        self._reading = threading.Lock()
        self._state = threading.Lock()
        # Since when the lane that reads runs a short call; 0 when it does not.
        self._since = 0.0
        self._turn = 0
        self._shorts = 0
        self._active = threading.Event()

    def run(self, count: int) -> None:
        """Serves until the server goes away, and ends the process then; this thread is one of the lanes."""
        for i in range(count - 1):
            threading.Thread(target=self._lane, name=f"lane-{i}", daemon=True).start()
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        self._lane()

    def _lane(self) -> None:
        try:
            while self._serve():
                pass
        except ConnectionError:
            # An answer that nobody takes.
            pass
        except BaseException:
            traceback.print_exc()
            os._exit(70)
        # The server has gone: nothing is worth finishing.
        os._exit(0)

    def _serve(self) -> bool:
        """Reads, and handles what was read, until another lane reads; False when the server has gone."""
        self._reading.acquire()
        self._turn = turn = self._turn + 1
        while True:
            frame = self._reader.read()
            if frame is None:
                return False
            kind, call, body = frame
            if not self._is_short(kind, body):
                self._reading.release()
                self._handle(kind, call, body)
                return True
            self._since = time.monotonic()
            self._shorts += 1
            if not self._active.is_set():
                self._active.set()
            self._handle(kind, call, body)
            with self._state:
                if self._turn != turn:
                    return True
                self._since = 0.0

    def _watch(self) -> None:
        while True:
            self._active.wait()
            seen = -1
            while seen != self._shorts:
                seen = self._shorts
                for _ in range(_LOOKS):
                    time.sleep(_SHORT_SECONDS)
                    self._take_away()
            self._active.clear()
            # A call may have come before that and found the watch awake.
            if seen != self._shorts:
                self._active.set()

    def _take_away(self) -> None:
        """Lets another lane read when the one that does has been at a short call for too long."""
        with self._state:
            if not self._since or time.monotonic() - self._since < _SHORT_SECONDS:
                return
            self._since = 0.0
            # The lane sees by this that it reads no longer.
            self._turn += 1
            self._reading.release()
