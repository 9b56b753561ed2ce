"""Calls of a worker that are under way: what each waits for, and who is to be told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..errors import ModelhostError
from ..tensors import RawTensor

# Outputs by position, or why there are none.
Answer = list[RawTensor] | ModelhostError
OnAnswer = Callable[[Answer], None]
OnAnswers = Callable[[Sequence[Answer]], None]
OnProgress = Callable[[dict[str, Any]], None]


class Control:
    """A LOAD or UNLOAD under way."""

    __slots__ = ("future", "key", "on_progress")

    def __init__(self, key: int, future: asyncio.Future[dict[str, Any]], on_progress: OnProgress | None) -> None:
        self.key = key
        self.future = future
        self.on_progress = on_progress


class Predict:
    """A prediction under way: the ranges of the arena that its inputs are in, and the dtypes of its outputs."""

    __slots__ = ("dtypes", "key", "offsets", "on_answer")

    def __init__(self, key: int, on_answer: OnAnswer, offsets: list[int], dtypes: Sequence[int]) -> None:
        self.key = key
        self.on_answer = on_answer
        self.offsets = offsets
        self.dtypes = dtypes


class ManyRun(NamedTuple):
    """One run of several on the same inputs: `inputs` are positions in the signature, and indices of tensors."""

    key: int
    signature: int
    outputs: Sequence[int]
    inputs: Sequence[tuple[int, int]]


class Many:
    """Several predictions on the same inputs under way."""

    __slots__ = ("dtypes", "offsets", "on_answers", "runs")

    def __init__(
        self, runs: Sequence[ManyRun], on_answers: OnAnswers, offsets: list[int], dtypes: Sequence[Sequence[int]]
    ) -> None:
        self.runs = runs
        self.on_answers = on_answers
        self.offsets = offsets
        self.dtypes = dtypes


def fail(waiting: Predict | Many, error: ModelhostError) -> None:
    """Tells whoever waits for predictions that there will be none."""
    if isinstance(waiting, Many):
        waiting.on_answers([error] * len(waiting.runs))
    else:
        waiting.on_answer(error)
