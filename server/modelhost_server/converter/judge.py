"""Stage `judge`: whether what was made of a model for a faster engine computes the same as TensorFlow, and how fast."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..engines.artifact import read_artifact
from ..engines.base import TENSORFLOW, EngineOptions, LoadedModel, LoadRequest
from ..engines.warmup import read_warmup_requests
from ..errors import ModelhostError
from ..samples import Sample, read_samples
from .examination import Examination, Rejected
from .running import Candidate, make_engine, race

_DEFAULT_TIME_SECONDS = 10.0


@dataclass(slots=True)
class Judgement:
    """What the stage answers."""

    accepted: bool
    outcome: str = ""
    reason: str = ""
    max_relative_difference: float = 0.0
    timings: list[tuple[int, int, int]] = field(default_factory=list)
    speedup: float = 0.0


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Compares the artifact at `artifact` with the SavedModel at `path`."""
    options = EngineOptions(job["intra_op_threads"], 1, 1)
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
    share = job.get("time_seconds", _DEFAULT_TIME_SECONDS) / len(probes)
    timings = []
    for position, size, probe in probes:
        expected, taken = race([reference, candidate.model], position, probe.inputs, share)
        timings.append((size, expected, taken))
    speedup = math.exp(sum(math.log(expected / taken) for _, expected, taken in timings) / len(timings))
    return asdict(Judgement(True, "", "", max(e.largest_difference for e in examinations), timings, speedup))


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
