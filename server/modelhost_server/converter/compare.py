"""Stage `compare`: measures a model and what an optimization made of it, and how far the two are apart."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..engines.base import EngineOptions, LoadedModel, LoadRequest
from ..engines.warmup import read_warmup_requests
from ..errors import ModelhostError, Reason, brief
from ..samples import Sample
from .arrays import to_tensor
from .drift import OutputDrift, class_scores
from .examples import Examples, fitting, make_examples, read_examples
from .execution import execute
from .footprint import disk_bytes, private_bytes
from .probes import Array, made_up
from .running import FAILURES, make_engine, race
from .zeros import zero_share

# Of what is made up, so many executions show enough; and a model that refuses so many refuses all.
_MADE_UP_RUNS = 4
_MADE_UP_ATTEMPTS = 40
_RUN_EXAMPLES = 16
_TIME_SECONDS = 5.0
# float32, float64, integers, bool, and the half floats.
_GUESSABLE = frozenset({1, 2, 3, 4, 5, 6, 9, 10, 14, 17, 19, 22, 23})


@dataclass(slots=True)
class _Side:
    """One of the two models."""

    engine: str
    path: str
    tags: Sequence[str]
    model: LoadedModel
    right: int = 0


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Compares `original` with `optimized`, each {path, tags, engine}.

    They are compared on the examples that `samples` (with `true_classes`) and `samples_file` name; without any, on the
    SavedModel's warm-up records; without these, on made-up inputs. Signatures without examples are left out. Times are
    taken with `intra_op_threads`, at `batch_size` examples (1) of the first signature that has some.

    Returns:
        {"original": measure, "optimized": measure, "drift": […], "example_count", "examples_made_up"}, named as in
        OptimizationReport; "accuracy" and "argmax_agreement" are None where there is none.

    Raises:
        ModelhostError: a model cannot be loaded, or the optimized one fails on what the original takes; or the examples
            do not fit the model.
    """
    threads = job["intra_op_threads"]
    original, optimized = (_load(job[side], threads) for side in ("original", "optimized"))
    _check_signatures(original.model, optimized.model)
    examples, are_made_up = _examples(job, original)
    drift, judged = _compare(original, optimized, examples)
    timed = next(examples[0].batches(job.get("batch_size") or 1))
    latencies = _race([original.model, optimized.model], timed)
    return {
        "original": _measure(original, timed, latencies[0], judged, threads),
        "optimized": _measure(optimized, timed, latencies[1], judged, threads),
        "drift": [output.to_json() for output in drift],
        "example_count": sum(example.count for example in examples),
        "examples_made_up": are_made_up,
    }


def _load(side: Mapping[str, Any], threads: int) -> _Side:
    engine = make_engine(side["engine"], EngineOptions(threads, 1, 1))
    engine.prepare()
    model = engine.load(LoadRequest(side["path"], tuple(side["tags"])), lambda *_: None)
    return _Side(side["engine"], side["path"], side["tags"], model)


def _check_signatures(original: LoadedModel, optimized: LoadedModel) -> None:
    ours, theirs = [_names(model) for model in (original, optimized)]
    if ours != theirs:
        raise ModelhostError(
            Reason.UNSUPPORTED, f"the optimized model has other signatures: {brief(theirs, 200)} for {brief(ours, 200)}"
        )


def _names(model: LoadedModel) -> list[tuple[str, list[str], list[str]]]:
    return [(s.name, [i.name for i in s.inputs], [o.name for o in s.outputs]) for s in model.signatures]


def _examples(job: Mapping[str, Any], original: _Side) -> tuple[list[Examples], bool]:
    """What to compare on, and whether it is made up."""
    specs = original.model.signatures
    if examples := read_examples(job, specs):
        return examples, False
    if examples := fitting(read_warmup_requests(original.path), specs):
        return examples, False
    examples = [example for position in range(len(specs)) for example in _make_up(original.model, position)]
    if not examples:
        raise ModelhostError(
            Reason.INVALID_REQUEST,
            "the model takes none of the inputs that were made up to compare it on: give samples",
            field="samples",
        )
    return examples, True


