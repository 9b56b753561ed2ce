"""Wires the server together, and runs it from its start to its drain."""

from __future__ import annotations

import asyncio
import logging
import signal

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection
from modelhost.v1 import (
    model_service_pb2,
    optimization_service_pb2,
    prediction_service_pb2,
    scope_service_pb2,
    shared_memory_service_pb2,
)

from .config import ServerConfig
from .hosting.host import Host
from .hosting.optimization import Optimizer
from .hosting.tuning import CANDIDATES
from .memory import keep_freed_memory
from .services.health_service import HealthService
from .services.model_service import ModelService
from .services.optimization_service import OptimizationService
from .services.prediction_service import PredictionService
from .services.scope_service import ScopeService
from .services.shared_memory_service import SharedMemoryService
from .transport.grpcio import Handler
from .transport.routes import routes

logger = logging.getLogger(__name__)

# After the drain's grace, workers and template have this long before they are killed one by one.
_CLOSE_SECONDS = 10.0
# gRPC cancels calls that have arrived and not begun when it is stopped; in this time they are told UNAVAILABLE instead.
_REFUSE_SECONDS = 0.5
_MIN_PING_MILLISECONDS = 10_000


class Server:
    """The server: a host, and the services over it."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._host = Host(
            config.cache_dir,
            config.scope_defaults,
            engines=CANDIDATES if config.tuning else (),
            memory_limit_bytes=config.memory_limit_bytes,
            cache_limit_bytes=config.cache_limit_bytes,
            shares_memory=config.shares_memory,
        )
        self._grpc: grpc.aio.Server | None = None

    async def start(self) -> list[str]:
        """Starts serving; answers the addresses, with the ports that were really bound.

        Raises:
            OSError: an address cannot be listened on.
            ModelhostError: the worker template does not start.
        """
        keep_freed_memory()
        server = self._grpc = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", self._config.max_receive_bytes),
                ("grpc.max_send_message_length", self._config.max_send_bytes),
                # Two servers on one port would share its callers without anybody's knowledge.
                ("grpc.so_reuseport", 0),
                # Clients may ask whether we are still there while a watch is quiet; gRPC's default of 5 minutes would
                # end the connection of one that asks more often.
                ("grpc.http2.min_ping_interval_without_data_ms", _MIN_PING_MILLISECONDS),
            ]
        )
        services = {
            model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]: ModelService(self._host),
            prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"]: PredictionService(self._host),
            scope_service_pb2.DESCRIPTOR.services_by_name["ScopeService"]: ScopeService(self._host),
            shared_memory_service_pb2.DESCRIPTOR.services_by_name["SharedMemoryService"]: SharedMemoryService(
                self._host
            ),
            optimization_service_pb2.DESCRIPTOR.services_by_name["OptimizationService"]: OptimizationService(
                Optimizer(self._host)
            ),
        }
        names = [descriptor.full_name for descriptor in services]
        health = health_pb2.DESCRIPTOR.services_by_name["Health"]
        services[health] = HealthService(self._host, names)
        server.add_generic_rpc_handlers([Handler(routes(services))])
        reflection.enable_server_reflection([*names, health.full_name, reflection.SERVICE_NAME], server)
        addresses = [_bind(server, address) for address in self._config.listen]
        await self._host.start()
        await server.start()
        return addresses

    async def run_until_signal(self) -> None:
        """Serves until SIGTERM or SIGINT, then drains: no new calls, calls under way answered, workers ended."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await stop.wait()
        logger.info("draining: calls under way have %.0f s", self._config.drain_seconds)
        # A second signal is for whoever does not want to wait.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        await self.stop()

    async def stop(self) -> None:
        """Drains and ends everything."""
        self._host.drain()
        if self._grpc is not None:
            await asyncio.sleep(_REFUSE_SECONDS)
            await self._grpc.stop(self._config.drain_seconds)
        try:
            await asyncio.wait_for(self._host.close(), _CLOSE_SECONDS)
        except TimeoutError:
            logger.error("workers did not end in time; they are killed with the template")
        logger.info("stopped")


def _bind(server: grpc.aio.Server, address: str) -> str:
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if address.startswith("unix:"):
        if port:
            return address
    elif port:
        return f"{address.rpartition(':')[0]}:{port}"
    raise OSError(f"cannot listen on {address}: the address is in use, not this machine's, or not HOST:PORT")
