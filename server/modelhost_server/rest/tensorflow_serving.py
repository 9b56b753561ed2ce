"""TensorFlow Serving's REST API: `/v1/models/…`."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from google.protobuf.json_format import MessageToDict
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..compat import serving_inference_pb2, serving_model_service_pb2, serving_prediction_service_pb2
from ..services.tensorflow_serving.checks import find_signature
from ..services.tensorflow_serving.errors import invalid, translate
from ..services.tensorflow_serving.names import Target
from ..services.tensorflow_serving.prediction import acquired, begin
from .application import answering
from .bodies import read_body
from .calls import Methods, call_of, while_there
from .examples import fill_input
from .failures import JSON, TENSORFLOW_SERVING_STATUSES, Dialect
from .predict_requests import read_object, signature_name, tensors
from .predict_responses import classifications, outputs_document, predictions, regressions

_PREDICTION = "/tensorflow.serving.PredictionService/"
_STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
_METADATA_FIELD = "signature_def"
_MAX_VERSION = 2**63 - 1
# From here on making examples takes so long that others are served meanwhile: half a second a megabyte.
_LARGE_BYTES = 64 << 10


def routes(methods: Methods, max_body_bytes: int) -> list[Route]:
    """All of them."""
    api = _Api(methods, max_body_bytes)
    dialect = Dialect(translate, TENSORFLOW_SERVING_STATUSES)
    verbs = {"predict": api.predict, "classify": api.classify, "regress": api.regress}
    found = []
    for version in ("/versions/{version:number}", "/labels/{label}", ""):
        model = "/v1/models/{model:model}" + version
        for verb, endpoint in verbs.items():
            found.append(Route(f"{model}:{verb}", answering(endpoint, dialect, methods.admit), methods=["POST"]))
        found.append(Route(f"{model}/metadata", answering(api.metadata, dialect, methods.admit), methods=["GET"]))
        found.append(Route(model, answering(api.status, dialect, methods.admit), methods=["GET"]))
    return found


class _Api:
    """What the routes lead to."""

    def __init__(self, methods: Methods, max_body_bytes: int) -> None:
        self._methods = methods
        self._max_body_bytes = max_body_bytes

    async def predict(self, request: Request) -> Response:
        """Runs a signature on named tensors."""
        body = await read_body(request, self._max_body_bytes)
        document = read_object(body)
        target = _target(request, signature_name(document))
        call = call_of(request)
        host = self._methods.host(_PREDICTION + "Predict", target.place[0], call)
        async with acquired(host, target) as version:
            found = find_signature(version, target.signature)
            if found is None:
                raise invalid(f'Serving signature name: "{target.signature_name}" not found in signature def')
            inputs, as_rows = tensors(document, found[1])
            # What they are made for is what must run them.
            target = target._replace(version=version.number, label=None)
            begun = begin(host, target, inputs, (), call)
        outputs = (await while_there(request, begun.result())).outputs
        return _answer(predictions(outputs) if as_rows else outputs_document(outputs))

    async def classify(self, request: Request) -> Response:
        """Runs a classifier on examples."""
        pb = serving_inference_pb2
        response = await self._infer(request, "Classify", pb.ClassificationRequest(), pb.ClassificationResponse)
        return _answer(
            classifications(
                [[(each.label, each.score) for each in example.classes] for example in response.result.classifications]
            )
        )

    async def regress(self, request: Request) -> Response:
        """Runs a regressor on examples."""
        pb = serving_inference_pb2
        response = await self._infer(request, "Regress", pb.RegressionRequest(), pb.RegressionResponse)
        return _answer(regressions([each.value for each in response.result.regressions]))

    async def _infer(self, request: Request, method: str, message: Any, answer: type[Any]) -> Any:
        body = await read_body(request, self._max_body_bytes)
        document = read_object(body)
        _fill_spec(_target(request, signature_name(document)), message.model_spec)
        if len(body) < _LARGE_BYTES:
            fill_input(document, message.input)
        else:
            await asyncio.to_thread(fill_input, document, message.input)
        call = call_of(request)
        return await while_there(request, self._methods(_PREDICTION + method, message, answer, call))

    async def status(self, request: Request) -> Response:
        """Tells of a model's versions."""
        pb = serving_model_service_pb2
        message = pb.GetModelStatusRequest()
        _fill_spec(_target(request), message.model_spec)
        response = await self._methods(_STATUS, message, pb.GetModelStatusResponse, call_of(request))
        return _answer(orjson.dumps(_dict(response)))

    async def metadata(self, request: Request) -> Response:
        """Tells of a version's signatures."""
        pb = serving_prediction_service_pb2
        message = pb.GetModelMetadataRequest(metadata_field=[_METADATA_FIELD])
        _fill_spec(_target(request), message.model_spec)
        path = _PREDICTION + "GetModelMetadata"
        response = await self._methods(path, message, pb.GetModelMetadataResponse, call_of(request))
        # Its type is known by TensorFlow Serving's name, which is not one of ours.
        signatures = pb.SignatureDefMap.FromString(response.metadata[_METADATA_FIELD].value)
        return _answer(
            orjson.dumps({"model_spec": _dict(response.model_spec), "metadata": {_METADATA_FIELD: _dict(signatures)}})
        )


def _target(request: Request, signature: str = "") -> Target:
    path = request.path_params
    version = path.get("version")
    if version is not None and (len(version) > len(str(_MAX_VERSION)) or int(version) > _MAX_VERSION):
        raise invalid(f"Failed to convert version: {version} to numeric.")
    return Target(path["model"], None if version is None else int(version), path.get("label"), signature)


def _fill_spec(target: Target, spec: Any) -> None:
    spec.name, spec.signature_name = target.name, target.signature
    if target.version is not None:
        spec.version.value = target.version
    if target.label is not None:
        spec.version_label = target.label


def _dict(message: Any) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def _answer(body: bytes) -> Response:
    return Response(body, media_type=JSON)
