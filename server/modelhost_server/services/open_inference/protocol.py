"""The services of the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from ...compat import open_inference_pb2
from ...errors import Code, ForeignError
from ...hosting.host import Host
from ..call import Call, Codec, Service
from .errors import translate
from .inference_service import InferenceHandler
from .regions import SystemRegions
from .server_service import ServerHandler
from .settings import SettingsHandler
from .shared_memory import SharedMemoryHandler


def open_inference_services(host: Host, server_name: str) -> list[Service]:
    """All of them; `server_name` is what callers are told."""
    regions = SystemRegions()
    handlers: list[object] = [
        InferenceHandler(host, regions), ServerHandler(host, server_name), SharedMemoryHandler(host, regions),
        SettingsHandler(host), _Missing(),
    ]  # fmt: skip
    return [Service(open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"], handlers, translate)]


class _Missing:
    """The methods that are not there."""

    codecs: ClassVar[dict[str, Codec]] = {}

    def __getattr__(self, name: str) -> Callable[[Any, Call], Awaitable[Any]]:
        async def refuse(request: Any, call: Call) -> Any:
            raise ForeignError(Code.UNIMPLEMENTED, "This protocol is not supported by this server yet")

        return refuse
