"""A SavedModel in a session: its own, or one that it shares with models of the same graph."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..compat import saved_model_pb2 as pb
from ..errors import ModelhostError
from ..tensors import LentMemory, RawTensor, VariableSpec
from . import tensorflow_build as build
from . import tensorflow_capi as capi
from .base import TENSORFLOW, OutputSink, out_of_memory
from .tensorflow_binding import BoundSignature
from .tensorflow_graph import reachable
from .tensorflow_programs import Outputs
from .tensorflow_signatures import Entry
from .tensorflow_weights import Weights


class _ThreadStatus(threading.local):
    """One TF_Status a thread, reused by every call."""

    def __init__(self) -> None:
        self.status = capi.Status()


class TensorflowModel:
    """A version in memory; see LoadedModel."""

    engine = TENSORFLOW

    def __init__(
        self,
        session: capi.Session,
        bound: Sequence[BoundSignature],
        entries: Sequence[Entry],
        *,
        loader: str,
        variables: Sequence[VariableSpec],
        is_pure: bool,
        weights: Weights,
        close_session: Callable[[], None],
    ) -> None:
        self.loader = loader
        self.signatures = [entry.spec for entry in entries]
        self.variables = sorted(variables, key=lambda variable: variable.name)
        self.is_pure = is_pure
        self._session = session
        self._bound = bound
        self._weights = weights
        self._close_session = close_session
        self._local = _ThreadStatus()

    def shared_bytes(self) -> int:
        """See LoadedModel."""
        return self._weights.shared_bytes()

    def run(
        self, signature: int, inputs: Sequence[tuple[int, RawTensor]], outputs: Sequence[int], sink: OutputSink
    ) -> None:
        """See LoadedModel."""
        bound = self._bound[signature]
        wanted = tuple(outputs) or bound.all_outputs
        values: list[int] = []
        results: Any = ()
        try:
            for _, tensor in inputs:
                values.append(_input_tensor(tensor))
            fed = dict(zip((position for position, _ in inputs), values, strict=True))
            if bound.defaults:
                fed = {**bound.defaults, **fed}
            fetched = wanted
            if not bound.is_plain:
                fed = bound.merged(fed)
                fetched = bound.fetched(wanted, fed)
            results = (ctypes.c_void_p * len(fetched))()
            if fetched:
                feeds, array = bound.feeds(tuple(fed)), bound.values(fed.values())
                self._session.run(self._local.status, feeds, array, bound.fetches(fetched), results)
            for pointer in results if bound.is_plain else bound.answers(wanted, fed, results):
                sink.put(*capi.read_tensor(pointer))
        except capi.StatusError as error:
            why = _model_message(error)
            if capi.is_lack_of_memory(error):
                raise out_of_memory(why) from None
            raise ModelhostError(capi.status_error_reason(error), f"the model failed: {why}") from None
        finally:
            for pointer in results:
                if pointer:
                    capi.delete_tensor(pointer)
            for pointer in values:
                capi.delete_tensor(pointer)

    def close(self) -> None:
        """See LoadedModel."""
        for bound in self._bound:
            for default in bound.defaults.values():
                capi.delete_tensor(default)
        self._close_session()
        self._weights.close()


def bind(find: Outputs, entries: Sequence[Entry], config: bytes) -> list[BoundSignature]:
    """Finds signatures in a session.

    Raises:
        KeyError: a tensor is not there.
    """
    bound = [BoundSignature(find, entry) for entry in entries]
    _fetch_defaults(config, entries, bound)
    return bound


def bind_with_weights(
    find: Outputs, entries: Sequence[Entry], config: bytes, graph: pb.GraphDef, weights: Mapping[str, int]
) -> list[BoundSignature]:
    """Finds signatures in a session that is fed with the weights, by the nodes of the graph, that they depend on.

    Raises:
        KeyError: a tensor is not there.
    """
    bound = []
    for entry in entries:
        needed = [node.name for node in reachable(graph, entry.tensors) if node.name in weights]
        bound.append(BoundSignature(find, entry, [(find(name), weights[name]) for name in needed]))
    _fetch_defaults(config, entries, bound)
    return bound


def _fetch_defaults(config: bytes, entries: Sequence[Entry], bound: Sequence[BoundSignature]) -> None:
    """Gives each signature the default values of its inputs."""
    places = [
        (bound[i], j, endpoint.default)
        for i, entry in enumerate(entries)
        for j, endpoint in enumerate(entry.inputs)
        if endpoint.default is not None
    ]
    if not places:
        return
    # A session of their own, so that it does not matter which loader made the model's.
    session = capi.Session(config)
    try:
        session.import_graph(build.constants_graph([value for _, _, value in places]))
        results = (ctypes.c_void_p * len(places))()
        fetches = (capi.Output * len(places))(*[session.output(build.constant(i)) for i in range(len(places))])
        session.run(capi.Status(), (capi.Output * 0)(), (ctypes.c_void_p * 0)(), fetches, results)
    finally:
        session.close()
    for (signature, position, _), pointer in zip(places, results, strict=True):
        signature.defaults[position] = pointer or 0


def _input_tensor(tensor: RawTensor) -> int:
    if isinstance(tensor.data, LentMemory):
        tensor.data.borrow()
        lent = RawTensor(tensor.dtype, tensor.shape, tensor.data.view)
        return capi.borrowing_tensor(lent, tensor.data.give_back)
    return capi.copied_tensor(tensor)


def _model_message(error: capi.StatusError) -> str:
    """TensorFlow's message without its list of nodes, which says nothing to a caller."""
    lines = [line.strip() for line in error.message.splitlines()]
    line = next((line for line in lines if line), "no message")
    # By bytes: a status must fit into HTTP headers.
    return line.encode()[:1000].decode("utf-8", "ignore")
