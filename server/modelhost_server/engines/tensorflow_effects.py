"""Whether running a graph leaves a trace: in variables, tables, queues, generators, files or logs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from ..compat import saved_model_pb2 as pb
from . import tensorflow_capi as capi
from .tensorflow_graph import reachable_functions

# Ops that TensorFlow calls stateful, and that yet only read, call functions (which are looked at themselves), check,
# make what is there for one run, or make what only other ops fill.
_HARMLESS = frozenset(
    {
        "Assert", "Case", "CheckNumerics", "CheckNumericsV2", "DeviceIndex", "GuaranteeConst", "HashTable",
        "HashTableV2", "If", "LookupTableFind", "LookupTableFindV2", "LookupTableSize", "LookupTableSizeV2",
        "MutableDenseHashTableV2", "MutableHashTableOfTensorsV2", "MutableHashTableV2", "ReadVariableOp",
        "ResourceGather", "ResourceGatherNd", "StatefulPartitionedCall", "StatelessRandomGetAlg",
        "TensorArrayCloseV3", "TensorArrayConcatV3", "TensorArrayGatherV3", "TensorArrayReadV3",
        "TensorArrayScatterV3", "TensorArraySizeV3", "TensorArraySplitV3", "TensorArrayV3", "TensorArrayWriteV3",
        "VarHandleOp", "VarIsInitializedOp", "Variable", "VariableShape", "VariableV2", "While",
    }
)  # fmt: skip
# Ops that TensorFlow calls stateless, and that yet write to the memory of their input, whoever else uses it.
_IN_PLACE = frozenset({"InplaceAdd", "InplaceSub", "InplaceUpdate"})


def is_pure(graph: pb.GraphDef, nodes: Sequence[pb.NodeDef]) -> bool:
    """Whether running these nodes leaves no trace, whichever way control flow goes."""
    functions = reachable_functions(graph, nodes)
    ops = {node.op for node in nodes}.union(*({node.op for node in f.node_def} for f in functions))
    return all(map(_leaves_no_trace, ops - {f.signature.name for f in functions}))


@lru_cache(4096)
def _leaves_no_trace(op: str) -> bool:
    if op in _HARMLESS:
        return True
    serialized = capi.op_definition(op)
    if serialized is None or op in _IN_PLACE:
        return False
    definition = pb.OpDef.FromString(serialized)
    return not definition.is_stateful and not any(argument.is_ref for argument in definition.input_arg)
