"""What becomes of a classifier's and a regressor's outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from struct import unpack
from typing import Any, NamedTuple

from ...compat.tensor_pb2 import DataType
from ...tensors import STRING, RawTensor, output_bytes
from .errors import invalid

CLASSES, SCORES, REGRESSIONS = "classes", "scores", "outputs"
_FLOAT = 1


class Class(NamedTuple):
    """A class of an example: label and score; "" or 0 where the model gives none."""

    label: str
    score: float


def classifications(outputs: Mapping[str, RawTensor], examples: int) -> list[list[Class]]:
    """The classes of each example.

    Raises:
        ForeignError: the outputs are not a classifier's.
    """
    classes, scores = outputs.get(CLASSES), outputs.get(SCORES)
    for name, tensor, dtype in ((CLASSES, classes, STRING), (SCORES, scores, _FLOAT)):
        if tensor is not None:
            _check_classes(name, tensor, dtype, examples)
    if classes and scores and classes.shape[1] != scores.shape[1]:
        raise invalid(
            f"Tensors class and score should match in dim_size(1). Got {classes.shape[1]} vs. {scores.shape[1]}"
        )
    given = classes or scores
    assert given is not None, "a classifier has classes or scores"
    count = examples * given.shape[1]
    labels: Any = classes.data if classes else [b""] * count
    values = _floats(scores) if scores else [0.0] * count
    found = [Class(label.decode("utf-8", "replace"), score) for label, score in zip(labels, values, strict=True)]
    width = given.shape[1]
    return [found[i * width : (i + 1) * width] for i in range(examples)]


def _check_classes(name: str, tensor: RawTensor, dtype: int, examples: int) -> None:
    if len(tensor.shape) != 2:
        raise invalid(f"Expected Tensor shape: [batch_size num_classes] but got {_shape(tensor)}")
    if tensor.dtype != dtype:
        raise invalid(f"Expected {name} Tensor of {_name(dtype)}. Got: {_name(tensor.dtype)}")
    if tensor.shape[0] != examples:
        raise invalid(f"Expected {name} output batch size of {examples}. Got: {tensor.shape[0]}")


def regressions(outputs: Mapping[str, RawTensor], examples: int) -> list[float]:
    """The value of each example.

    Raises:
        ForeignError: the outputs are not a regressor's.
    """
    tensor = outputs[REGRESSIONS]
    if len(tensor.shape) != 1 and tuple(tensor.shape[1:]) != (1,):
        raise invalid(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {_shape(tensor)}"
        )
    if tensor.shape[0] != examples:
        raise invalid(f"Input batch size did not match output batch size: {examples} vs. {tensor.shape[0]}")
    if tensor.dtype != _FLOAT:
        raise invalid(f"Expected output Tensor of DT_FLOAT.  Got: {_name(tensor.dtype)}")
    return list(_floats(tensor))


def _floats(tensor: RawTensor) -> Sequence[float]:
    data = output_bytes(tensor)
    return unpack(f"<{len(data) // 4}f", data)


def _name(dtype: int) -> str:
    return DataType.Name(dtype)  # type: ignore[arg-type]


def _shape(tensor: RawTensor) -> str:
    return f"[{','.join(map(str, tensor.shape))}]"
