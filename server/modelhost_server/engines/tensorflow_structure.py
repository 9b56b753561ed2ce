"""Tells whether two graphs compute the same, but for the names in them.

Exporters number functions through, so that not even two fine-tunes of one model have equal names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.message import Message

from ..compat import saved_model_pb2 as pb

# Said of a graph for those who look at it.
_COSMETIC = frozenset({"_input_shapes", "_output_shapes", "_user_specified_name", "debug_name"})


def structure(graph: pb.GraphDef) -> bytes:
    """A digest that is equal for graphs of equal nodes, in equal order, connected in the same way."""
    return _Structure(graph).digest()


class _Structure:
    def __init__(self, graph: pb.GraphDef) -> None:
        self._graph = graph
        self._functions = {function.signature.name: function for function in graph.library.function}
        # Functions are numbered in the order in which they are first named.
        self._numbers: dict[str, int] = {}
        self._pending: list[pb.FunctionDef] = []

    def digest(self) -> bytes:
        graph = self._graph
        digest = hashlib.sha256()

        def add(part: Any) -> None:
            digest.update(repr(part).encode() + b"\n")

        add((_bytes(graph.versions), [_bytes(gradient) for gradient in graph.library.gradient]))
        numbers = {node.name: f"n{i}" for i, node in enumerate(graph.node)}
        for node in graph.node:
            add(self._node(node, numbers))
        while self._pending:
            for part in self._function(self._pending.pop(0)):
                add(part)
        return digest.digest()

    def _function(self, function: pb.FunctionDef) -> Iterable[Any]:
        signature = function.signature
        numbers = {argument.name: f"a{i}" for i, argument in enumerate(signature.input_arg)}
        numbers.update((node.name, f"n{i}") for i, node in enumerate(function.node_def))
        yield [_unnamed(argument) for argument in signature.input_arg], signature.is_stateful
        yield [(_unnamed(out), _reference(function.ret[out.name], numbers)) for out in signature.output_arg]
        yield self._attrs(function.attr), sorted(_reference(ref, numbers) for ref in function.control_ret.values())
        yield [(i, self._attrs(function.arg_attr[i].attr)) for i in sorted(function.arg_attr)]
        yield sorted(function.resource_arg_unique_id.items())
        for node in function.node_def:
            yield self._node(node, numbers)

    def _node(self, node: pb.NodeDef, numbers: Mapping[str, str]) -> Any:
        inputs = [_reference(reference, numbers) for reference in node.input]
        return self._name(node.op), inputs, node.device, self._attrs(node.attr)

    def _attrs(self, attrs: Mapping[str, pb.AttrValue]) -> Any:
        return [(key, self._attr(attrs[key])) for key in sorted(attrs) if key not in _COSMETIC]

    def _attr(self, attr: pb.AttrValue) -> Any:
        functions = [attr.func] if attr.HasField("func") else attr.list.func
        if not functions:
            return _bytes(attr)
        return [(self._name(function.name), self._attrs(function.attr)) for function in functions]

    def _name(self, name: str) -> str | int:
        """The number of a function; any other name as it is."""
        if name not in self._functions:
            return name
        if name not in self._numbers:
            self._numbers[name] = len(self._numbers)
            self._pending.append(self._functions[name])
        return self._numbers[name]


def _bytes(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)


def _unnamed(argument: pb.OpDef.ArgDef) -> bytes:
    copy = pb.OpDef.ArgDef()
    copy.CopyFrom(argument)
    copy.ClearField("name")
    return _bytes(copy)


def _reference(reference: str, numbers: Mapping[str, str]) -> tuple[bool, str, str]:
    """Whether it is a control input, whose it is, and the rest."""
    name, _, rest = reference.removeprefix("^").partition(":")
    # A name that is nowhere must not look like a number.
    return reference.startswith("^"), numbers.get(name, f"?{name}"), rest
