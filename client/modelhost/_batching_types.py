"""How predictions run together as batches: plain frozen data, as in `_types`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

BatchingMode: TypeAlias = Literal["on", "off"]
BatchingState: TypeAlias = Literal["OFF", "VERIFYING", "ON"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """How predictions of a version are to run together.

    Attributes:
        mode: "on": in every signature whose inputs and outputs share an open first dimension, and the caller vouches
            for the model; "off": never. When None, where the server found, by running the model, that it makes no
            difference to the answers.
        max_batch_size: examples in a batch at most; when None, as many as make it faster, which the server learns.
        max_delay: seconds that a prediction waits for others to fill its batch; None is not at all.
        allowed_batch_sizes: when given, batches have one of these sizes, filled up by repeating an example. Ascending;
            the last is the largest batch.
        pad_variable_length: predictions whose inputs differ in further open dimensions may share a batch, too: inputs
            are filled up with zeros (empty strings) to the largest.
        max_queue: predictions of the version that may wait; when None, only the scope's limit counts.
        queue_timeout: seconds after which a prediction that still waits is refused with ResourceExhaustedError; when
            None, it waits until its deadline.
    """

    mode: BatchingMode | None = None
    max_batch_size: int | None = None
    max_delay: float | None = None
    allowed_batch_sizes: Sequence[int] = ()
    pad_variable_length: bool = False
    max_queue: int | None = None
    queue_timeout: float | None = None


@dataclass(frozen=True, slots=True)
class SignatureBatching:
    """How predictions of one signature run together.

    Attributes:
        state: ON, OFF, or VERIFYING: the server is finding out whether they may.
        explanation: why, in words.
        max_batch_size: examples in a batch at most, now.
        batch_count: batches run, those of one prediction included.
        prediction_count: predictions run in them.
    """

    state: BatchingState
    explanation: str
    max_batch_size: int
    batch_count: int
    prediction_count: int
