"""The examples that a model is calibrated with and compared on: from a file of samples, and from a caller's `.npz`.

A sample holds the inputs of one execution. Where the first dimension is the batch, it counts examples, so a sample may
hold many; otherwise it is one example. True classes are listed in the order of the examples, sample by sample.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..errors import ModelhostError, Reason, brief
from ..samples import Sample, read_samples
from ..tensors import SignatureSpec, TensorSpec
from .arrays import to_array
from .npz import read_npz

_DEFAULT_SIGNATURE = "serving_default"


@dataclass(frozen=True, slots=True)
class Examples:
    """The inputs of one execution of a signature, how many examples they are, and the true class of each, if known.

    `is_batched` tells that the first dimension counts examples, `is_open` that it may be any number.
    """

    signature: int
    inputs: Mapping[str, NDArray[Any]]
    count: int
    is_batched: bool
    is_open: bool
    classes: tuple[int, ...] | None = None

    def batches(self, size: int) -> Iterator[Examples]:
        """The same examples in executions of at most `size`."""
        if not self.is_open or self.count <= size:
            yield self
            return
        for start in range(0, self.count, size):
            part = slice(start, start + size)
            inputs = {name: array[part] for name, array in self.inputs.items()}
            count = min(size, self.count - start)
            yield replace(self, inputs=inputs, count=count, classes=self.classes and self.classes[part])


def read_examples(job: Mapping[str, Any], specs: Sequence[SignatureSpec]) -> list[Examples]:
    """The examples that a stage's job names: `samples` with `true_classes`, and `samples_file`.

    Raises:
        ModelhostError: INVALID_REQUEST or one of the INPUT_ reasons; they do not fit the model, or one another.
    """
    examples = []
    if job.get("samples"):
        samples = [_checked(sample, n, specs) for n, sample in enumerate(read_samples(Path(job["samples"])), 1)]
        examples += _labelled(samples, job.get("true_classes"), "true_classes")
    if job.get("samples_file"):
        position = _position("", specs, "samples_file")
        found, classes = read_npz(Path(job["samples_file"]), specs[position])
        examples += _labelled([_checked(sample, n, specs) for n, sample in enumerate(found, 1)], classes, "labels")
    return [example for example in examples if example.count]


def fitting(samples: Iterable[Sample | ModelhostError], specs: Sequence[SignatureSpec]) -> list[Examples]:
    """Those samples that fit the model."""
    examples = []
    for number, sample in enumerate(samples, 1):
        with contextlib.suppress(ModelhostError):
            if isinstance(sample, Sample):
                examples.append(_checked(sample, number, specs))
    return [example for example in examples if example.count]


def make_examples(specs: Sequence[SignatureSpec], position: int, inputs: Mapping[str, NDArray[Any]]) -> Examples:
    """Inputs of a signature as examples."""
    spec = specs[position]
    open_first = [i.name for i in spec.inputs if i.shape and i.shape[0] < 0 and i.name in inputs]
    rows = {inputs[name].shape[0] for name in open_first}
    # Where open first dimensions differ, they do not count examples.
    if len(rows) == 1 and len(open_first) == len(inputs):
        return Examples(position, inputs, rows.pop(), True, True)
    fixed = {item.shape[0] if item.shape else 0 for item in (*spec.inputs, *spec.outputs)}
    if len(fixed) == 1 and (size := fixed.pop()) > 0:
        return Examples(position, inputs, size, True, False)
    return Examples(position, inputs, 1, False, False)


def _position(signature: str, specs: Sequence[SignatureSpec], field: str) -> int:
    names = [spec.name for spec in specs]
    wanted = signature or (names[0] if len(names) == 1 else _DEFAULT_SIGNATURE)
    if wanted not in names:
        raise ModelhostError(
            Reason.SIGNATURE_NOT_FOUND,
            f"there is no signature {brief(wanted)} for the samples; the model has {brief(names, 200)}",
            field=field,
        )
    return names.index(wanted)


def _checked(sample: Sample, number: int, specs: Sequence[SignatureSpec]) -> Examples:
    where = f"sample {number}"
    position = _position(sample.signature, specs, "samples")
    expected = {spec.name: spec for spec in specs[position].inputs}
    for name, tensor in sample.inputs.items():
        if name not in expected:
            raise ModelhostError(Reason.INPUT_UNKNOWN, f"{where}: there is no input {brief(name)}", field="samples")
        spec, given = expected[name], TensorSpec(name, tensor.dtype, tuple(tensor.shape))
        if tensor.dtype != spec.dtype or not spec.accepts_shape(tensor.shape):
            raise ModelhostError(
                Reason.INPUT_SHAPE_MISMATCH if tensor.dtype == spec.dtype else Reason.INPUT_DTYPE_MISMATCH,
                f"{where}: input {brief(name)} expects {spec}, got {given}",
                field="samples",
            )
    for name, spec in expected.items():
        if name not in sample.inputs and not spec.optional:
            raise ModelhostError(Reason.INPUT_MISSING, f"{where}: the input {brief(name)} is missing", field="samples")
    try:
        arrays = {name: to_array(*tensor) for name, tensor in sample.inputs.items()}
    except ValueError:
        raise ModelhostError(
            Reason.INPUT_MALFORMED, f"{where}: a tensor has more or fewer bytes than its shape needs", field="samples"
        ) from None
    return make_examples(specs, position, arrays)


def _labelled(samples: Sequence[Examples], classes: Sequence[int] | None, field: str) -> list[Examples]:
    if not classes:
        return list(samples)
    total = sum(sample.count for sample in samples)
    if len(classes) != total:
        raise ModelhostError(
            Reason.INVALID_REQUEST,
            f"{field}: expected one class for each of the {total} examples, got {len(classes)}",
            field=field,
        )
    labelled, start = [], 0
    for sample in samples:
        part = tuple(classes[start : start + sample.count])
        labelled.append(replace(sample, classes=part))
        start += sample.count
    return labelled
