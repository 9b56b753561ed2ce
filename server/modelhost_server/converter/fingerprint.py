"""Tells which frozen graphs compute the same: a hash over what nodes do and how they are connected, not their names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

from .frozen import IN, OUT

# What TensorFlow notes for itself.
_NOTES = ("_output_shapes", "_class", "_user_specified_name", "_lower_using_switch_merge", "_num_original_outputs")


def fingerprint(graph: Any) -> str | None:
    """The hash of a frozen GraphDef; None when it has cycles, as loops of TensorFlow 1 do."""
    functions = {function.signature.name: function for function in graph.library.function}
    known: dict[str, bytes] = {}

    def of_function(name: str) -> bytes:
        if name not in known:
            function = functions[name]
            arguments = {arg.name: f"argument {i}".encode() for i, arg in enumerate(function.signature.input_arg)}
            roots = [function.ret[arg.name] for arg in function.signature.output_arg]
            roots += [f"^{node}" for node in function.control_ret.values()]
            known[name] = _hash(function.node_def, roots, arguments, of_function)
        return known[name]

    outputs = sum(node.name.startswith(OUT) for node in graph.node)
    try:
        return _hash(graph.node, [f"{OUT}{i}" for i in range(outputs)], {}, of_function).hex()
    except _CycleError:
        return None


class _CycleError(Exception):
    pass


def _hash(
    nodes: Iterable[Any], roots: list[str], known: dict[str, bytes], of_function: Callable[[str], bytes]
) -> bytes:
    """The hash of what the roots are computed by."""
    by_name = {node.name: node for node in nodes}
    done = dict(known)
    started: set[str] = set()
    pending = [_split(root)[0] for root in roots]
    while pending:
        name = pending[-1]
        if name in done:
            pending.pop()
            continue
        node = by_name[name]
        missing = [source for source, _ in map(_split, node.input) if source not in done]
        if not missing:
            done[name] = _node_hash(node, done, of_function)
            pending.pop()
        elif name in started:
            raise _CycleError
        else:
            started.add(name)
            pending += missing
    return _digest([_place(root, done) for root in roots])


def _split(reference: str) -> tuple[str, str]:
    """The node an input reference names, and what of it."""
    name, _, place = reference.removeprefix("^").partition(":")
    return name, "^" if reference.startswith("^") else place or "0"


def _place(reference: str, done: dict[str, bytes]) -> bytes:
    name, place = _split(reference)
    return done[name] + place.encode()


def _node_hash(node: Any, done: dict[str, bytes], of_function: Callable[[str], bytes]) -> bytes:
    parts = [node.op.encode()]
    if node.op == "Placeholder" and node.name.startswith(IN):
        parts.append(node.name.encode())
    for key in sorted(node.attr):
        if key in _NOTES:
            continue
        value = node.attr[key]
        called = [value.func] if value.HasField("func") else list(value.list.func)
        content = [of_function(function.name) for function in called] or [value.SerializeToString(deterministic=True)]
        parts += [key.encode(), *content]
    data = [reference for reference in node.input if not reference.startswith("^")]
    control = [reference for reference in node.input if reference.startswith("^")]
    parts += [_place(reference, done) for reference in data]
    parts += sorted(_place(reference, done) for reference in control)
    return _digest(parts)


def _digest(parts: list[bytes]) -> bytes:
    # With lengths, so that no two lists of parts look alike.
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()
