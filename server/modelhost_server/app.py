"""The server: put together from its parts, and run from its start to its drain."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import TYPE_CHECKING

from .access.authenticator import Authenticator
from .config import ServerConfig
from .hosting.background import Background
from .hosting.host import Host
from .hosting.regions import ByOwner
from .hosting.tuning import CANDIDATES
from .journal.journal import Journal
from .memory import keep_freed_memory, keep_objects
from .repositories.followers import Followers
from .repositories.model_directory import ModelDirectory
from .sandbox.rights import missing
from .services.open_inference.regions import SystemRegions
from .services.tensorflow_serving.config_file import follow_config_file, read_config_file
from .services.tensorflow_serving.kept_config import KeptConfig
from .services.tensorflow_serving.model_config import one_model
from .sources.roots import ModelRoots
from .sources.sources import Sources
from .transport.base import Transport
from .transport.call_limit import CallLimit
from .transport.fronts import FrontConfig, Fronts
from .transport.guard import Guard
from .transport.listeners import check_free
from .transport.routes import Route
from .transport.transports import make_transport
from .wiring import Hosting, model_control, routes_over

if TYPE_CHECKING:
    from .rest.door import RestDoor

logger = logging.getLogger(__name__)

# After the drain's grace, workers and template have this long before they are killed one by one.
_CLOSE_SECONDS = 10.0
# A transport that is stopped cuts off calls that have arrived and not begun. So it is not stopped for this long, and
# while predictions run: calls that come are told UNAVAILABLE.
_REFUSE_SECONDS = 0.5


class Server:
    """The server: a host, and the services over it."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._journal = Journal(config.data_dir, config.accept_lost_journal) if config.data_dir is not None else None
        sources = Sources(
            config.cache_dir,
            config.data_dir,
            config.upload_limit_bytes,
            config.remote_sources,
            ModelRoots(config.model_root, anywhere=config.access is None),
        )
        self._host = Host(
            config.cache_dir,
            sources,
            config.scope_defaults,
            engines=CANDIDATES if config.tuning else (),
            memory_limit_bytes=config.memory_limit_bytes,
            cache_limit_bytes=config.cache_limit_bytes,
            shares_memory=config.shares_memory,
            journal=self._journal,
            rights=config.rights,
        )
        self._followers = Followers(self._host, config.file_system_poll_wait_seconds)
        self._background = Background("server")
        self._authenticator: Authenticator | None = None
        self._guard: Guard | None = None
        # Has no scopes, see `Guard`.
        self._nothing = Host(config.cache_dir, sources, config.scope_defaults, engines=())
        control, self._repository = model_control(self._host, config)
        kept_config = KeptConfig(self._host, self._said_of_directories)
        self._hosting = Hosting(self._host, self._followers, control, kept_config, ByOwner(SystemRegions))
        self._transport: Transport | None = None
        self._fronts: Fronts | None = None
        self._rest: RestDoor | None = None

    async def start(self) -> list[str]:
        """Starts serving; answers the addresses, with the ports that were really bound.

        Raises:
            OSError: an address cannot be listened on, or the TLS files are not right.
            ModelhostError: the worker template does not start, or the model config file is not right.
        """
        keep_freed_memory()
        if self._journal is None:
            logger.info("what is loaded is forgotten when the server ends; --data-dir keeps it")
        if self._config.sandbox == "auto" and (lacks := missing()):
            logger.warning("models run without a whole sandbox: this machine has no %s", " and no ".join(lacks))
        directories = self._directories()
        if self._repository is not None:
            self._repository.check()
        config = self._config
        if config.access is not None:
            self._authenticator = Authenticator(config.access)
        all_routes = self._routes()
        if config.server_processes > 1:
            check_free(config.listen)
        transport = make_transport(config.transport, all_routes, config.transport_options)
        addresses = transport.listen(config.listen)
        self._transport = transport
        rest_urls = []
        if config.rest is not None:
            # Whoever does not use it need not have it in memory, nor installed.
            from .rest.door import RestDoor

            self._rest = RestDoor(self._host, self._nothing, all_routes, self._guard, config.transport_options)
            rest_urls = [self._rest.listen(config.rest)]
        await self._host.start()
        if self._authenticator is not None:
            self._background.run(self._authenticator.follow())
        asked = self._hosting.kept_config.read()
        if asked is not None:
            logger.info("the directories of the last reload are followed; a change of the command line's ends that")
        # Before callers can change them.
        self._followers.follow(directories if asked is None else asked)
        await transport.start()
        if self._rest is not None:
            await self._rest.start()
        if config.server_processes > 1:
            # A Unix socket cannot be shared this way; the primary alone has those.
            shared = [address for address in addresses if not address.startswith("unix:")]
            self._fronts = Fronts(
                config.server_processes - 1,
                all_routes,
                FrontConfig(config.transport, config.transport_options, shared, config.log_level, config.log_json),
            )
            await self._fronts.start()
        # Whoever waits for the addresses does not wait for models: these come as they are loaded.
        if self._repository is not None:
            self._background.run(self._repository.follow())
        if config.model_config_file is not None and config.model_config_file_poll_wait_seconds > 0:
            self._background.run(
                follow_config_file(
                    config.model_config_file, directories, self._followers, config.model_config_file_poll_wait_seconds
                )
            )
        keep_objects()
        return [*addresses, *rest_urls]

    def _directories(self) -> list[ModelDirectory]:
        """The directories to follow from the start on; where a file names them, that counts."""
        if self._config.model_config_file is not None:
            return read_config_file(self._config.model_config_file)
        if self._config.model_base_path is not None:
            return [one_model(self._config.model_name, self._config.model_base_path)]
        return []

    def _said_of_directories(self) -> str:
        """What the command line says of them, as text."""
        file = self._config.model_config_file
        try:
            text = file.read_text(errors="replace") if file is not None else ""
        except OSError:
            text = ""
        return f"{self._config.model_name}\n{self._config.model_base_path}\n{text}"

    def _routes(self) -> list[Route]:
        """The methods of all services; where callers are authenticated, guarded."""
        config = self._config
        all_routes = routes_over(self._hosting, config)
        if config.max_calls_per_caller:
            limit = CallLimit(config.max_calls_per_caller)
            all_routes = [limit.limited(route) for route in all_routes]
        if self._authenticator is None:
            return all_routes
        nothing = self._hosting.without_scopes(self._nothing, config)
        self._guard = Guard(self._authenticator, routes_over(nothing, config))
        return [self._guard.guarded(route) for route in all_routes]

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
        await self._background.cancel()
        await self._followers.close()
        self._host.draining.begin()
        self._nothing.draining.begin()
        if self._transport is not None:
            deadline = asyncio.get_running_loop().time() + self._config.drain_seconds
            await asyncio.sleep(_REFUSE_SECONDS)
            while self._host.predicting and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(_REFUSE_SECONDS / 5)
            seconds = max(0.0, deadline - asyncio.get_running_loop().time())
            others = [other for other in (self._fronts, self._rest) if other is not None]
            await asyncio.gather(self._transport.stop(seconds), *(other.stop(seconds) for other in others))
        await self._hosting.control.close()
        try:
            await asyncio.wait_for(self._host.close(), _CLOSE_SECONDS)
        except TimeoutError:
            logger.error("workers did not end in time; they are killed with the template")
        if self._journal is not None:
            self._journal.close()
        logger.info("stopped")
