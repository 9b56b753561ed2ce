"""Stage `quantize`: a float32 LiteRT artifact, or a `.tflite` file, becomes one with smaller weights.

Inputs and outputs stay what they are. ai-edge-quantizer does it, on LiteRT's own files: it knows every method, takes
`.tflite` files that come from elsewhere, and needs no TensorFlow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..engines.artifact import Artifact, ArtifactSignature
from ..errors import ModelhostError, Reason, brief
from .examples import Examples, read_examples
from .quantizer import calibrate, has_small_weights, quantized
from .recipes import FULL_INT8, METHODS
from .source import litert_source

# More examples make the ranges no better, only the wait longer; larger executions only take more memory.
_CALIBRATION_EXAMPLES = 512
_CALIBRATION_BATCH = 16


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Quantizes `artifact` (an artifact's directory or a `.tflite` file) by `method` into the directory `target`.

    `full_int8` is calibrated with the examples that `samples` and `samples_file` name; a signature without examples
    stays float32 if another has some.

    Returns:
        {"remarks": what to know about it, in sentences}.

    Raises:
        ModelhostError: the method cannot be used on this model, or the samples do not fit it.
    """
    method, target = job["method"], Path(job["target"])
    if method not in METHODS:
        raise ModelhostError(Reason.INVALID_REQUEST, f"expected a method of {METHODS}, got {brief(method)}")
    artifact, directory = litert_source(Path(job["artifact"]))
    calibration = _calibration(artifact, job) if method == FULL_INT8 else {}
    remarks, quantized_files = [], 0
    for file in sorted({signature.file for signature in artifact.signatures}):
        signatures = [signature for signature in artifact.signatures if signature.file == file]
        names = ", ".join(signature.spec.name for signature in signatures)
        content = (directory / file).read_bytes()
        if has_small_weights(content):
            raise ModelhostError(Reason.UNSUPPORTED, f"the model is quantized already (signature {names})")
        ranges = None
        if method == FULL_INT8:
            if file not in calibration:
                (target / file).write_bytes(content)
                remarks.append(f"Stayed float32, because it has no samples: {names}.")
                continue
            ranges = calibrate(content, calibration[file], job.get("intra_op_threads", 1))
        result = quantized(content, method, ranges)
        if has_small_weights(result):
            quantized_files += 1
        else:
            remarks.append(f"Stayed float32, because it has no weights that {method} applies to: {names}.")
        (target / file).write_bytes(result)
    if not quantized_files:
        raise ModelhostError(Reason.UNSUPPORTED, f"the model has no weights that {method} applies to")
    dataclasses.replace(artifact, precision=method).write(target)
    return {"remarks": remarks}


def _calibration(artifact: Artifact, job: Mapping[str, Any]) -> dict[str, list[dict[int, NDArray[Any]]]]:
    """For each file, inputs by their positions in it."""
    examples = read_examples(job, [signature.spec for signature in artifact.signatures])
    if not examples:
        raise ModelhostError(
            Reason.INVALID_REQUEST,
            "full_int8 needs samples of real inputs to find the ranges of the activations; "
            "give some (a hundred are good), or use dynamic_int8, which needs none",
            field="samples",
        )
    batches = [batch for example in examples for batch in example.batches(_CALIBRATION_BATCH)]
    feeds: dict[str, list[dict[int, NDArray[Any]]]] = {}
    for batch in _spread(batches):
        signature = artifact.signatures[batch.signature]
        feeds.setdefault(signature.file, []).append(_feed(signature, batch))
    return feeds


def _spread(batches: Sequence[Examples]) -> Sequence[Examples]:
    """So many of them as make enough examples, from everywhere: a file of examples may be sorted by class."""
    total = sum(batch.count for batch in batches)
    return batches[:: max(1, -(-total // _CALIBRATION_EXAMPLES))]


def _feed(signature: ArtifactSignature, batch: Examples) -> dict[int, NDArray[Any]]:
    feed = {}
    for spec, place in zip(signature.spec.inputs, signature.inputs, strict=True):
        if place is None:
            continue
        if spec.name not in batch.inputs:
            raise ModelhostError(
                Reason.INPUT_MISSING, f"calibration needs a value of the input {brief(spec.name)}", field="samples"
            )
        feed[place] = batch.inputs[spec.name]
    return feed
