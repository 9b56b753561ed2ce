"""What makes a SavedModel unfit for any engine but TensorFlow, seen before anything is converted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..compat import saved_model_pb2 as pb
from ..engines.tensorflow_graph import node_name, reachable_functions, variable_nodes, variable_spec
from ..engines.tensorflow_signatures import Entry
from ..errors import brief
from ..tensors import DTYPE_NAME, STRING, TensorSpec

# Protocol buffers, and with them frozen graphs, end here.
_LARGEST_GRAPH = (1 << 31) - (16 << 20)
_FLOAT64 = 2
_COMPLEX = (8, 18)

# Stateful by TensorFlow's op registry, and yet without a trace: they read what nobody writes, or call what is looked
# at itself. TensorArrays live and die in one run.
_HARMLESS = frozenset(
    {
        "VarHandleOp", "ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableV2", "Variable",
        "StatefulPartitionedCall", "PartitionedCall", "If", "While", "Case", "RemoteCall", "SymbolicGradient",
    }
)  # fmt: skip
_HARMLESS_PREFIX = "TensorArray"
# They write to the server's log, which no caller sees.
_PRINTS = frozenset({"Print", "PrintV2"})
_PYTHON = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc"})
_RANDOM = frozenset({"TruncatedNormal", "ParameterizedTruncatedNormal", "Multinomial", "RngReadAndSkip", "RngSkip"})
_TABLES = ("HashTable", "MutableHashTable", "MutableDenseHashTable", "LookupTable", "InitializeTable", "AnonymousHash")
_WRITES = ("Assign", "ResourceApply", "ResourceSparseApply", "ResourceScatter", "Scatter", "Apply", "SparseApply")


@dataclass(frozen=True, slots=True)
class Op:
    """What TensorFlow's registry says of an op."""

    is_stateful: bool
    has_strings: bool


# None when TensorFlow has no such op.
FindOp = Callable[[str], Op | None]


class CannotConvert(Exception):
    """The model can be served by TensorFlow only; the message says why."""


def check_signatures(entries: Sequence[Entry]) -> None:
    """Refuses signatures that no other engine can have."""
    for entry in entries:
        where = f"signature {brief(entry.spec.name)}"
        if not entry.inputs:
            raise CannotConvert(f"{where} has no inputs")
        for side, specs in (("input", entry.spec.inputs), ("output", entry.spec.outputs)):
            for spec in specs:
                fault = _fault(spec)
                if fault:
                    raise CannotConvert(f"{where}: the {side} {brief(spec.name)} {fault}")
        if len({endpoint.tensor for endpoint in entry.inputs}) < len(entry.inputs):
            raise CannotConvert(f"{where} has two inputs that are one tensor of the graph")


def _fault(spec: TensorSpec) -> str:
    if spec.dtype == STRING:
        return "is a string tensor"
    if spec.dtype in _COMPLEX:
        return f"has complex numbers ({DTYPE_NAME[spec.dtype]})"
    if spec.dtype == _FLOAT64:
        return "is float64, and faster engines compute with float32"
    if spec.shape is None:
        return "has an unknown rank"
    return "has a default value" if spec.optional else ""


def check_size(nodes: Iterable[pb.NodeDef]) -> None:
    """Refuses variables that do not fit into a frozen graph."""
    size = sum(variable_spec(node).nbytes for node in variable_nodes(nodes))
    if size > _LARGEST_GRAPH:
        raise CannotConvert(f"the variables take {size / 1e9:.1f} GB, and a frozen graph at most 2 GB")


def live_nodes(graph: pb.GraphDef, entry: Entry) -> list[pb.NodeDef]:
    """The nodes that compute a signature's outputs from its inputs."""
    fed = {endpoint.tensor for endpoint in entry.inputs}
    roots = [endpoint.tensor for endpoint in entry.outputs if endpoint.tensor not in fed]
    return _upstream(graph.node, roots, fed)


def _upstream(nodes: Iterable[pb.NodeDef], roots: Iterable[str], fed: set[str]) -> list[pb.NodeDef]:
    by_name = {node.name: node for node in nodes}
    seen: dict[str, pb.NodeDef] = {}
    pending = list(roots)
    while pending:
        reference = pending.pop()
        name = node_name(reference)
        if name in seen or name not in by_name or _tensor(reference) in fed:
            continue
        seen[name] = by_name[name]
        # What only an assertion or a message needs computes nothing.
        if by_name[name].op != "Assert" and by_name[name].op not in _PRINTS:
            pending += by_name[name].input
    return list(seen.values())


def _tensor(reference: str) -> str:
    return reference if ":" in reference else f"{reference}:0"


def check_nodes(graph: pb.GraphDef, entry: Entry, find_op: FindOp) -> None:
    """Refuses a signature whose computation is more than a function of its inputs."""
    nodes = live_nodes(graph, entry)
    functions = {function.signature.name for function in graph.library.function}
    called = reachable_functions(graph, nodes)
    bodies = [(_needed(function, find_op), function.node_def) for function in called]
    for body, scope in [(nodes, graph.node), *bodies]:
        for node in body:
            # A node may call a function by using its name as the op.
            fault = "" if node.op in functions else _node_fault(node, scope, find_op(node.op))
            if fault:
                raise CannotConvert(f"signature {brief(entry.spec.name)} {fault}")


def _needed(function: pb.FunctionDef, find_op: FindOp) -> list[pb.NodeDef]:
    """The nodes of a function's body that run: what its results need, and whatever has effects."""
    effects = []
    for node in function.node_def:
        op = find_op(node.op)
        if op is None or op.is_stateful:
            effects.append(node.name)
    return _upstream(function.node_def, [*function.ret.values(), *effects], set())


def _node_fault(node: pb.NodeDef, scope: Sequence[pb.NodeDef], op: Op | None) -> str:
    name = node.op
    if op is None:
        return f"uses the op {brief(name)}, which TensorFlow itself does not have"
    if name == "Assert":
        return "" if _always_alike(node, scope) else f"checks its inputs (op {name}), which only TensorFlow does"
    if name.startswith("CheckNumerics"):
        return f"checks its values (op {name}), which only TensorFlow does"
    if name in _PRINTS:
        return ""
    if name in _PYTHON:
        return f"calls Python code (op {name})"
    if name.startswith(_TABLES):
        return f"uses a lookup table (op {name})"
    if op.is_stateful and name.startswith(_WRITES):
        return f"changes a variable (op {name})"
    if op.is_stateful and ("Random" in name or name in _RANDOM):
        return f"draws random numbers (op {name})"
    if op.has_strings or any(attr.type == STRING or STRING in attr.list.type for attr in node.attr.values()):
        return f"works on strings (op {name})"
    if op.is_stateful and name not in _HARMLESS and not name.startswith(_HARMLESS_PREFIX):
        return f"keeps or changes state (op {name})"
    return ""


def _always_alike(assertion: pb.NodeDef, scope: Sequence[pb.NodeDef]) -> bool:
    """Whether an assertion depends on constants of its own body only, so that it always holds or never."""
    condition = _upstream(scope, assertion.input[:1], set())
    names = {node.name for node in condition}
    sources = {node_name(reference) for node in condition for reference in node.input}
    return {node_name(assertion.input[0]), *sources} <= names and all(
        node.input or node.op == "Const" for node in condition
    )
