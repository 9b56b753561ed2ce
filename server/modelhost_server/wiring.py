"""Services over a host: what they need beside it, and the routes that lead to them."""

from __future__ import annotations

from dataclasses import dataclass

from grpc_health.v1 import health_pb2

from .config import ServerConfig
from .hosting.host import Host
from .hosting.regions import ByOwner
from .repositories.followers import Followers
from .repositories.triton_control import Mode, ModelControl
from .repositories.triton_repository import TritonRepository
from .services.call import Service
from .services.health_service import RULES as HEALTH_RULES
from .services.health_service import HealthService
from .services.native.protocol import native_services
from .services.open_inference.protocol import open_inference_services
from .services.open_inference.regions import SystemRegions
from .services.tensorflow_serving.kept_config import KeptConfig
from .services.tensorflow_serving.protocol import tensorflow_serving_services
from .transport.reflection import RULES as REFLECTION_RULES
from .transport.reflection import SERVICE as REFLECTION
from .transport.reflection import ReflectionService
from .transport.routes import Route, routes

# To followers: not to look at directories.
_NEVER_SECONDS = -1.0


@dataclass(frozen=True, slots=True)
class Hosting:
    """A host, and what services use beside it."""

    host: Host
    followers: Followers
    control: ModelControl
    kept_config: KeptConfig
    regions: ByOwner[SystemRegions]

    def without_scopes(self, nothing: Host, config: ServerConfig) -> Hosting:
        """The same over `nothing`, a host that has no scopes; see `Guard`."""
        # What a caller has registered is there, whatever scope it asks for.
        nothing.regions = self.host.regions
        return Hosting(
            nothing,
            Followers(nothing, _NEVER_SECONDS),
            ModelControl(nothing, None, _mode(config)),
            self.kept_config.over(nothing),
            self.regions,
        )


def model_control(host: Host, config: ServerConfig) -> tuple[ModelControl, TritonRepository | None]:
    """What loads and unloads as Triton does, and what follows its repository, if there is one."""
    mode = _mode(config)
    if config.model_repository is None:
        return ModelControl(host, None, mode), None
    directory = config.model_repository.absolute()
    control = ModelControl(host, directory, mode)
    return control, TritonRepository(control, directory, mode, config.load_model, config.repository_poll_secs)


def _mode(config: ServerConfig) -> Mode:
    return Mode.EXPLICIT if config.model_repository is None else Mode(config.model_control_mode)


def routes_over(hosting: Hosting, config: ServerConfig) -> list[Route]:
    """The methods of all services."""
    host = hosting.host
    services = [
        *native_services(host),
        *tensorflow_serving_services(
            host, hosting.followers, hosting.kept_config, config.allow_version_labels_for_unavailable_models
        ),
        *open_inference_services(host, hosting.control, hosting.regions, config.server_name),
    ]
    health = HealthService(host, [service.name for service in services])
    services.append(Service(health_pb2.DESCRIPTOR.services_by_name["Health"], [health], HEALTH_RULES))
    reflection = ReflectionService([*services, Service(REFLECTION, [], REFLECTION_RULES)])
    return routes([*services, Service(REFLECTION, [reflection], REFLECTION_RULES)])
