"""Which values of a checkpoint are the weights that a SavedModel's signatures use. No TensorFlow is needed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..compat import saved_model_pb2 as pb
from ..engines.tensorflow_graph import find_restores, reachable, variable_nodes, variable_spec
from ..engines.tensorflow_signatures import read_entries, read_meta_graph
from ..tensors import VariableSpec

OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"

_REAL = frozenset({1, 2, 14, 19})
# Keras gives attention and GRU layers biases of two dimensions.
_BIAS = re.compile(r"bias(_\d+)?$")


def is_kernel(name: str, dtype: int, shape: Sequence[int]) -> bool:
    """Whether a value connects units: it is real, has two extents above 1 at least, and is not named a bias.

    Kernels of dense, convolutional, recurrent and attention layers are, and embeddings; biases, scales and statistics
    are not, however many extents of 1 their shape has.
    """
    return dtype in _REAL and sum(extent > 1 for extent in shape) >= 2 and not _BIAS.search(name)


def used_variables(path: str, tags: Sequence[str], objects: pb.TrackableObjectGraph | None) -> dict[str, VariableSpec]:
    """The variables that the signatures use, by their keys in the checkpoint.

    So neither what an optimizer kept is among them, nor the copies of weights that Keras stores beside the ones used.

    Args:
        path: the SavedModel's directory.
        tags: the MetaGraph's tags; the usual ones when empty.
        objects: what the checkpoint has under OBJECT_GRAPH_KEY; None when it has nothing there.

    Raises:
        ModelhostError: one of the SOURCE_ reasons.
    """
    meta_graph = read_meta_graph(path, tags)
    roots = [tensor for entry in read_entries(meta_graph) for tensor in entry.tensors]
    nodes = reachable(meta_graph.graph_def, roots)
    specs = {node.name: variable_spec(node) for node in variable_nodes(nodes)}
    restores = find_restores(meta_graph, nodes, objects) if objects is not None else None
    if restores is not None:
        return {restore.key: specs[restore.node] for restore in restores}
    # TensorFlow 1 stores variables by name; and where the object graph leaves doubts, it still tells names.
    if objects is None:
        return {spec.name: spec for spec in specs.values()}
    attributes = [attribute for node in objects.nodes for attribute in node.attributes]
    return {a.checkpoint_key: spec for spec in specs.values() for a in attributes if a.full_name == spec.name}
