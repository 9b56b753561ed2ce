"""Hosts what a directory in Triton's layout holds: at the start, and with polling as it changes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelhostError, Reason
from ..store.names import DEFAULT_SCOPE
from .directory import Look, look
from .policy import retry_delay
from .triton_control import Ask, Mode, ModelControl

logger = logging.getLogger(__name__)

_EVERYTHING = "*"


@dataclass(slots=True)
class _Tried:
    """A model's directory as it was when it was tried last, and what came of it."""

    look: Look
    failures: int = 0
    retry_at: float = 0.0


class TritonRepository:
    """Follows a repository.

    Args:
        control: what loads and unloads.
        directory: the repository.
        mode: what is loaded without being asked for.
        startup: models to be loaded at the start where callers decide; "*" for all.
        poll_seconds: time between two looks.
    """

    def __init__(
        self,
        control: ModelControl,
        directory: Path,
        mode: Mode,
        startup: Sequence[str] = (),
        poll_seconds: float = 15.0,
    ) -> None:
        self._control = control
        self._directory = directory
        self._mode = mode
        self._startup = startup
        self._poll_seconds = poll_seconds
        self._tried: dict[str, _Tried] = {}
        self._looks: dict[str, Look] = {}

    def check(self) -> None:
        """Raises ModelhostError, SOURCE_NOT_FOUND, when the repository is no directory."""
        if not self._directory.is_dir():
            raise ModelhostError(
                Reason.SOURCE_NOT_FOUND, f"model_repository: expected a directory; got {self._directory}"
            )

    async def follow(self) -> None:
        """Loads what is to be there from the start; with polling, goes on looking without end."""
        try:
            there = await asyncio.to_thread(self._control.names)
        except OSError as error:
            self._say(error)
            there = []
        names = there if self._mode is not Mode.EXPLICIT or _EVERYTHING in self._startup else self._startup
        looks = await asyncio.gather(*(self._look(name) for name in names))
        await asyncio.gather(*(self._try(name, found) for name, found in zip(names, looks, strict=True)))
        while self._mode is Mode.POLL:
            await asyncio.sleep(self._poll_seconds)
            try:
                await self._look_again()
            except OSError as error:
                # What is hosted stays: the directory may be back soon.
                self._say(error)

    def _say(self, error: OSError) -> None:
        logger.warning("the model repository %s cannot be read: %s", self._directory, error.strerror)

    async def _look(self, name: str) -> Look:
        return await asyncio.to_thread(look, str(self._directory / name))

    async def _try(self, name: str, found: Look) -> None:
        """Loads a model. It says itself why it cannot."""
        before = self._tried.get(name)
        tried = self._tried[name] = _Tried(found)
        if await self._control.load_always((DEFAULT_SCOPE, name), Ask(name, is_kept=False)) is not None:
            tried.failures = 1 + (before.failures if before is not None else 0)
            tried.retry_at = time.monotonic() + retry_delay(tried.failures)

    async def _look_again(self) -> None:
        """Loads what has changed, and unloads what has gone."""
        names = await asyncio.to_thread(self._control.names)
        for name in self._tried.keys() - set(names):
            del self._tried[name]
            self._looks.pop(name, None)
            logger.info("model '%s' has gone from the repository", name)
            await self._control.unload_always((DEFAULT_SCOPE, name))
        looks = dict(zip(names, await asyncio.gather(*map(self._look, names)), strict=True))
        due = [name for name, found in looks.items() if self._is_due(name, found)]
        self._looks = looks
        await asyncio.gather(*(self._try(name, looks[name]) for name in due))

    def _is_due(self, name: str, found: Look) -> bool:
        """Whether a model is to be tried: it has changed, and nobody is writing any more; or it may be tried again."""
        tried = self._tried.get(name)
        if tried is not None and tried.look.fingerprint == found.fingerprint:
            return bool(tried.failures) and time.monotonic() >= tried.retry_at
        return found.is_quiet(self._looks.get(name), time.time(), self._poll_seconds)
