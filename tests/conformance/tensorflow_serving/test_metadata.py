"""PredictionService.GetModelMetadata, reflection, and the messages themselves."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest
import tensorflow as tf
import tensorflow_serving
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.wrappers_pb2 import Int64Value
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tensorflow_serving.apis import get_model_metadata_pb2, model_service_pb2, prediction_service_pb2
from tensorflow_serving.apis.model_pb2 import ModelSpec

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def metadata(name: str | None, *fields: str, **spec: Any) -> get_model_metadata_pb2.GetModelMetadataRequest:
    return get_model_metadata_pb2.GetModelMetadataRequest(
        model_spec=None if name is None else ModelSpec(name=name, **spec), metadata_field=fields
    )


def signatures(stub: Any, name: str) -> Any:
    response = stub.GetModelMetadata(metadata(name, "signature_def"))
    found = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    assert response.metadata["signature_def"].Unpack(found)
    return found.signature_def


def test_signatures(stub: Any) -> None:
    response = stub.GetModelMetadata(metadata("half_plus", "signature_def", version_label="stable"))
    assert response.model_spec == ModelSpec(name="half_plus", version=Int64Value(value=1))
    signature = signatures(stub, "half_plus")["serving_default"]
    assert signature.method_name == "tensorflow/serving/predict"
    assert signature.inputs["x"].name == "serving_default_x:0"
    assert signature.inputs["x"].dtype == tf.float32.as_datatype_enum
    assert tf.TensorShape(signature.inputs["x"].tensor_shape).as_list() == [None]
    assert signature.outputs["y"].name == "StatefulPartitionedCall:0"


def test_signatures_are_as_the_saved_model_has_them(stub: Any, models: Any) -> None:
    loaded = tf.compat.v1.saved_model.load
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        expected = loaded(session, ["serve"], str(models / "examples")).signature_def
    assert dict(signatures(stub, "examples")) == dict(expected)


def test_tensors_of_any_rank(stub: Any) -> None:
    assert signatures(stub, "identity_float32")["serving_default"].inputs["INPUT0"].tensor_shape.unknown_rank


@pytest.mark.parametrize(
    ("message", "code", "details"),
    [
        (metadata(None, "signature_def"), INVALID, "Missing ModelSpec"),
        (
            metadata("half_plus"),
            INVALID,
            "GetModelMetadataRequest must specify at least one metadata_field",
        ),
        (metadata("half_plus", "signature_def", "else"), INVALID, "Metadata field else is not supported"),
        (
            metadata("none", "signature_def"),
            grpc.StatusCode.NOT_FOUND,
            "Servable not found for request: Latest(none)",
        ),
        (metadata("", "signature_def"), INVALID, "ModelSpec has no name specified."),
    ],
)
def test_refusals(stub: Any, message: Any, code: grpc.StatusCode, details: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetModelMetadata(message)
    assert (caught.value.code(), caught.value.details()) == (code, details)


def test_reflection_resolves_the_services(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert "tensorflow.serving.PredictionService" in database.get_services()
    pool = DescriptorPool(database)
    service = pool.FindServiceByName("tensorflow.serving.PredictionService")
    assert service.methods_by_name["Predict"].input_type.full_name == "tensorflow.serving.PredictRequest"
    assert pool.FindMessageTypeByName("tensorflow.TensorProto").fields_by_name["float_val"].number == 5


def described(message: Descriptor | EnumDescriptor, found: dict[str, Any]) -> None:
    """Numbers, types and names of the fields of a message, and of all messages that they need."""
    if message.full_name in found:
        return
    if isinstance(message, EnumDescriptor):
        found[message.full_name] = {value.name: value.number for value in message.values}
        return
    fields = found[message.full_name] = {}
    for field in message.fields:
        inner = field.message_type or field.enum_type
        oneof = field.containing_oneof
        fields[field.name] = [
            field.number, field.type, bool(field.is_repeated), inner.full_name if inner else "",
            oneof.name if oneof and len(oneof.fields) > 1 else "",
        ]  # fmt: skip
        assert isinstance(field, FieldDescriptor)
        if inner:
            described(inner, found)


def run(code: str, **environment: str) -> str:
    """What the server's Python prints."""
    done = subprocess.run(
        [os.environ["MODELHOST_PYTHON"], "-c", code], capture_output=True, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


OURS = """
import json
from modelhost_server.compat import serving_model_service_pb2, serving_prediction_service_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
{source}
found = {{}}
for module, name in (
    (serving_prediction_service_pb2, "PredictionService"), (serving_model_service_pb2, "ModelService")
):
    for method in module.DESCRIPTOR.services_by_name[name].methods:
        described(method.input_type, found)
        described(method.output_type, found)
described(serving_prediction_service_pb2.SignatureDefMap.DESCRIPTOR, found)
print(json.dumps(found).replace("modelhost.compat.", ""))
"""


def test_our_messages_are_those_of_tensorflow_serving() -> None:
    code = "from __future__ import annotations\nfrom typing import Any\n" + OURS.format(
        source=inspect.getsource(described)
    )
    ours = json.loads(run(code))
    theirs: dict[str, Any] = {}
    for module in (prediction_service_pb2, model_service_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                described(method.input_type, theirs)
                described(method.output_type, theirs)
    described(get_model_metadata_pb2.SignatureDefMap.DESCRIPTOR, theirs)
    assert len(ours) > 40
    for name, fields in ours.items():
        assert fields.items() <= theirs[name].items(), name
    # What there is besides, of TensorFlow Serving's own messages, is for models that answer in streams.
    serving = {name for name in theirs if name.startswith("tensorflow.serving.")}
    missing = {name: theirs[name].keys() - ours.get(name, {}).keys() for name in serving}
    assert {name for name, fields in missing.items() if fields} <= {
        name for name in serving if name.startswith("tensorflow.serving.PredictRequest") or "Streamed" in name
    }


BESIDE = """
import modelhost_server.app
from modelhost_server.compat.serving_predict_pb2 import PredictRequest as Ours
from tensorflow_serving.apis.predict_pb2 import PredictRequest as Theirs
message = Theirs(output_filter=["y"])
message.inputs["x"].float_val.append(1.5)
assert Ours.FromString(message.SerializeToString()).inputs["x"].float_val == [1.5]
print(Ours.DESCRIPTOR.full_name, Theirs.DESCRIPTOR.full_name)
"""


def test_the_server_stands_tensorflow_serving_api_beside_it() -> None:
    where = str(Path(tensorflow_serving.__path__[0]).parent)
    printed = run(BESIDE, PYTHONPATH=os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), where))))
    assert printed.split() == [
        "modelhost.compat.tensorflow.serving.PredictRequest",
        "tensorflow.serving.PredictRequest",
    ]
