"""Sessions of graphs that keep nothing between runs: models whose graphs are equal share one.

A session of a ResNet50's graph takes 20 MB and the better part of a second until it first answered; a further model in
it takes its own weights.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..compat import saved_model_pb2 as pb
from . import tensorflow_capi as capi
from .tensorflow_structure import structure

Outputs = Callable[[str], capi.Output]


class Program:
    """A session, and the names of its graph's nodes in order."""

    def __init__(self, session: capi.Session, key: bytes, names: list[str]) -> None:
        self.session = session
        self.key = key
        self.names = names
        self.users = 1

    def outputs(self, names: list[str]) -> Outputs:
        """Finds outputs by the names that they have in a graph of the same structure, whose nodes these are."""
        positions = {name: i for i, name in enumerate(names)}

        def find(tensor: str) -> capi.Output:
            node, colon, index = tensor.partition(":")
            return self.session.output(self.names[positions[node]] + colon + index)

        return find


class Programs:
    """The sessions of a process that models share."""

    def __init__(self) -> None:
        self._programs: dict[bytes, Program] = {}
        self._lock = threading.Lock()

    def open(self, graph: pb.GraphDef, start: Callable[[], capi.Session]) -> Program:
        """The program with a graph of this structure; `start` makes its session when there is none yet.

        Whoever opens it closes it.
        """
        key = structure(graph)
        program = self._use(key)
        if program is not None:
            return program
        # Without the lock: a session takes a while to start. When two start the same, one of them is not needed.
        made = Program(start(), key, [node.name for node in graph.node])
        with self._lock:
            program = self._programs.setdefault(key, made)
            if program is made:
                return made
            program.users += 1
        made.session.close()
        return program

    def _use(self, key: bytes) -> Program | None:
        with self._lock:
            program = self._programs.get(key)
            if program is not None:
                program.users += 1
            return program

    def close(self, program: Program) -> None:
        """Closes the session once nobody uses it."""
        with self._lock:
            program.users -= 1
            if program.users:
                return
            del self._programs[program.key]
        program.session.close()
