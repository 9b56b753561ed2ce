"""Finds out whether predictions of a signature may run together: whether it makes a difference to their answers."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from ..errors import ModelhostError
from ..tensors import STRING, RawTensor
from .joining import Inputs, join, split
from .sameness import content, itemsize, same

# Batches of so many predictions are compared with predictions alone.
_SIZES = (2, 3)
SAMPLES = max(_SIZES)

Run = Callable[[Inputs], Awaitable[Sequence[RawTensor]]]


class Example(NamedTuple):
    """A prediction that ran alone, and its answer."""

    inputs: Inputs
    outputs: Sequence[RawTensor]

    @property
    def rows(self) -> int:
        """How many examples it has."""
        return int(self.inputs[0][1].shape[0])


class CannotTellError(Exception):
    """All predictions are the same, so that they say nothing."""


async def why_not(examples: Sequence[Example], run: Run, tolerance: float) -> str:
    """Why predictions may not run together; "" when they may.

    Args:
        examples: predictions that callers made and that may share a batch.
        run: runs the signature once, alone.
        tolerance: see `sameness.same`.

    Raises:
        CannotTellError: another time, perhaps.
        ModelhostError: the model cannot be asked now.
    """
    examples = await _differing(examples, run)
    for size in _SIZES:
        chosen = examples[:size]
        rows = sum(example.rows for example in chosen)
        try:
            outputs = await run(join([example.inputs for example in chosen], rows))
        except ModelhostError as error:
            return f"{size} predictions together fail: {error.message}"
        answers = split(outputs, [example.rows for example in chosen], rows)
        if answers is None:
            return f"outputs of {size} predictions together are of other extents than {rows}"
        if not all(same(answer, example.outputs, tolerance) for answer, example in zip(answers, chosen, strict=True)):
            return f"{size} predictions together have other answers than alone"
    return ""


async def _differing(examples: Sequence[Example], run: Run) -> Sequence[Example]:
    """Examples of which not all are the same: if all are, one is made of the first by moving its elements."""
    first = examples[0]
    if any(not _equal(example.inputs, first.inputs) for example in examples[1:]):
        return examples
    moved = [(position, _moved(tensor)) for position, tensor in first.inputs]
    if _equal(moved, first.inputs):
        raise CannotTellError
    try:
        return [first, Example(moved, await run(moved)), *examples[2:]]
    except ModelhostError:
        # It was made up; the model need not take it.
        raise CannotTellError from None


def _equal(one: Inputs, other: Inputs) -> bool:
    return all(
        tuple(a.shape) == tuple(b.shape) and (a.data == b.data if a.dtype == STRING else content(a) == content(b))
        for (_, a), (_, b) in zip(one, other, strict=True)
    )


def _moved(tensor: RawTensor) -> RawTensor:
    """The same elements in another order, which a model takes if anything; of a single number, another one."""
    data: Any = tensor.data if tensor.dtype == STRING else bytes(content(tensor))
    unit = itemsize(tensor)
    moved = data[unit:] + data[:unit]
    if moved == data and tensor.dtype == 1:
        values = struct.unpack(f"<{len(data) // 4}f", data)
        moved = struct.pack(f"<{len(values)}f", *(0.75 * value + 0.125 for value in values))
    return tensor._replace(data=moved)
