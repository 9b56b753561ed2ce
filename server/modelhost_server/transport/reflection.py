"""grpc.reflection.v1alpha: which services there are, for tools like grpcurl."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from google.protobuf import text_format
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection, reflection_pb2

from ..services.call import Call, Service, foreign_name
from ..services.rules import KNOWN, Rules

# Names of services and messages are everybody's who is known.
RULES: Rules = {"ServerReflectionInfo": KNOWN}
SERVICE = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]


class ReflectionService:
    """Tells what grpcio's own reflection tells, as a service that any transport can serve."""

    def __init__(self, services: Sequence[Service]) -> None:
        pool = DescriptorPool()
        for service in services:
            _add_file(pool, service.descriptor.file, set())
        self._servicer = reflection.aio.ReflectionServicer([service.name for service in services], pool)

    def server_reflection_info(self, requests: AsyncIterator[Any], call: Call) -> AsyncIterator[Any]:
        """Answers each question."""
        answers: AsyncIterator[Any] = self._servicer.ServerReflectionInfo(requests, None)
        return answers


def _add_file(pool: DescriptorPool, file: FileDescriptor, added: set[str]) -> None:
    """Adds a file, and those it needs, with the names that callers know."""
    if file.name in added:
        return
    added.add(file.name)
    for dependency in file.dependencies:
        _add_file(pool, dependency, added)
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    pool.Add(text_format.Parse(foreign_name(text_format.MessageToString(proto)), FileDescriptorProto()))
