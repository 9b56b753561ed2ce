"""Finds out whether predictions of a signature may run together: whether it makes a difference to their answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from ..errors import ModelhostError, Reason
from ..tensors import RawTensor
from .joining import Inputs, join, split
from .sameness import same
from .variation import differ, varied

# Predictions to compare with.
SAMPLES = 3
# What a model fails with because of its inputs, whenever it is asked.
OF_THE_MODEL = (Reason.MODEL_REJECTED_INPUT, Reason.MODEL_EXECUTION_FAILED, Reason.INTERNAL)

Run = Callable[[Inputs], Awaitable[Sequence[RawTensor]]]


class Example(NamedTuple):
    """A prediction that ran alone, and its answer; None when that was not of all outputs."""

    inputs: Inputs
    outputs: Sequence[RawTensor] | None

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
    first, second, third = [
        (example.inputs, example.outputs if example.outputs is not None else await run(example.inputs))
        for example in await _telling(examples, run)
    ]
    # The second time the other way round: what comes later in a batch may depend on what comes before it (running
    # maxima), or on which is larger (sorting).
    for chosen in ((first, second), (third, second, first)):
        counts = [int(inputs[0][1].shape[0]) for inputs, _ in chosen]
        rows = sum(counts)
        try:
            outputs = await run(join([inputs for inputs, _ in chosen], rows))
        except ModelhostError as error:
            if error.reason not in OF_THE_MODEL:
                raise
            return f"{len(chosen)} predictions together fail: {error.message}"
        answers = split(outputs, counts, rows)
        if answers is None:
            return f"outputs of {len(chosen)} predictions together are of other extents than {rows}"
        if not all(same(answer, alone, tolerance) for answer, (_, alone) in zip(answers, chosen, strict=True)):
            return f"{len(chosen)} predictions together have other answers than alone"
    return ""


async def _telling(examples: Sequence[Example], run: Run) -> Sequence[Example]:
    """Examples that differ in all that can be made to differ. What callers send often has some of its inputs, or their
    sum, or their length, in common: a model that uses that of the whole batch would not show.
    """
    first = examples[0]
    other = next((example for example in examples[1:] if differ(example.inputs, first.inputs)), None)
    inputs = varied(first.inputs)
    if differ(inputs, first.inputs):
        try:
            made_up = Example(inputs, await run(inputs))
        except ModelhostError as error:
            # The model need not take it.
            if error.reason not in OF_THE_MODEL:
                raise
        else:
            return [first, made_up, other or first]
    if other is None:
        raise CannotTellError
    return [first, other, first]
