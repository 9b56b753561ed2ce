"""Stage `freeze`: a SavedModel becomes graphs of constants, one for each signature that computes something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..engines.tensorflow_graph import variable_nodes, variable_spec
from ..engines.tensorflow_signatures import Entry, read_entries, read_meta_graph
from . import refusals
from .frozen import IN, Frozen, FrozenSignature


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Freezes the SavedModel at `path`, with these `tags`, into the directory `target`."""
    path, tags, target = job["path"], job["tags"], Path(job["target"])
    meta_graph = read_meta_graph(path, tags)
    entries = read_entries(meta_graph)
    refusals.check_signatures(entries)
    live = {node.name: node for entry in entries for node in refusals.live_nodes(meta_graph.graph_def, entry)}
    refusals.check_size(live.values())

    # From here on with TensorFlow, which takes seconds to import.
    from .fingerprint import fingerprint
    from .loaders import find_op, freeze

    for entry in entries:
        refusals.check_nodes(meta_graph.graph_def, entry, find_op)
    files: dict[str, str] = {}
    signatures: dict[str, FrozenSignature] = {}

    def take(entry: Entry, graph: Any) -> None:
        # Graphs that cannot be compared are told apart by the signature's name.
        identity = fingerprint(graph) or entry.spec.name
        if identity not in files:
            files[identity] = f"{len(files)}.pb"
            (target / files[identity]).write_bytes(graph.SerializeToString(deterministic=True))
        there = {node.name for node in graph.node}
        inputs = tuple(i if f"{IN}{i}" in there else None for i in range(len(entry.inputs)))
        signatures[entry.spec.name] = FrozenSignature(entry.spec, files[identity], inputs)

    freeze(path, tags, entries, take)
    variables = sorted((variable_spec(node) for node in variable_nodes(live.values())), key=lambda v: v.name)
    Frozen(tuple(signatures.values()), tuple(variables)).write(target)
    return {"graphs": len(files), "signatures": len(signatures)}
