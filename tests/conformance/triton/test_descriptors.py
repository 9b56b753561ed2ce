"""Our messages are Triton's, field by field."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Iterator, Mapping

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto
from tritonclient.grpc import model_config_pb2, service_pb2

_OURS = "modelhost.compat."
_PRINT = """
import base64
from modelhost_server.compat import model_config_pb2, open_inference_pb2
for module in (model_config_pb2, open_inference_pb2):
    print(base64.b64encode(module.DESCRIPTOR.serialized_pb).decode())
"""


@pytest.fixture(scope="module")
def ours() -> list[FileDescriptorProto]:
    """Our model_config.proto and open_inference.proto."""
    done = subprocess.run(
        [os.environ["MODELHOST_PYTHON"], "-c", _PRINT], capture_output=True, text=True, check=True
    )  # fmt: skip
    return [FileDescriptorProto.FromString(base64.b64decode(line)) for line in done.stdout.split()]


def fields_of(message: DescriptorProto, outer: str = "") -> Iterator[tuple[str, object]]:
    """Each field's name within the file, and all that there is to it on the wire."""
    name = f"{outer}{message.name}"
    for field in message.field:
        oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else ""
        type_name = field.type_name.replace(_OURS, "")
        yield f"{name}.{field.name}", (field.number, field.type, field.label, type_name, oneof)
    for nested in message.nested_type:
        yield from fields_of(nested, f"{name}.")
    for enum in message.enum_type:
        yield from values_of(enum, f"{name}.")


def values_of(enum: EnumDescriptorProto, outer: str = "") -> Iterator[tuple[str, object]]:
    """Each value's name within the file, and its number."""
    for value in enum.value:
        yield f"{outer}{enum.name}.{value.name}", value.number


def contents_of(file: FileDescriptorProto) -> Mapping[str, object]:
    """All fields and values of a file."""
    found: dict[str, object] = {}
    for message in file.message_type:
        found |= fields_of(message)
    for enum in file.enum_type:
        found |= values_of(enum)
    return found


@pytest.mark.parametrize(("place", "theirs"), [(0, model_config_pb2), (1, service_pb2)])
def test_fields_have_the_same_numbers_and_types(ours, place, theirs):
    known = FileDescriptorProto()
    theirs.DESCRIPTOR.CopyToProto(known)
    expected, found = contents_of(known), contents_of(ours[place])
    assert len(expected) > 80
    assert {name: found.get(name) for name in expected} == expected


def test_only_what_kserve_has_is_more(ours):
    known = FileDescriptorProto()
    service_pb2.DESCRIPTOR.CopyToProto(known)
    assert contents_of(ours[1]).keys() - contents_of(known).keys() == {
        "RepositoryModelLoadResponse.model_name",
        "RepositoryModelLoadResponse.isLoaded",
        "RepositoryModelUnloadResponse.model_name",
        "RepositoryModelUnloadResponse.isUnloaded",
    }


def test_methods_are_the_same(ours):
    known = FileDescriptorProto()
    service_pb2.DESCRIPTOR.CopyToProto(known)
    methods = [
        {
            (method.name, method.input_type.replace(_OURS, ""), method.output_type.replace(_OURS, ""),
             method.client_streaming, method.server_streaming)
            for method in file.service[0].method
        }
        for file in (known, ours[1])
    ]  # fmt: skip
    assert methods[0] == methods[1]
