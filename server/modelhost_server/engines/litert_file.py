"""What a `.tflite` file says about itself: its signatures, and what of it cannot be served."""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from ..errors import ModelhostError, Reason, brief
from ..tensors import DTYPE_NAME, STRING, SignatureSpec, TensorSpec
from .optimised_arrays import NUMPY_DTYPE

_IDENTIFIER = b"TFL3"
_UNCLEAN = re.compile(r"[^A-Za-z0-9_./-]+")

_NUMBER_BY_NAME = {name: number for number, name in DTYPE_NAME.items()}
# DataType numbers by the schema's own.
_DTYPE: Mapping[int, int] = {
    value: _NUMBER_BY_NAME[name.lower()]
    for name, value in vars(schema.TensorType).items()
    if name.lower() in _NUMBER_BY_NAME
}

_STATEFUL = (
    schema.BuiltinOperator.VAR_HANDLE,
    schema.BuiltinOperator.CALL_ONCE,
    schema.BuiltinOperator.HASHTABLE,
)


@dataclass(frozen=True, slots=True)
class FileSignature:
    """A signature of a file: the subgraph that computes it, and the indices of its tensors there."""

    spec: SignatureSpec
    subgraph: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FileDescription:
    """What a file holds. `custom_ops` are those that are not LiteRT's own."""

    signatures: tuple[FileSignature, ...]
    custom_ops: tuple[str, ...]
    is_stateful: bool


def check_file(path: Path) -> None:
    """Refuses what must not reach the interpreter, whose own verifier does the rest.

    Raises:
        ModelhostError: SOURCE_NOT_FOUND, SOURCE_INVALID.
        OSError: it cannot be read.
    """
    if not path.exists():
        raise ModelhostError(Reason.SOURCE_NOT_FOUND, f"there is no {brief(path.name)}")
    if not path.is_file():
        # To read a pipe would be to wait for ever.
        raise ModelhostError(Reason.SOURCE_INVALID, f"{brief(path.name)} is not a regular file")
    with path.open("rb") as file:
        start = file.read(8)
    if start[4:] != _IDENTIFIER:
        raise ModelhostError(
            Reason.SOURCE_INVALID, f"{brief(path.name)} is not a .tflite file: it lacks the identifier TFL3"
        )
    try:
        incomplete = _read(path).OperatorCodesIsNone()
    except Exception:
        # Bytes that lead nowhere make the reader fail in many ways.
        incomplete = True
    if incomplete:
        # The verifier lets this pass, and the interpreter's builder then ends the process.
        raise ModelhostError(Reason.SOURCE_INVALID, f"{brief(path.name)} is truncated or corrupt")


def describe(path: Path) -> FileDescription:
    """Reads a file that the interpreter's verifier let pass.

    Raises:
        ModelhostError: SOURCE_INVALID, SOURCE_UNSUPPORTED.
    """
    try:
        return _described(_read(path))
    except (struct.error, TypeError, IndexError, AttributeError):
        # The reader looks where the bytes lead it, and the verifier does not follow everywhere.
        raise ModelhostError(Reason.SOURCE_INVALID, f"{brief(path.name)} is truncated or corrupt") from None


def _described(model: Any) -> FileDescription:
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    graphs = [model.Subgraphs(i) for i in range(model.SubgraphsLength())]
    signatures = [_defined(model.SignatureDefs(i), graphs) for i in range(model.SignatureDefsLength())]
    return FileDescription(
        tuple(sorted(signatures or [_undefined(graphs[0])], key=lambda signature: signature.spec.name)),
        tuple(sorted((code.CustomCode() or b"?").decode("utf-8", "replace") for code in codes if _is_custom(code))),
        any(code.BuiltinCode() in _STATEFUL for code in codes)
        or any(graph.Tensors(i).IsVariable() for graph in graphs for i in range(graph.TensorsLength())),
    )


def _read(path: Path) -> Any:
    with path.open("rb") as file:
        return schema.Model.GetRootAs(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), 0)


def _is_custom(code: Any) -> bool:
    return bool(code.BuiltinCode() == schema.BuiltinOperator.CUSTOM)


def _defined(definition: Any, graphs: Sequence[Any]) -> FileSignature:
    name = _text(definition.SignatureKey())
    inputs = sorted(
        (_text(m.Name()), m.TensorIndex()) for m in map(definition.Inputs, range(definition.InputsLength()))
    )
    outputs = sorted(
        (_text(m.Name()), m.TensorIndex()) for m in map(definition.Outputs, range(definition.OutputsLength()))
    )
    subgraph = definition.SubgraphIndex()
    # To write into a tensor that is no input could be to write into the mapped file, which ends the process.
    if (
        subgraph >= len(graphs)
        or sorted(index for _, index in inputs) != sorted(_inputs(graphs[subgraph]))
        or not {index for _, index in outputs} <= set(_outputs(graphs[subgraph]))
    ):
        raise ModelhostError(Reason.SOURCE_INVALID, f"signature {brief(name)} does not fit the file's graph")
    return _signature(name, graphs[subgraph], subgraph, inputs, outputs)


def _undefined(graph: Any) -> FileSignature:
    return _signature(
        "serving_default", graph, 0, _named(graph, _inputs(graph), "input"), _named(graph, _outputs(graph), "output")
    )


def _inputs(graph: Any) -> list[int]:
    return [graph.Inputs(i) for i in range(graph.InputsLength())]


def _outputs(graph: Any) -> list[int]:
    return [graph.Outputs(i) for i in range(graph.OutputsLength())]


def _named(graph: Any, indices: Sequence[int], kind: str) -> list[tuple[str, int]]:
    """Tensors with names of their own, made of those that the file has: `serving_default_x:0` and the like."""
    named: dict[str, int] = {}
    for position, index in enumerate(indices):
        own = _text(graph.Tensors(index).Name()).removesuffix(":0")
        clean = _UNCLEAN.sub("_", own).strip("_") or f"{kind}_{position}"
        name, number = clean, 1
        while name in named:
            number += 1
            name = f"{clean}_{number}"
        named[name] = index
    return sorted(named.items())


def _signature(
    name: str, graph: Any, subgraph: int, inputs: Sequence[tuple[str, int]], outputs: Sequence[tuple[str, int]]
) -> FileSignature:
    spec = SignatureSpec(
        name,
        tuple(_tensor(key, graph.Tensors(index)) for key, index in inputs),
        tuple(_tensor(key, graph.Tensors(index)) for key, index in outputs),
    )
    return FileSignature(spec, subgraph, tuple(i for _, i in inputs), tuple(i for _, i in outputs))


def _tensor(name: str, tensor: Any) -> TensorSpec:
    dtype = _DTYPE.get(tensor.Type(), 0)
    if dtype not in NUMPY_DTYPE:
        what = "strings" if dtype == STRING else f"elements of the schema's type {tensor.Type()}"
        raise ModelhostError(
            Reason.SOURCE_UNSUPPORTED, f"the tensor {brief(name)} holds {what}, which the litert engine cannot serve"
        )
    if tensor.ShapeSignatureLength():
        shape = tuple(tensor.ShapeSignature(i) for i in range(tensor.ShapeSignatureLength()))
    else:
        shape = tuple(tensor.Shape(i) for i in range(tensor.ShapeLength()))
    return TensorSpec(name, dtype, shape if shape or tensor.HasRank() else None)


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")
