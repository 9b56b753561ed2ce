"""Messages of the Open Inference protocol: the fields that are used here, wire-compatible, under a name of our own."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

_PACKAGE = "modelhost.benchmarks"
_MESSAGES: dict[str, list[tuple[str, int, int, bool]]] = {
    "Tensor": [("name", 1, Field.TYPE_STRING, False), ("datatype", 2, Field.TYPE_STRING, False),
               ("shape", 3, Field.TYPE_INT64, True)],
    "ModelInferRequest": [("model_name", 1, Field.TYPE_STRING, False), ("inputs", 5, Field.TYPE_MESSAGE, True),
                          ("raw_input_contents", 7, Field.TYPE_BYTES, True)],
    "ModelInferResponse": [("model_name", 1, Field.TYPE_STRING, False), ("outputs", 5, Field.TYPE_MESSAGE, True),
                           ("raw_output_contents", 6, Field.TYPE_BYTES, True)],
}  # fmt: skip


def _pool() -> DescriptorPool:
    file = FileDescriptorProto(name="modelhost/benchmarks/open_inference.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, is_repeated in fields:
            label = Field.LABEL_REPEATED if is_repeated else Field.LABEL_OPTIONAL
            added = message.field.add(name=field, number=number, type=kind, label=label)  # type: ignore[arg-type]
            if kind == Field.TYPE_MESSAGE:
                added.type_name = f".{_PACKAGE}.Tensor"
    pool = DescriptorPool()
    pool.Add(file)
    return pool


def _class(name: str) -> Any:
    return GetMessageClass(_descriptors.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


_descriptors = _pool()
ModelInferRequest, ModelInferResponse = _class("ModelInferRequest"), _class("ModelInferResponse")
