"""Whether predictions of one signature run together, and how many: by its options, by what was found out about the
model, and by what batches cost.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from collections.abc import Sequence
from enum import Enum

from ..errors import ModelhostError
from ..scheduling.batch_size import BatchSize
from ..store.records import BatchingOptions, LoadOptions
from ..tensors import SignatureSpec
from .verification import SAMPLES, CannotTellError, Example, Run, why_not

logger = logging.getLogger(__name__)

# Largest batch that is tried unasked, in predictions, and in bytes of their inputs.
_MOST = 128
_MOST_BYTES = 32 << 20
_UNLIMITED = 1 << 62
# Kinds of predictions of which examples are kept.
_MOST_KINDS = 4
# Examples that are let go after a try that told nothing, doubled each time up to the larger number.
_PAUSE = 4
_LONGEST_PAUSE = 1024

# Which inputs a prediction gives, and their further extents.
Kind = tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]


class BatchingState(Enum):
    """Whether predictions run together; named as in `modelhost.v1.BatchingState`."""

    OFF = "OFF"
    VERIFYING = "VERIFYING"
    ON = "ON"


class Batching:
    """How predictions of one signature of a loaded version run together.

    Args:
        load: what was asked for.
        spec: the signature.
        is_pure: whether runs leave no trace in the model.
    """

    def __init__(self, load: LoadOptions, spec: SignatureSpec, is_pure: bool) -> None:
        options = load.batching
        self.state = BatchingState.OFF
        self.explanation = ""
        self.batch_count = 0
        self.prediction_count = 0
        self._tolerance = load.tolerance
        self._sizes = options.allowed_batch_sizes
        self._asked = self._sizes[-1] if self._sizes else options.max_batch_size
        self.max_rows = self._asked or _UNLIMITED
        self._learnt = BatchSize(_MOST)
        self._examples: dict[Kind, list[Example]] = {}
        self._pause = _PAUSE
        self._pausing = 0
        self._verifying: asyncio.Task[None] | None = None
        why = _unable(options, spec, is_pure)
        if why:
            self.explanation = why
        elif options.mode == "ON":
            self.state, self.explanation = BatchingState.ON, "asked for"
        else:
            self.state = BatchingState.VERIFYING
            self.explanation = "found out as soon as predictions wait for one another"

    # How many

    @property
    def max_batch_size(self) -> int:
        """Examples, or, when their number was left to the server, predictions in a batch at most, now."""
        return (self._asked or self._learnt.size) if self.state is BatchingState.ON else 1

    def choose(self, waiting: int) -> int:
        """How many of the predictions that wait to run together."""
        return waiting if self._asked else self._learnt.choose(waiting)

    def is_full(self, waiting: int, rows: int) -> bool:
        """Whether so many predictions, of so many rows, are a batch to which nothing is added."""
        return rows >= self.max_rows or (not self._asked and waiting >= self._learnt.goal)

    def rows_to_run(self, rows: int) -> int:
        """The rows of a batch with what it is filled up with."""
        place = bisect_left(self._sizes, rows)
        return self._sizes[place] if place < len(self._sizes) else rows

    def note(self, count: int, ns: int, byte_count: int) -> None:
        """Notes a batch of so many predictions that ran for so long, and the bytes of its inputs."""
        self.batch_count += 1
        self.prediction_count += count
        if not self._asked and self.state is BatchingState.ON:
            if byte_count > _MOST_BYTES // 2:
                self._learnt.limit(count)
            self._learnt.note(count, ns)

    def note_too_large(self, count: int) -> None:
        """Notes that there was no memory for a batch of so many predictions."""
        self._learnt.note_too_large(count)

    # Whether

    @property
    def wants_examples(self) -> bool:
        """Whether predictions that ran alone help to find out."""
        return self.state is BatchingState.VERIFYING and self._verifying is None

    def add_example(self, kind: Kind, example: Example, run: Run) -> None:
        """Takes a prediction that ran alone; `run` runs others to compare with it."""
        if self._pausing:
            self._pausing -= 1
            return
        alike = self._examples.setdefault(kind, [])
        alike.append(example)
        if len(alike) == SAMPLES:
            self._examples = {}
            self._verifying = asyncio.get_running_loop().create_task(self._verify(alike, run))
        elif len(self._examples) > _MOST_KINDS:
            del self._examples[next(iter(self._examples))]

    async def _verify(self, examples: Sequence[Example], run: Run) -> None:
        try:
            why = await why_not(examples, run, self._tolerance)
        except (CannotTellError, ModelhostError):
            # With other predictions, or another time.
            self._pausing = self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        except Exception:
            logger.exception("finding out whether predictions may run together failed")
            self.turn_off("finding out failed")
        else:
            if why:
                self.turn_off(why)
            else:
                self.state = BatchingState.ON
                self.explanation = "predictions together have the same answers as alone"
        self._verifying = None

    def turn_off(self, why: str) -> None:
        """Runs each prediction alone from now on."""
        self.state, self.explanation = BatchingState.OFF, why


def _unable(options: BatchingOptions, spec: SignatureSpec, is_pure: bool) -> str:
    """Why predictions of a signature cannot run together; "" when they may be able to."""
    if options.mode == "OFF":
        return "asked for"
    for kind, tensors in (("input", spec.inputs), ("output", spec.outputs)):
        for tensor in tensors:
            if tensor.shape is None and kind == "output":
                continue
            if not tensor.shape or tensor.shape[0] >= 0:
                return f"{kind} '{tensor.name}' has no open first dimension: {tensor}"
    if not spec.inputs:
        return "there are no inputs"
    if not is_pure and options.mode != "ON":
        return "predictions change the model, or depend on chance"
    return ""
