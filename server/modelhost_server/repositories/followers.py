"""All the directories that are followed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from ..hosting.background import Background
from ..hosting.host import Host
from ..store.events import Event
from .follower import Follower
from .model_directory import ModelDirectory

# Looks that hang, as on a file system that is away, take a thread each and must not take the last one.
_THREADS = 32


class Followers:
    """Follows one directory a model.

    Args:
        poll_wait: seconds between two looks at each; 0 to look once, less to never look.
    """

    def __init__(self, host: Host, poll_wait: float) -> None:
        self._host = host
        self._poll_wait = poll_wait
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="directories")
        self._followers: dict[tuple[str, str], Follower] = {}
        self._background = Background("directories")
        host.store.events.listen(self._on_event)

    def follow(self, directories: Sequence[ModelDirectory]) -> list[Follower]:
        """Follows these, and no others, from now on: what was hosted from others is unloaded.

        Returns:
            The followers of what is new or has changed.
        """
        wanted = {directory.key: directory for directory in directories}
        for key in self._followers.keys() - wanted.keys():
            self._background.run(self._followers.pop(key).abandon())
        changed = []
        for key, directory in wanted.items():
            follower = self._followers.get(key)
            if follower is None:
                follower = self._followers[key] = Follower(self._host, directory, self._poll_wait, self._threads)
                changed.append(follower)
            elif follower.directory != directory:
                follower.change(directory)
                changed.append(follower)
        return changed

    def of(self, scope: str, model: str) -> Follower | None:
        """Who follows a model's directory, if it is followed."""
        return self._followers.get((scope, model))

    def _on_event(self, event: Event) -> None:
        follower = self._followers.get((event.version.scope, event.version.model))
        if follower is not None:
            follower.wake()

    async def close(self) -> None:
        """Ends all following; what is hosted stays."""
        await self._background.cancel()
        await asyncio.gather(*(follower.stop() for follower in self._followers.values()))
        self._threads.shutdown(wait=False, cancel_futures=True)
