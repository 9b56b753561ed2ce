"""First executions of a model, so that no caller pays for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..engines.base import EngineFailure, LoadedModel
from ..engines.warmup import read_warmup_requests
from ..errors import ModelhostError, Reason
from ..samples import Sample, read_samples
from ..tensors import ITEMSIZE, STRING, RawTensor, SignatureSpec, TensorSpec, element_count

_DEFAULT_SIGNATURE = "serving_default"
# A made-up input larger than this says more about an odd signature than about usual calls.
_MAX_MADE_UP_BYTES = 64 << 20
# What an empty string takes: in a list, and in a tensor of TensorFlow's.
_STRING_BYTES = 8 + 24


@dataclass(slots=True)
class Warmup:
    """How it went."""

    success_count: int = 0
    failure_count: int = 0
    first_error: str = ""

    def failed(self, number: int, error: ModelhostError | EngineFailure) -> None:
        """Notes the failure of a request."""
        self.failure_count += 1
        self.first_error = self.first_error or f"warm-up request {number}: {getattr(error, 'message', str(error))}"


class _Discard:
    """Takes outputs that nobody wants."""

    def put(self, dtype: int, shape: Sequence[int], data: memoryview | Sequence[bytes]) -> None:
        """See OutputSink."""


def requests_of(path: str, samples_file: str) -> list[Sample | ModelhostError]:
    """The requests a version is to be warmed with: those in its SavedModel, then those given. What cannot be read is
    there as the reason why.
    """
    requests: list[Sample | ModelhostError] = []
    try:
        requests += read_warmup_requests(path)
    except ModelhostError as error:
        requests.append(error)
    if samples_file:
        try:
            requests += read_samples(Path(samples_file))
        except (OSError, ValueError) as error:
            requests.append(ModelhostError(Reason.INTERNAL, f"the samples cannot be read: {error}"))
    return requests


def warm(model: LoadedModel, requests: Iterable[Sample | ModelhostError]) -> Warmup:
    """Runs the requests; then, on zeros, each signature that none of them ran, if runs leave no trace in the model."""
    report, ran = Warmup(), set()
    for number, request in enumerate(requests, 1):
        try:
            if isinstance(request, ModelhostError):
                raise request
            ran.add(_run(model, request))
            report.success_count += 1
        except (ModelhostError, EngineFailure) as error:
            report.failed(number, error)
    if model.is_pure:
        for position, spec in enumerate(model.signatures):
            if position not in ran:
                _run_made_up(model, position, spec)
    return report


def _run(model: LoadedModel, request: Sample) -> int:
    names = [spec.name for spec in model.signatures]
    wanted = request.signature or (names[0] if len(names) == 1 else _DEFAULT_SIGNATURE)
    if wanted not in names:
        raise ModelhostError(Reason.SIGNATURE_NOT_FOUND, f"there is no signature '{wanted}'")
    position = names.index(wanted)
    spec = model.signatures[position]
    given = dict(request.inputs)
    inputs = []
    for i, expected in enumerate(spec.inputs):
        tensor = given.pop(expected.name, None)
        if tensor is not None:
            _check(expected, tensor)
            inputs.append((i, tensor))
        elif not expected.optional:
            raise ModelhostError(Reason.INPUT_MISSING, f"the input '{expected.name}' ({expected}) is missing")
    if given:
        raise ModelhostError(Reason.INPUT_UNKNOWN, f"signature '{wanted}' has no input '{next(iter(given))}'")
    model.run(position, inputs, (), _Discard())
    return position


def _check(expected: TensorSpec, tensor: RawTensor) -> None:
    if tensor.dtype != expected.dtype or not expected.accepts_shape(tensor.shape):
        got = TensorSpec(expected.name, tensor.dtype, tuple(tensor.shape))
        raise ModelhostError(Reason.INPUT_SHAPE_MISMATCH, f"the input '{expected.name}' is {expected}; got {got}")


def _run_made_up(model: LoadedModel, position: int, spec: SignatureSpec) -> None:
    inputs = []
    for i, expected in enumerate(spec.inputs):
        if expected.optional:
            continue
        if expected.shape is None:
            return
        shape = tuple(1 if extent < 0 else extent for extent in expected.shape)
        count, itemsize = element_count(shape), ITEMSIZE[expected.dtype]
        if count * (itemsize or _STRING_BYTES) > _MAX_MADE_UP_BYTES:
            return
        data = [b""] * count if expected.dtype == STRING else bytes(count * itemsize)
        inputs.append((i, RawTensor(expected.dtype, shape, data)))
    try:
        model.run(position, inputs, (), _Discard())
    except (ModelhostError, EngineFailure):
        # What was made up may well be what the model does not take.
        return
