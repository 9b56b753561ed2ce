"""The tensorflow engine: SavedModels in sessions of TensorFlow's C library.

Two ways to load, tried in this order:
1. "reachable variables": the part of the graph that the signatures reach, its variables restored one by one. Takes
   what `tf.saved_model.load` takes of TensorFlow 2's SavedModels, without copies of weights no signature uses.
2. "complete graph": TensorFlow's own Session loader. Takes TensorFlow 1's SavedModels, reference variables, and
   whatever has savers of its own.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..compat import saved_model_pb2 as pb
from ..errors import Code, ModelhostError, Reason
from ..tensors import STRING, LentMemory, RawTensor, VariableSpec
from . import tensorflow_build as build
from . import tensorflow_capi as capi
from . import tensorflow_graph as graphs
from . import tensorflow_signatures as signatures
from .base import LoadRequest, OutputSink, Progress
from .tensorflow_binding import BoundSignature
from .tensorflow_checkpoint import Checkpoint

# A load tells how far it is about this often.
_PROGRESS_BYTES = 32 << 20


class TensorflowEngine:
    """Loads SavedModels, with the thread counts of one scope."""

    name = "tensorflow"

    def __init__(self, intra_op_threads: int, inter_op_threads: int) -> None:
        # A negative inter-op count runs a call's operations in the caller's own thread: 12 µs instead of 43 for a
        # tiny model, because no other thread has to wake up.
        config = pb.ConfigProto(
            intra_op_parallelism_threads=intra_op_threads,
            inter_op_parallelism_threads=-1 if inter_op_threads <= 1 else inter_op_threads,
        )
        self._config = config.SerializeToString()

    def prepare(self) -> None:
        """Starts the threads that all sessions of this process share."""
        session = capi.Session(self._config)
        session.import_graph(b"")
        session.close()

    def load(self, request: LoadRequest, progress: Progress) -> TensorflowModel:
        """Loads a SavedModel directory.

        Raises:
            ModelhostError: SOURCE_NOT_FOUND, SOURCE_INVALID, SOURCE_UNSUPPORTED, UNSUPPORTED.
        """
        capi.library()
        progress("reading", 0, 0)
        meta_graph = signatures.read_meta_graph(request.path, request.tags)
        entries = signatures.read_entries(meta_graph)
        model = self._load_reachable(request, meta_graph, entries, progress)
        return model or self._load_complete(request, meta_graph, entries)

    def _load_reachable(
        self, request: LoadRequest, meta_graph: pb.MetaGraphDef, entries: Sequence[signatures.Entry], progress: Progress
    ) -> TensorflowModel | None:
        graph = meta_graph.graph_def
        initialiser = graphs.init_op(meta_graph)
        assets = graphs.asset_feeds(meta_graph, request.path)
        roots = [tensor for entry in entries for tensor in entry.tensors]
        nodes = graphs.reachable(graph, [*roots, *([initialiser] if initialiser else []), *assets])
        graphs.check_tables(nodes)
        prefix = str(Path(request.path) / "variables" / "variables")
        if not Path(f"{prefix}.index").is_file() and graphs.unassigned(nodes):
            # TensorFlow's own loader takes this for a model without variables, whose every call then fails.
            raise ModelhostError(
                Reason.SOURCE_INVALID,
                "the SavedModel is incomplete: expected variables/variables.index, for it has variables",
            )
        variables = graphs.variable_nodes(nodes)
        if not variables and any(node.op.startswith("Mutable") for node in nodes):
            return None
        checkpoint = Checkpoint(prefix, self._config)
        session = capi.Session(self._config)
        try:
            restores: list[graphs.Restore] = []
            if variables:
                objects = checkpoint.object_graph()
                found = graphs.find_restores(meta_graph, nodes, objects) if objects else None
                if found is None:
                    session.close()
                    return None
                restores = found
            session.import_graph(build.serving_graph(meta_graph, entries, initialiser, list(assets), restores))
            if restores:
                self._restore(session, checkpoint, restores, progress)
            if initialiser:
                progress("warming", 0, 0)
                _run(session, assets, [initialiser])
            restored = {restore.node for restore in restores}
            specs = [graphs.variable_spec(node) for node in variables if node.name in restored]
            model = TensorflowModel(session, self._config, entries, "reachable variables", specs)
        except capi.StatusError as error:
            session.close()
            # What this way cannot load the other may: it says the last word.
            if error.code in (Code.NOT_FOUND, Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION, Code.UNIMPLEMENTED):
                return None
            raise _source_error(error) from None
        except KeyError:
            session.close()
            return None
        finally:
            checkpoint.close()
        return model

    def _restore(
        self, session: capi.Session, checkpoint: Checkpoint, restores: Sequence[graphs.Restore], progress: Progress
    ) -> None:
        """Gives the variables of a session their values, which are not copied."""
        total = sum(restore.nbytes for restore in restores)
        done = told = 0
        values: list[int] = []
        try:
            for restore in restores:
                values.append(checkpoint.read(restore.key, restore.dtype))
                done += restore.nbytes
                if done - told >= _PROGRESS_BYTES or done == total:
                    progress("reading", done, total)
                    told = done
            session.run(
                capi.Status(),
                (capi.Output * len(values))(*[session.output(build.value(i)) for i in range(len(values))]),
                (ctypes.c_void_p * len(values))(*values),
                (capi.Output * 0)(),
                (ctypes.c_void_p * 0)(),
                (ctypes.c_void_p * len(values))(
                    *[session.operation(build.assign_operation(i)) for i in range(len(values))]
                ),
            )
        finally:
            for pointer in values:
                capi.delete_tensor(pointer)

    def _load_complete(
        self, request: LoadRequest, meta_graph: pb.MetaGraphDef, entries: Sequence[signatures.Entry]
    ) -> TensorflowModel:
        session = capi.Session(self._config)
        try:
            session.load_saved_model(request.path, request.tags or signatures.DEFAULT_TAGS)
            nodes = graphs.reachable(meta_graph.graph_def, [tensor for entry in entries for tensor in entry.tensors])
            variables = [graphs.variable_spec(node) for node in graphs.variable_nodes(nodes)]
            return TensorflowModel(session, self._config, entries, "complete graph", variables)
        except capi.StatusError as error:
            session.close()
            raise _source_error(error) from None
        except KeyError as error:
            session.close()
            raise ModelhostError(
                Reason.SOURCE_INVALID, f"a signature names the tensor {error}, which the graph does not have"
            ) from None


def _source_error(error: capi.StatusError) -> ModelhostError:
    first_line = error.message.partition("\n")[0][:500]
    return ModelhostError(Reason.SOURCE_INVALID, f"TensorFlow cannot load the SavedModel: {first_line}")


def _run(session: capi.Session, feeds: dict[str, bytes], targets: Sequence[str]) -> None:
    """Runs operations with scalar strings fed."""
    values = [capi.copied_tensor(RawTensor(STRING, (), [value])) for value in feeds.values()]
    try:
        session.run(
            capi.Status(),
            (capi.Output * len(feeds))(*[session.output(name) for name in feeds]),
            (ctypes.c_void_p * len(values))(*values),
            (capi.Output * 0)(),
            (ctypes.c_void_p * 0)(),
            (ctypes.c_void_p * len(targets))(*[session.operation(name) for name in targets]),
        )
    finally:
        for pointer in values:
            capi.delete_tensor(pointer)


class _ThreadStatus(threading.local):
    """One TF_Status a thread, reused by every call."""

    def __init__(self) -> None:
        self.status = capi.Status()


class TensorflowModel:
    """A SavedModel in a session of its own."""

    engine = "tensorflow"

    def __init__(
        self,
        session: capi.Session,
        config: bytes,
        entries: Sequence[signatures.Entry],
        loader: str,
        variables: Sequence[VariableSpec],
    ) -> None:
        self.loader = loader
        self.signatures = [entry.spec for entry in entries]
        self.variables = sorted(variables, key=lambda variable: variable.name)
        self._session = session
        self._bound = [BoundSignature(session, entry) for entry in entries]
        self._local = _ThreadStatus()
        _fetch_defaults(config, entries, self._bound)

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
                array = (ctypes.c_void_p * len(fed))(*fed.values())
                self._session.run(self._local.status, bound.feeds(tuple(fed)), array, bound.fetches(fetched), results)
            for pointer in results if bound.is_plain else bound.answers(wanted, fed, results):
                sink.put(*capi.read_tensor(pointer))
        except capi.StatusError as error:
            raise ModelhostError(
                capi.status_error_reason(error), f"the model failed: {_model_message(error)}"
            ) from None
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
        self._session.close()


def _fetch_defaults(config: bytes, entries: Sequence[signatures.Entry], bound: Sequence[BoundSignature]) -> None:
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
