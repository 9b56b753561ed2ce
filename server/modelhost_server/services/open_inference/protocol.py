"""The services of the Open Inference Protocol."""

from __future__ import annotations

from ...compat import open_inference_pb2
from ...hosting.host import Host
from ...hosting.regions import ByOwner
from ...repositories.triton_control import ModelControl
from ..call import Service
from .errors import translate
from .inference_service import InferenceHandler
from .regions import SystemRegions
from .repository import RepositoryHandler
from .rules import RULES
from .server_service import ServerHandler
from .settings import SettingsHandler
from .shared_memory import SharedMemoryHandler


def open_inference_services(
    host: Host, control: ModelControl, regions: ByOwner[SystemRegions], server_name: str
) -> list[Service]:
    """All of them; `server_name` is what callers are told."""
    handlers: list[object] = [
        InferenceHandler(host, regions), ServerHandler(host, server_name), RepositoryHandler(host, control),
        SharedMemoryHandler(host, regions), SettingsHandler(host),
    ]  # fmt: skip
    return [Service(open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"], handlers, RULES, translate)]