def _make_up(model: LoadedModel, position: int) -> list[Examples]:
    """Inputs of a signature that the model takes; none when it has strings, for words cannot be guessed."""
    spec = model.signatures[position]
    if not all(item.dtype in _GUESSABLE and item.shape is not None for item in spec.inputs) or not spec.inputs:
        return []
    examples: list[Examples] = []
    probes = made_up(spec)
    probe = next(probes)
    for _ in range(_MADE_UP_ATTEMPTS):
        inputs = {item.name: value for item, value in zip(spec.inputs, probe.inputs, strict=True)}
        example = make_examples(model.signatures, position, inputs)
        try:
            _execute(model, example)
            examples.append(example)
            is_accepted = True
        except FAILURES:
            is_accepted = False
        if len(examples) == _MADE_UP_RUNS:
            break
        try:
            probe = probes.send(is_accepted)
        except StopIteration:
            break
    return examples


def _execute(model: LoadedModel, example: Examples) -> dict[str, Array]:
    inputs = {name: to_tensor(value) for name, value in example.inputs.items()}
    return execute(model, model.signatures[example.signature].name, inputs)


def _compare(original: _Side, optimized: _Side, examples: Sequence[Examples]) -> tuple[list[OutputDrift], int]:
    """The drift of each output, and how many examples had a class to be told right or wrong."""
    drift: dict[tuple[str, str], OutputDrift] = {}
    judged = 0
    for batch in (batch for example in examples for batch in example.batches(_RUN_EXAMPLES)):
        signature = original.model.signatures[batch.signature].name
        try:
            expected = _execute(original.model, batch)
        except FAILURES as error:
            raise ModelhostError(
                Reason.MODEL_REJECTED_INPUT, f"the original model does not take the samples: {error}", field="samples"
            ) from None
        try:
            answered = _execute(optimized.model, batch)
        except FAILURES as error:
            raise ModelhostError(
                Reason.UNSUPPORTED, f"the optimized model fails on inputs that the original takes: {error}"
            ) from None
        for name, value in expected.items():
            output = drift.setdefault((signature, name), OutputDrift(signature, name))
            output.add(value, answered[name], batch.count, batch.is_batched)
        scores = _scores(expected, batch)
        if scores and batch.classes is not None:
            judged += batch.count
            original.right += _right(expected[scores], batch)
            optimized.right += _right(answered[scores], batch)
    return list(drift.values()), judged


def _scores(outputs: Mapping[str, Array], batch: Examples) -> str | None:
    """The first output that looks like scores of classes."""
    for name, value in outputs.items():
        if class_scores(value, batch.count, batch.is_batched) is not None:
            return name
    return None


def _right(output: Array, batch: Examples) -> int:
    best = output.reshape(batch.count, -1).argmax(axis=1)
    return int((best == batch.classes).sum())


def _race(models: Sequence[LoadedModel], timed: Examples) -> list[int]:
    """Median nanoseconds of an execution, for each model."""
    names = [item.name for item in models[0].signatures[timed.signature].inputs]
    # Only whole sets of inputs can be raced; a sample may rely on default values.
    if not timed.inputs.keys() >= set(names):
        return [0 for _ in models]
    return race(models, timed.signature, [timed.inputs[name] for name in names], _TIME_SECONDS)


def _measure(side: _Side, timed: Examples, latency: int, judged: int, threads: int) -> dict[str, Any]:
    signature = side.model.signatures[timed.signature].name
    sample = Sample(signature, {name: to_tensor(value) for name, value in timed.inputs.items()})
    with tempfile.TemporaryDirectory() as scratch:
        private = private_bytes(side.engine, side.path, side.tags, threads, sample, Path(scratch) / "sample")
    disk, compressed = disk_bytes(Path(side.path))
    return {
        "disk_bytes": disk,
        "compressed_bytes": compressed,
        "private_bytes": private,
        "latency_ns": latency,
        "batch_size": timed.count if timed.is_batched else 0,
        "accuracy": side.right / judged if judged else None,
        "zero_share": zero_share(side.engine, Path(side.path), side.tags),
    }
