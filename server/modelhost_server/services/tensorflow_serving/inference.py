"""Classification and regression of tf.Examples, which the models parse themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from ...errors import Code
from ...hosting.checks import DEFAULT_SIGNATURE, Checks
from ...hosting.host import Host
from ...hosting.prediction import Prediction
from ...store.records import Version
from ...tensors import STRING, RawTensor, SignatureSpec
from ..call import Call
from .checks import check_dtypes, find_signature
from .errors import error, invalid
from .names import Target
from .prediction import acquired, begin
from .results import CLASSES, REGRESSIONS, SCORES, Class, classifications, regressions

CLASSIFY_METHOD, REGRESS_METHOD = "tensorflow/serving/classify", "tensorflow/serving/regress"
_INPUTS = "inputs"


class Classified(NamedTuple):
    """The classes of each example, by a version."""

    version: int
    classes: list[list[Class]]


class Regressed(NamedTuple):
    """The value of each example, by a version."""

    version: int
    values: list[float]


class Task(NamedTuple):
    """One of the tasks of a MultiInference."""

    target: Target
    method: str


async def classify(host: Host, target: Target, examples: Sequence[bytes], call: Call) -> Classified:
    """Classifies serialized examples.

    Raises:
        ModelhostError, ForeignError: what `begin` raises; the signature is no classifier's.
    """
    done = await _run(host, target, examples, call, _CLASSIFIER)
    return Classified(done.version, classifications(done.outputs, len(examples)))


async def regress(host: Host, target: Target, examples: Sequence[bytes], call: Call) -> Regressed:
    """Finds the values of serialized examples.

    Raises:
        ModelhostError, ForeignError: what `begin` raises; the signature is no regressor's.
    """
    done = await _run(host, target, examples, call, _REGRESSOR)
    return Regressed(done.version, regressions(done.outputs, len(examples)))


async def _run(host: Host, target: Target, examples: Sequence[bytes], call: Call, checks: Checks) -> Prediction:
    inputs = {_INPUTS: RawTensor(STRING, (len(examples),), examples)}
    return await begin(host, target, inputs, (), call, checks).result()


async def multi_inference(
    host: Host, tasks: Sequence[Task], examples: Sequence[bytes], call: Call
) -> list[Classified | Regressed]:
    """What one version's signatures say of the same examples.

    Raises:
        ModelhostError, ForeignError: what `begin` raises; the tasks do not go together.
    """
    async with acquired(host, tasks[0].target if tasks else Target("")) as version:
        _check_tasks(version, tasks)
        # The version that all were checked against.
        exact = [(task.target._replace(version=version.number, label=None), task.method) for task in tasks]
        return await asyncio.gather(*(_METHODS[method].run(host, target, examples, call) for target, method in exact))


def _check_tasks(version: Version, tasks: Sequence[Task]) -> None:
    """Checks one after the other what TensorFlow Serving does."""
    names: set[str] = set()
    tensors: set[str] = set()
    for target, method in tasks:
        if not target.name:
            raise invalid("Found ModelSpec with an empty model name.")
        if target.name != tasks[0].target.name:
            raise invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        if target.signature_name in names:
            raise invalid(f"Duplicate evaluation of signature: {target.signature_name}")
        names.add(target.signature_name)
        found = find_signature(version, target.signature)
        if found is None:
            raise invalid(f"Requested signature not found in model graph: {target.signature_name}")
        if method not in _METHODS:
            raise error(Code.UNIMPLEMENTED, f"Unsupported signature method_name: {method}")
        _METHODS[method].check(found[1])
        tensors.add(found[1].inputs[0].tensor)
        if len(tensors) > 1:
            raise invalid("Input tensor must be the same for all Signatures.")


def _check_classifier(spec: SignatureSpec) -> None:
    outputs = {output.name for output in spec.outputs}
    if len(spec.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(outputs) not in (1, 2):
        raise invalid(f"Expected one or two output Tensors, found {len(outputs)}")
    if spec.inputs[0].name != _INPUTS:
        raise invalid(f"No classification inputs found in SignatureDef: {_described(spec)}")
    if not outputs & {CLASSES, SCORES}:
        raise invalid(
            f'Expected classification signature outputs to contain at least one of "{CLASSES}" or "{SCORES}". '
            f"Signature was: {_described(spec)}"
        )


def _check_regressor(spec: SignatureSpec) -> None:
    if len(spec.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(spec.outputs) != 1:
        raise invalid("Expected one output Tensor.")
    if spec.inputs[0].name != _INPUTS:
        raise invalid(f"No regression inputs found in SignatureDef: {_described(spec)}")
    if spec.outputs[0].name != REGRESSIONS:
        raise invalid(f"No regression outputs found in SignatureDef: {_described(spec)}")


def _described(spec: SignatureSpec) -> str:
    inputs, outputs = (", ".join(tensor.name for tensor in tensors) for tensors in (spec.inputs, spec.outputs))
    return f"{spec.name}({inputs}) -> {outputs}"


def _checks(check: Callable[[SignatureSpec], None], outputs: Sequence[str]) -> Checks:
    """Checks of predictions by signatures that pass `check`, of which these outputs are wanted."""

    def choose_signature(version: Version, name: str) -> tuple[int, SignatureSpec]:
        found = find_signature(version, name)
        if found is None:
            raise invalid(f"No signature was found with the name: {name or DEFAULT_SIGNATURE}")
        check(found[1])
        return found

    def choose_outputs(spec: SignatureSpec, wanted: Sequence[str]) -> list[int]:
        return [i for i, output in enumerate(spec.outputs) if output.name in outputs]

    return Checks(choose_signature, _check_examples, choose_outputs, keeps_shapes=False)


def _check_examples(spec: SignatureSpec, inputs: Mapping[str, RawTensor]) -> list[tuple[int, RawTensor]]:
    examples = inputs[_INPUTS]
    if not examples.data:
        raise invalid("Input is empty.")
    check_dtypes([(spec.inputs[0], examples)])
    return [(0, examples)]


class _Method(NamedTuple):
    check: Callable[[SignatureSpec], None]
    run: Callable[[Host, Target, Sequence[bytes], Call], Awaitable[Classified | Regressed]]


_CLASSIFIER = _checks(_check_classifier, (CLASSES, SCORES))
_REGRESSOR = _checks(_check_regressor, (REGRESSIONS,))
_METHODS = {
    CLASSIFY_METHOD: _Method(_check_classifier, classify),
    REGRESS_METHOD: _Method(_check_regressor, regress),
}
