"""grpc.reflection.v1alpha: which services there are, for tools like grpcurl."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

from grpc_reflection.v1alpha import reflection, reflection_pb2

from ..services.call import Call

SERVICE = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]


class ReflectionService:
    """Tells what grpcio's own reflection tells, as a service that any transport can serve."""

    def __init__(self, services: Iterable[str]) -> None:
        self._servicer = reflection.aio.ReflectionServicer(services)

    def server_reflection_info(self, requests: AsyncIterator[Any], call: Call) -> AsyncIterator[Any]:
        """Answers each question."""
        answers: AsyncIterator[Any] = self._servicer.ServerReflectionInfo(requests, None)
        return answers
