"""Loads and unloads models by name, as Triton does: from a repository, from files in the request, or from where it was.

A load makes of a model what its description and its directory say: versions that are as they are to be stay, others are
loaded, and what is not wanted any longer goes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from ..errors import Code, ForeignError, ModelhostError
from ..hosting.background import Background
from ..hosting.cleaning import OVERRIDES
from ..hosting.host import Host
from ..store.events import Event
from ..store.names import DEFAULT_SCOPE
from ..store.operations import LoadRequest
from ..store.phases import SERVED, WANTED, Phase
from ..store.records import Version
from .overrides import Overrides, checked_names, remove
from .triton_config import read_json
from .triton_layout import model_names, read_directory
from .triton_plan import Key, Plan, Wanted, changed_plan, directory_plan, load_failed, not_polled, status_text

logger = logging.getLogger(__name__)


class Mode(Enum):
    """Who decides what of a repository is hosted: its content at the start, its content at any time, or callers."""

    NONE = "none"
    POLL = "poll"
    EXPLICIT = "explicit"


@dataclass(frozen=True, slots=True)
class Ask:
    """What a caller asks to be loaded.

    Attributes:
        name: of the model, as the caller has it.
        config: its description as JSON, instead of the one that it has.
        files: that it is made of, by the names of the parameters that they came in.
        is_kept: it is to be there again when the server is started again.
    """

    name: str
    config: str | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    is_kept: bool = True


@dataclass(slots=True)
class _Known:
    """What has been loaded of a model, by version; where versions were that were unloaded, and why others failed."""

    hosted: dict[int, Wanted] = field(default_factory=dict)
    unloaded: dict[int, Wanted] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class ModelControl:
    """Triton's control of models.

    Args:
        host: what hosts them.
        repository: where they are; None when callers say where.
        mode: who decides what of the repository is hosted.
    """

    def __init__(self, host: Host, repository: Path | None = None, mode: Mode = Mode.EXPLICIT) -> None:
        self._host = host
        self._repository = repository
        self._mode = mode
        self._overrides = Overrides(host.files_dir / OVERRIDES)
        self._known: dict[Key, _Known] = {}
        self._background = Background("model control")
        host.store.events.listen(self._on_event)

    # What callers ask for

    async def load(self, key: Key, ask: Ask) -> None:
        """Loads a model, or loads it anew where it has changed; until then the old one serves.

        Raises:
            ModelhostError: SERVER_DRAINING, STORAGE_FAILED.
            ForeignError: why it is not loaded; what served before still does.
        """
        self._host.draining.check_accepting()
        self._check_explicit()
        error = await self.load_always(key, ask)
        if error is not None:
            raise error
        await self._host.recording.settled()

    async def unload(self, key: Key) -> None:
        """Begins to unload a model; nothing when there is none.

        Raises:
            ForeignError: UNAVAILABLE where that is not for callers to say.
            ModelhostError: STORAGE_FAILED; it is being unloaded, and may be back after a start.
        """
        self._check_explicit()
        await self.unload_always(key)
        await self._host.recording.settled()

    def _check_explicit(self) -> None:
        if self._mode is not Mode.EXPLICIT:
            raise ForeignError(Code.UNAVAILABLE, "explicit model load / unload is not allowed if polling is enabled")

    def names(self) -> list[str]:
        """The models that the repository has; they are of the default scope.

        Raises:
            OSError: it cannot be read.
        """
        return model_names(self._repository) if self._repository is not None else []

    def absent(self) -> Iterable[tuple[Key, int, str]]:
        """Versions that can be loaded by their model's name, and why they are not there."""
        for key, known in self._known.items():
            reasons = dict.fromkeys(known.unloaded, "unloaded") | known.failed
            yield from ((key, number, reason) for number, reason in reasons.items())

    async def close(self) -> None:
        """Ends what is under way; files of requests are not to be had again, unless the journal has them."""
        await self._background.cancel()
        if self._host.is_durable:
            return
        found = {self._overrides.directory_of(version.source) for version in self._all_versions()}
        await asyncio.gather(*(asyncio.to_thread(remove, directory) for directory in found if directory is not None))

    # Whatever the mode

    async def load_always(self, key: Key, ask: Ask) -> ForeignError | None:
        """Loads a model; why it could not, if so. What has begun is ended, whether or not the caller still waits."""
        return await asyncio.shield(self._background.run(self._load(key, ask)))

    async def unload_always(self, key: Key) -> None:
        """Begins to unload a model."""
        async with self._alone(key) as known:
            hosted = self._hosted(key, known)
            # What came in a request is not to be had again.
            known.unloaded |= {
                n: wanted for n, wanted in hosted.items() if not self._overrides.directory_of(wanted.source)
            }
            known.hosted, known.failed = {}, {}
            self._go(key, hosted)

    @asynccontextmanager
    async def _alone(self, key: Key) -> AsyncIterator[_Known]:
        """What is known of a model, for one load or unload at a time."""
        known = self._known.setdefault(key, _Known())
        known.users += 1
        try:
            async with known.lock:
                yield known
        finally:
            known.users -= 1
            if not (known.users or known.hosted or known.unloaded or known.failed):
                del self._known[key]

    # Loading

    async def _load(self, key: Key, ask: Ask) -> ForeignError | None:
        directory = None
        async with self._alone(key) as known:
            try:
                if ask.files:
                    directory = await self._written(ask)
                plan = await self._plan(key, known, ask, directory)
                await self._carry_out(key, known, plan, ask)
            except ForeignError as error:
                logger.warning("model '%s': %s", ask.name, error.message.strip())
                # What failed may have replaced another version of the model all the same.
                if directory is not None and not self._is_wanted(directory):
                    await asyncio.to_thread(remove, directory)
                return error
        return None

    async def _written(self, ask: Ask) -> Path:
        try:
            if ask.config is None:
                raise ForeignError(
                    Code.INVALID_ARGUMENT, "Load parameter 'config' must be specified for model file override"
                )
            return await asyncio.to_thread(lambda: self._overrides.write(checked_names(ask.files)))
        except (ForeignError, OSError) as error:
            raise not_polled(ask.name, error) from None

    async def _plan(self, key: Key, known: _Known, ask: Ask, directory: Path | None) -> Plan:
        """What is to be hosted.

        Raises:
            ForeignError: INTERNAL, as Triton has it whatever is wrong before anything is loaded.
        """
        scope, model = key
        try:
            given = None if ask.config is None else read_json(ask.config)
            if directory is None and scope == DEFAULT_SCOPE and model in await asyncio.to_thread(self.names):
                assert self._repository is not None, "names are those of the repository"
                directory = self._repository / model
            if directory is not None:
                return directory_plan(model, await asyncio.to_thread(read_directory, model, directory, given))
            base = self._hosted(key, known) or known.unloaded
            if base:
                return changed_plan(model, base, given)
        except (ForeignError, OSError) as error:
            raise not_polled(ask.name, error) from None
        raise not_polled(ask.name)

    async def _carry_out(self, key: Key, known: _Known, plan: Plan, ask: Ask) -> None:
        before = self._versions(key).copy()
        serving = {number for number, version in before.items() if version.phase in SERVED}
        hosted = self._hosted(key, known)
        loading: dict[int, Version] = {}
        failures: dict[int, ModelhostError] = {}
        for number, wanted in plan.versions.items():
            try:
                if wanted == hosted.get(number) and before[number].phase in WANTED:
                    loading[number] = before[number]
                else:
                    loading[number] = await self._host.begin_load(self._request(key, plan, number, ask.is_kept))
            except ModelhostError as error:
                failures[number] = error
        for number, version in loading.items():
            try:
                loaded = await self._host.learn(await self._host.load_settled(version))
                plan.check(loaded)
            except ModelhostError as error:
                failures[number] = error
        if failures:
            new = {number: version for number, version in loading.items() if version is not before.get(number)}
            self._undo(known, new, serving, failures)
            # Callers may make up the names of models that come in requests.
            if not any(self._overrides.directory_of(wanted.source) for wanted in plan.versions.values()):
                known.failed = {number: status_text(error) for number, error in failures.items()}
            raise load_failed(plan.model, failures)
        self._go(key, hosted.keys() - plan.versions.keys())
        known.hosted, known.unloaded, known.failed = dict(plan.versions), {}, {}

    @staticmethod
    def _request(key: Key, plan: Plan, number: int, is_kept: bool) -> LoadRequest:
        wanted = plan.versions[number]
        return LoadRequest(
            *key, number, wanted.source, wanted.options, wanted.labels, keep_older=True, replaces=True,
            check_loaded=plan.check, description=wanted.description, is_kept=is_kept,
        )  # fmt: skip

    def _undo(
        self, known: _Known, new: Mapping[int, Version], serving: Collection[int], failures: Collection[int]
    ) -> None:
        """A model is loaded as a whole or not at all: what came new goes again, and what failed to replace another."""
        for number, version in new.items():
            if (number in failures) == (number in serving):
                self._host.unloads.discard(version)
                if number not in failures:
                    known.unloaded[number] = Wanted(version.source, version.options, version.description)

    def _go(self, key: Key, numbers: Collection[int]) -> None:
        """Begins to unload versions."""
        versions = self._versions(key)
        for number in numbers:
            if number in versions:
                self._host.unloads.discard(versions[number])

    # What is hosted

    def _all_versions(self) -> list[Version]:
        return [version for scope in self._host.store.all_scopes() for version in scope.versions()]

    def _is_wanted(self, directory: Path) -> bool:
        """Whether versions that are wanted have the files of a request."""
        wanted = (version for version in self._all_versions() if version.phase in WANTED)
        return any(self._overrides.directory_of(version.source) == directory for version in wanted)

    def _versions(self, key: Key) -> dict[int, Version]:
        scope = next((scope for scope in self._host.store.all_scopes() if scope.name == key[0]), None)
        return scope.models[key[1]].versions if scope is not None and key[1] in scope.models else {}

    def _hosted(self, key: Key, known: _Known) -> dict[int, Wanted]:
        """The versions of a model that serve, are on their way to, or failed to, whoever loaded them."""
        hosted = {}
        for number, version in self._versions(key).items():
            if version.phase in WANTED or version.phase is Phase.FAILED:
                before = known.hosted.get(number)
                labels = self._host.store.model(*key).labels
                hosted[number] = Wanted(
                    version.source, version.options, version.description,
                    tuple(name for name, on in labels.items() if on == number),
                    before.fingerprint if before is not None and before.source == version.source else (),
                )  # fmt: skip
        return hosted

    def _on_event(self, event: Event) -> None:
        directory = self._overrides.directory_of(event.version.source)
        if event.version.phase is not Phase.UNLOADED or directory is None:
            return
        if not any(self._overrides.directory_of(version.source) == directory for version in self._all_versions()):
            self._background.run(self._remove(directory))

    async def _remove(self, directory: Path) -> None:
        # As long as the journal has a version, its files must be there.
        with suppress(ModelhostError):
            await self._host.recording.settled()
            await asyncio.to_thread(remove, directory)
