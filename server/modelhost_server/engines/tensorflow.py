"""The tensorflow engine: SavedModels in sessions of TensorFlow's C library.

Two ways to load, tried in this order:
1. "reachable variables": the part of the graph that the signatures reach, its variables restored one by one. Takes
   what `tf.saved_model.load` takes of TensorFlow 2's SavedModels, without copies of weights no signature uses.
   Where running leaves no trace, weights are memory that models share, and if the graph allows it, so is the session.
2. "complete graph": TensorFlow's own Session loader. Takes TensorFlow 1's SavedModels, reference variables, and
   whatever has savers of its own.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from ..compat import saved_model_pb2 as pb
from ..errors import Code, ModelhostError, Reason
from ..memory import keep_freed_memory
from ..tensors import STRING, RawTensor, VariableSpec
from . import tensorflow_arguments as arguments
from . import tensorflow_build as build
from . import tensorflow_capi as capi
from . import tensorflow_graph as graphs
from . import tensorflow_signatures as signatures
from .base import TENSORFLOW, EngineOptions, LoadRequest, Progress, out_of_memory
from .tensorflow_checkpoint import Checkpoint, CheckpointReader
from .tensorflow_effects import is_pure
from .tensorflow_model import TensorflowModel, bind, bind_with_weights
from .tensorflow_programs import Programs
from .tensorflow_weights import Weights, index_name, read_copies, read_places, read_shared
from .weights import WeightStore

_REACHABLE, _COMPLETE = "reachable variables", "complete graph"


class TensorflowEngine:
    """Loads SavedModels, with the thread counts of one scope."""

    name = TENSORFLOW

    def __init__(self, options: EngineOptions) -> None:
        # A negative inter-op count runs a call's operations in the caller's own thread: 12 µs instead of 43 for a
        # tiny model, because no other thread has to wake up.
        config = pb.ConfigProto(
            intra_op_parallelism_threads=options.intra_op_threads,
            inter_op_parallelism_threads=-1 if options.inter_op_threads <= 1 else options.inter_op_threads,
            # A copy of each graph that nobody asks for.
            experimental=pb.ConfigProto.Experimental(disable_output_partition_graphs=True),
        )
        self._config = config.SerializeToString()
        self._store = WeightStore(options.cache_dir) if options.cache_dir else None
        self._programs = Programs()
        self._reader: CheckpointReader | None = None
        self._reader_lock = threading.Lock()

    def prepare(self) -> None:
        """Starts the threads that all sessions of this process share."""
        keep_freed_memory()
        self._checkpoint_reader()

    def _checkpoint_reader(self) -> CheckpointReader:
        with self._reader_lock:
            if self._reader is None:
                self._reader = CheckpointReader(self._config)
            return self._reader

    def load(self, request: LoadRequest, progress: Progress) -> TensorflowModel:
        """Loads a SavedModel directory.

        Raises:
            ModelhostError: SOURCE_NOT_FOUND, SOURCE_INVALID, SOURCE_UNSUPPORTED, UNSUPPORTED.
        """
        capi.library()
        progress("reading", 0, 0)
        meta_graph = signatures.read_meta_graph(request.path, request.tags)
        source = _Source(request, meta_graph, signatures.read_entries(meta_graph))
        model = self._load_reachable(source, progress)
        return model or self._load_complete(source)

    def _load_reachable(self, source: _Source, progress: Progress) -> TensorflowModel | None:
        graphs.check_tables(source.nodes)
        prefix = str(Path(source.path) / "variables" / "variables")
        if not Path(f"{prefix}.index").is_file() and graphs.unassigned(source.nodes):
            # TensorFlow's own loader takes this for a model without variables, whose every call then fails.
            raise ModelhostError(
                Reason.SOURCE_INVALID,
                "the SavedModel is incomplete: expected variables/variables.index, for it has variables",
            )
        variables = graphs.variable_nodes(source.nodes)
        if not variables and any(node.op.startswith("Mutable") for node in source.nodes):
            return None
        checkpoint = Checkpoint(self._checkpoint_reader(), prefix)
        # What a run may change is the model's own.
        store = self._store if source.is_pure else None
        known = read_places(store, source.index_name) if store else {}
        restores = list(known) or (_find_restores(source, checkpoint) if variables else [])
        if restores is None:
            return None
        weights = Weights()
        try:
            if store:
                weights = read_shared(store, source.index_name, known, checkpoint, restores, progress)
            else:
                weights = read_copies(checkpoint, restores, progress)
            restored = {restore.node for restore in restores}
            specs = [graphs.variable_spec(node) for node in variables if node.name in restored]
            model = self._share_session(source, restores, weights, specs) if source.is_pure else None
            return model or self._own_session(source, restores, weights, specs, progress)
        except capi.StatusError as error:
            weights.close()
            # What this way cannot load the other may: it says the last word.
            if error.code in (Code.NOT_FOUND, Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION, Code.UNIMPLEMENTED):
                return None
            raise _source_error(error) from None
        except KeyError:
            weights.close()
            return None
        except BaseException:
            weights.close()
            raise

    def _share_session(
        self, source: _Source, restores: Sequence[graphs.Restore], weights: Weights, specs: Sequence[VariableSpec]
    ) -> TensorflowModel | None:
        """A model in a session for all models of its graph; None when its variables cannot be arguments."""
        if source.assets:
            # The session would go on using the files of a model that may be gone.
            return None
        graph = build.reachable_graph(source.meta_graph, source.entries, source.initialiser, ())
        if not arguments.convert(graph, {r.node: r.dtype for r in restores}, source.initialiser):
            return None
        try:
            program = self._programs.open(graph, partial(self._start, graph, source))
        except capi.StatusError:
            return None
        find = program.outputs([node.name for node in graph.node])
        try:
            values = {restore.node: value for restore, value in zip(restores, weights.tensors, strict=True)}
            bound = bind_with_weights(find, source.entries, self._config, graph, values)
        except BaseException:
            self._programs.close(program)
            raise
        return TensorflowModel(
            program.session, bound, source.entries, loader=_REACHABLE, variables=specs, is_pure=True, weights=weights,
            close_session=partial(self._programs.close, program),
        )  # fmt: skip

    def _start(self, graph: pb.GraphDef, source: _Source) -> capi.Session:
        session = capi.Session(self._config)
        try:
            session.import_graph(graph.SerializeToString())
            if source.initialiser:
                _run(session, source.assets, [source.initialiser])
        except BaseException:
            session.close()
            raise
        return session

    def _own_session(
        self, source: _Source, restores: Sequence[graphs.Restore], weights: Weights, specs: Sequence[VariableSpec],
        progress: Progress,
    ) -> TensorflowModel:  # fmt: skip
        """A model in a session with variables."""
        graph = build.reachable_graph(source.meta_graph, source.entries, source.initialiser, list(source.assets))
        build.add_assignments(graph, restores)
        session = capi.Session(self._config)
        try:
            session.import_graph(graph.SerializeToString())
            if restores:
                _assign(session, weights)
            if not source.is_pure:
                # The variables are changed where they are, as long as nobody else has hold of their values.
                weights.close()
            if source.initialiser:
                progress("warming", 0, 0)
                _run(session, source.assets, [source.initialiser])
            bound = bind(session.output, source.entries, self._config)
        except BaseException:
            session.close()
            raise
        return TensorflowModel(
            session, bound, source.entries, loader=_REACHABLE, variables=specs, is_pure=source.is_pure,
            weights=weights, close_session=session.close,
        )  # fmt: skip

    def _load_complete(self, source: _Source) -> TensorflowModel:
        session = capi.Session(self._config)
        try:
            session.load_saved_model(source.path, source.tags or signatures.DEFAULT_TAGS)
            nodes = graphs.reachable(source.meta_graph.graph_def, source.tensors)
            return TensorflowModel(
                session, bind(session.output, source.entries, self._config), source.entries, loader=_COMPLETE,
                variables=[graphs.variable_spec(node) for node in graphs.variable_nodes(nodes)],
                is_pure=source.is_pure, weights=Weights(), close_session=session.close,
            )  # fmt: skip
        except capi.StatusError as error:
            session.close()
            raise _source_error(error) from None
        except KeyError as error:
            session.close()
            raise ModelhostError(
                Reason.SOURCE_INVALID, f"a signature names the tensor {error}, which the graph does not have"
            ) from None


class _Source:
    """A SavedModel on the disk, and what its signatures reach."""

    def __init__(self, request: LoadRequest, meta_graph: pb.MetaGraphDef, entries: Sequence[signatures.Entry]) -> None:
        self.path, self.tags = request.path, request.tags
        self.meta_graph, self.entries = meta_graph, entries
        self.index_name = index_name(request.digest, request.tags)
        self.initialiser = graphs.init_op(meta_graph)
        self.assets = graphs.asset_feeds(meta_graph, request.path)
        self.tensors = [tensor for entry in entries for tensor in entry.tensors]
        graph = meta_graph.graph_def
        roots = [*self.tensors, *([self.initialiser] if self.initialiser else []), *self.assets]
        self.nodes = graphs.reachable(graph, roots)
        self.is_pure = is_pure(graph, graphs.reachable(graph, self.tensors))


def _find_restores(source: _Source, checkpoint: Checkpoint) -> list[graphs.Restore] | None:
    objects = checkpoint.object_graph()
    return graphs.find_restores(source.meta_graph, source.nodes, objects) if objects else None


def _assign(session: capi.Session, weights: Weights) -> None:
    """Gives the variables of a session their values, which are not copied."""
    values = weights.tensors
    session.run(
        capi.Status(),
        (capi.Output * len(values))(*[session.output(build.value(i)) for i in range(len(values))]),
        (ctypes.c_void_p * len(values))(*values),
        (capi.Output * 0)(),
        (ctypes.c_void_p * 0)(),
        (ctypes.c_void_p * len(values))(*[session.operation(build.assign_operation(i)) for i in range(len(values))]),
    )


def _source_error(error: capi.StatusError) -> ModelhostError:
    first_line = error.message.partition("\n")[0][:500]
    if capi.is_lack_of_memory(error):
        return out_of_memory(first_line)
    return ModelhostError(Reason.SOURCE_INVALID, f"TensorFlow cannot load the SavedModel: {first_line}")


def _run(session: capi.Session, feeds: Mapping[str, bytes], targets: Sequence[str]) -> None:
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
