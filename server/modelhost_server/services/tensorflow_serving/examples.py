"""PredictionService's Classify, Regress and MultiInference."""

from __future__ import annotations

from ...compat import serving_inference_pb2 as pb
from ...hosting.host import Host
from ..call import Call
from .errors import invalid
from .inference import Classified, Regressed, Task, classify, multi_inference, regress
from .names import Target, model_spec, target_of
from .tensors import most_bytes


class Examples:
    """Runs signatures on tf.Examples."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def classify(self, request: pb.ClassificationRequest, call: Call) -> pb.ClassificationResponse:
        """The classes of examples."""
        target = _target(request)
        found = await classify(self._host, target, serialized(request.input), call)
        return pb.ClassificationResponse(
            model_spec=model_spec(target.name, found.version, target.signature_name),
            result=_classification_result(found),
        )

    async def regress(self, request: pb.RegressionRequest, call: Call) -> pb.RegressionResponse:
        """The values of examples."""
        target = _target(request)
        found = await regress(self._host, target, serialized(request.input), call)
        return pb.RegressionResponse(
            model_spec=model_spec(target.name, found.version, target.signature_name), result=_regression_result(found)
        )

    async def multi_inference(self, request: pb.MultiInferenceRequest, call: Call) -> pb.MultiInferenceResponse:
        """The classes and values of examples, by several signatures of a model."""
        tasks = [Task(target_of(task.model_spec), task.method_name) for task in request.tasks]
        results = await multi_inference(self._host, tasks, serialized(request.input), call)
        return pb.MultiInferenceResponse(
            results=[_inference_result(task.target, result) for task, result in zip(tasks, results, strict=True)]
        )


def _target(request: pb.ClassificationRequest | pb.RegressionRequest) -> Target:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    return target_of(request.model_spec)


def serialized(message: pb.Input) -> list[bytes]:
    """The examples of an input, each of them with the context that all have in common.

    Raises:
        ForeignError: the context becomes too large.
    """
    if message.WhichOneof("kind") == "example_list_with_context":
        found = message.example_list_with_context
        context = found.context.SerializeToString()
        size, most = len(context) * len(found.examples), most_bytes(message.ByteSize())
        if size > most:
            raise invalid(f"The context, once for each example, is {size} bytes; expected at most {most}")
        # One message after the other is both of them merged.
        return [context + example.SerializeToString() for example in found.examples]
    return [example.SerializeToString() for example in message.example_list.examples]


def _inference_result(target: Target, found: Classified | Regressed) -> pb.InferenceResult:
    spec = model_spec(target.name, found.version, target.signature_name)
    if isinstance(found, Classified):
        return pb.InferenceResult(model_spec=spec, classification_result=_classification_result(found))
    return pb.InferenceResult(model_spec=spec, regression_result=_regression_result(found))


def _classification_result(found: Classified) -> pb.ClassificationResult:
    return pb.ClassificationResult(
        classifications=[
            pb.Classifications(classes=[pb.Class(label=label, score=score) for label, score in classes])
            for classes in found.classes
        ]
    )


def _regression_result(found: Regressed) -> pb.RegressionResult:
    return pb.RegressionResult(regressions=[pb.Regression(value=value) for value in found.values])
