"""Stage `judge`: whether what was made of a model for a faster engine computes the same as TensorFlow, and how fast."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..engines.artifact import read_artifact
from ..engines.base import LITERT, TENSORFLOW, EngineOptions, LoadedModel, LoadRequest
from ..engines.warmup import read_warmup_requests
from ..errors import ModelhostError
from ..samples import Sample, read_samples
from .examination import Examination, Rejected
from .running import Candidate, make_engine, race, race_side_by_side

_DEFAULT_TIME_SECONDS = 10.0
# Of this time, what goes to calls side by side.
_SIDE_BY_SIDE_SHARE = 0.4
# And what to calls that come alone, with more threads.
_MORE_THREADS_SHARE = 0.2


@dataclass(slots=True)
class Judgement:
    """What the stage answers."""

    accepted: bool
    outcome: str = ""
    reason: str = ""
    max_relative_difference: float = 0.0
    timings: list[tuple[int, int, int]] = field(default_factory=list)
    speedup: float = 0.0
    side_by_side_speedup: float = 0.0
    # Its time over the time it takes with the threads for calls that come alone; 0 when it cannot tell those.
    alone_gain: float = 0.0


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Compares the artifact at `artifact` with the SavedModel at `path`, both run as by a worker with
    `intra_op_threads` and `lanes`.
    """
    lanes = job["lanes"]
    options = EngineOptions(job["intra_op_threads"], 1, lanes)
    artifact = read_artifact(Path(job["artifact"]))
    reference = _loader(TENSORFLOW, LoadRequest(job["path"], tuple(job["tags"]), job["digest"]), options)()
    samples = _samples(job["path"], job["samples"])
    largest = 0.0
    examinations = []
    try:
        try:
            request = LoadRequest(job["artifact"], (), job["digest"])
            candidate = Candidate(_loader(artifact.engine, request, options))
        except ModelhostError as error:
            raise Rejected("REFUSED", f"it cannot be loaded: {error.message}") from None
        _check_signatures(reference, candidate.model)
        for position in range(len(reference.signatures)):
            examination = Examination(reference, candidate, position, job["tolerance"])
            examinations.append(examination)
            examination.examine(samples)
    except Rejected as rejected:
        largest = max((e.largest_difference for e in examinations), default=0.0)
        return asdict(Judgement(False, rejected.outcome, str(rejected), largest))
    timed = {signature.file: i for i, signature in reversed(list(enumerate(artifact.signatures)))}
    probes = [(i, size, probe) for i in timed.values() for size, probe in examinations[i].timed(samples).items()]
    seconds = job.get("time_seconds", _DEFAULT_TIME_SECONDS)
    share = seconds * (1 - _SIDE_BY_SIDE_SHARE - _MORE_THREADS_SHARE) / len(probes)
    models = [reference, candidate.model]
    timings, gains = [], []
    for position, size, probe in probes:
        expected, taken = race(models, position, probe.inputs, share)
        timings.append((size, expected, taken))
        gains.append(expected / taken)
    judgement = Judgement(True, "", "", max(e.largest_difference for e in examinations), timings, _mean(gains))
    if lanes > 1:
        # What threads do to one another shows most in the smallest calls.
        smallest = {position: probe for position, _, probe in sorted(probes, key=lambda item: -item[1])}
        gains = []
        for position, probe in smallest.items():
            share = seconds * _SIDE_BY_SIDE_SHARE / len(smallest)
            expected, taken = race_side_by_side(models, position, probe.inputs, lanes, share)
            gains.append(expected / taken)
        judgement.side_by_side_speedup = _mean(gains)
    if artifact.engine == LITERT and job["alone_threads"] > options.intra_op_threads:
        wide = _loader(LITERT, replace(request, alone_threads=job["alone_threads"]), options)()
        position, _, probe = min(probes, key=lambda item: item[1])
        time, taken = race([candidate.model, wide], position, probe.inputs, seconds * _MORE_THREADS_SHARE)
        judgement.alone_gain = time / taken
    return asdict(judgement)


def _mean(factors: Sequence[float]) -> float:
    return math.exp(sum(math.log(factor) for factor in factors) / len(factors))


def _loader(name: str, request: LoadRequest, options: EngineOptions) -> Callable[[], LoadedModel]:
    engine = make_engine(name, options)
    engine.prepare()
    return lambda: engine.load(request, lambda *_: None)


def _samples(path: str, file: str | None) -> list[Sample]:
    """The samples given, and the SavedModel's own."""
    try:
        own = [record for record in read_warmup_requests(path) if isinstance(record, Sample)]
    except ModelhostError:
        # Whoever loads the model is told of a damaged file; here it only means fewer samples.
        own = []
    return [*(read_samples(Path(file)) if file else []), *own]


def _check_signatures(reference: LoadedModel, candidate: LoadedModel) -> None:
    if list(reference.signatures) != list(candidate.signatures):
        names: Sequence[str] = [signature.name for signature in candidate.signatures]
        raise Rejected("REFUSED", f"its signatures are others: {', '.join(names)}")
