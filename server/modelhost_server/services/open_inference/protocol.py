"""The services of the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from ...compat import open_inference_pb2
from ...errors import Code, ForeignError
from ...hosting.host import Host
from ..call import Call, Service
from .errors import translate
from .regions import SystemRegions
from .settings import SettingsHandler
from .shared_memory import SharedMemoryHandler


def open_inference_services(host: Host) -> list[Service]:
    """All of them."""
    regions = SystemRegions()
    handlers: list[object] = [SharedMemoryHandler(host, regions), SettingsHandler(host), _Missing()]
    return [Service(open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"], handlers, translate)]


class _Missing:
    """The methods that are not there."""

    codecs: ClassVar = {}

    def __getattr__(self, name: str) -> Callable[[Any, Call], Awaitable[Any]]:
        async def refuse(request: Any, call: Call) -> Any:
            raise ForeignError(Code.UNIMPLEMENTED, "This protocol is not supported by this server yet")

        return refuse
