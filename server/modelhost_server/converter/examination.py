"""Examines one signature of a candidate: probes and samples go through TensorFlow and through the candidate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..engines.base import LoadedModel
from ..samples import Sample
from .arrays import to_array
from .comparison import Different, OutputComparison, check_outputs, step_of
from .probes import BATCH, Array, Probe, Survey, made_up
from .running import FAILURES, Candidate, run

_DEFAULT_SIGNATURE = "serving_default"
_LEAST_ACCEPTED = 3
_MOST_SAMPLES = 50
# What is taken for a change in the last digits, and how much more than it does another engine's rounding may do.
_NUDGE_STEPS = 2
_NATURAL_FACTOR = 10


class Rejected(Exception):
    """The candidate is not to be used: `outcome` is DIFFERENT (it is wrong) or REFUSED (it cannot be trusted)."""

    def __init__(self, outcome: str, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


class Examination:
    """Of the signature at a position, the same in both models."""

    def __init__(self, reference: LoadedModel, candidate: Candidate, position: int, tolerance: float) -> None:
        self._reference, self._candidate, self._position = reference, candidate, position
        self._spec = reference.signatures[position]
        self._comparisons = [OutputComparison(output, tolerance) for output in self._spec.outputs]
        self._itself = [OutputComparison(output, tolerance) for output in self._spec.outputs]
        self._accepted: list[Probe] = []
        self._delicate_count = 0
        self._first_answers: tuple[list[Array], list[Array]] = ([], [])
        self._survey: Survey | None = None

    @property
    def largest_difference(self) -> float:
        """The largest difference seen, as a part of its output's scale."""
        return max((comparison.largest_difference for comparison in self._comparisons), default=0.0)

    def examine(self, samples: Sequence[Sample]) -> None:
        """Raises Rejected unless the candidate answers as TensorFlow does, whatever is tried."""
        own = self._own(samples)
        for probe in own:
            self._try(probe)
        self._survey = self._try_made_up()
        if len(self._accepted) < _LEAST_ACCEPTED <= len(self._accepted) + self._delicate_count:
            raise self._rejected("REFUSED", "the answers change too much with the last digits of made-up inputs")
        if len(self._accepted) < _LEAST_ACCEPTED:
            raise self._rejected("REFUSED", "no made-up input is accepted; give warm-up samples")
        narrow = self._survey.narrow() if self._survey else []
        if narrow and not own:
            raise self._rejected(
                "REFUSED", f"only one size of {narrow[0]} is accepted of those made up; give warm-up samples"
            )
        self._check_state()
        for comparison in self._comparisons:
            try:
                comparison.finish()
            except Different as error:
                raise self._rejected("DIFFERENT", f"output {comparison.spec.name!r}: {error}") from None
        if not own:
            self._check_variety()

    def timed(self, samples: Sequence[Sample]) -> dict[int, Probe]:
        """The probes to take times with, by batch size: like the samples, if there are any."""
        own = self._own(samples)[:1]
        if self._survey is None or not own:
            return self._survey.timed() if self._survey else {_rows(probe): probe for probe in self._accepted[:1]}
        if BATCH not in self._survey.accepted:
            return {_rows(own[0]): own[0]}
        return {size: self._tiled(own[0], size) for size in self._survey.timed()}

    def _tiled(self, probe: Probe, size: int) -> Probe:
        """A sample's first rows, or all of them again and again."""
        inputs = tuple(
            np.take(value, np.arange(size), axis=0, mode="wrap") if item.shape and item.shape[0] < 0 else value
            for item, value in zip(self._spec.inputs, probe.inputs, strict=True)
        )
        return Probe(probe.what, inputs)

    def _own(self, samples: Sequence[Sample]) -> list[Probe]:
        """The samples of this signature that fit it."""
        return list(self._fitting(samples))[:_MOST_SAMPLES]

    def _fitting(self, samples: Sequence[Sample]) -> Iterator[Probe]:
        only = len(self._reference.signatures) == 1
        for number, sample in enumerate(samples, 1):
            name = sample.signature or (self._spec.name if only else _DEFAULT_SIGNATURE)
            if name != self._spec.name or sample.inputs.keys() != {item.name for item in self._spec.inputs}:
                continue
            tensors = [sample.inputs[item.name] for item in self._spec.inputs]
            pairs = zip(self._spec.inputs, tensors, strict=True)
            if all(item.dtype == tensor.dtype and item.accepts_shape(tensor.shape) for item, tensor in pairs):
                yield Probe(f"sample {number}", tuple(to_array(*tensor) for tensor in tensors))

    def _try_made_up(self) -> Survey | None:
        probes = made_up(self._spec)
        try:
            probe = next(probes)
            while True:
                probe = probes.send(self._try(probe))
        except StopIteration as end:
            survey: Survey | None = end.value
            return survey

    def _try(self, probe: Probe) -> bool:
        """Compares the engines on a probe; tells whether TensorFlow accepts it."""
        try:
            expected = run(self._reference, self._position, probe.inputs)
        except FAILURES:
            self._check_refusal(probe)
            return False
        try:
            check_outputs(self._itself, expected, run(self._reference, self._position, probe.inputs))
        except (Different, *FAILURES):
            raise self._rejected("REFUSED", "TensorFlow's own answers change from call to call") from None
        try:
            answer = self._candidate.run(self._position, probe.inputs)
        except FAILURES as error:
            raise self._rejected("REFUSED", f"it fails on what TensorFlow accepts ({probe.what}): {error}") from None
        try:
            check_outputs(self._comparisons, expected, answer)
        except Different as error:
            if not self._is_delicate(probe, expected, answer):
                raise self._rejected("DIFFERENT", f"{error} ({probe.what})") from None
            self._delicate_count += 1
            return True
        for comparison, value in zip(self._comparisons, expected, strict=True):
            comparison.note(value)
        if not self._accepted:
            self._first_answers = expected, answer
        self._accepted.append(probe)
        return True

    def _is_delicate(self, probe: Probe, expected: list[Array], answer: list[Array]) -> bool:
        """Whether TensorFlow's own answers differ nearly as much when the inputs change in their last digits: then no
        two ways to compute the model agree on this probe, which proves nothing.
        """
        own = [OutputComparison(output, np.inf) for output in self._spec.outputs]
        try:
            check_outputs(own, expected, run(self._reference, self._position, [_nudged(v) for v in probe.inputs]))
            natural = max((comparison.largest_difference for comparison in own), default=0.0)
            generous = [OutputComparison(output, _NATURAL_FACTOR * natural) for output in self._spec.outputs]
            check_outputs(generous, expected, answer)
        except (Different, *FAILURES):
            return False
        return True

    def _check_refusal(self, probe: Probe) -> None:
        try:
            self._candidate.run(self._position, probe.inputs)
        except FAILURES:
            return
        raise self._rejected("DIFFERENT", f"it answers inputs that TensorFlow rejects ({probe.what})")

    def _check_state(self) -> None:
        """What came in between must not have changed the answers."""
        for model, first in zip((self._reference, self._candidate.model), self._first_answers, strict=True):
            try:
                check_outputs(self._itself, first, run(model, self._position, self._accepted[0].inputs))
            except (Different, *FAILURES):
                raise self._rejected("REFUSED", f"{model.engine}'s answers depend on earlier calls") from None

    def _check_variety(self) -> None:
        """Outputs that were always the same prove nothing of what computes them."""
        still = [comparison for comparison in self._comparisons if not comparison.varies]
        telling = [comparison for comparison in still if comparison.is_float or len(still) == len(self._comparisons)]
        if telling:
            name = telling[0].spec.name
            raise self._rejected(
                "REFUSED", f"the output {name!r} is the same for all made-up inputs; give warm-up samples"
            )

    def _rejected(self, outcome: str, message: str) -> Rejected:
        return Rejected(outcome, f"signature {self._spec.name!r}: {message}")


def _nudged(value: Array) -> Array:
    """Floats a step or two up or down; anything else as it is."""
    if value.dtype.kind in "iub":
        return value
    step = _NUDGE_STEPS * step_of(value.dtype)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], value.shape)
    return np.asarray(value.astype(np.float64) * (1.0 + step * signs)).astype(value.dtype)


def _rows(probe: Probe) -> int:
    return probe.inputs[0].shape[0] if probe.inputs[0].ndim else 1
