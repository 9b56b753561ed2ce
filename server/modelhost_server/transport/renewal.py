"""Follows the TLS files: certificates are renewed without a restart, by whoever replaces the files."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Any

from .tls import TlsFiles

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 2.0


class Renewal:
    """Looks at files from time to time.

    Args:
        files: to look at.
        renew: called with what they say when they have changed; not while they are not right.
    """

    def __init__(self, files: TlsFiles, renew: Callable[[ssl.SSLContext], Any]) -> None:
        self._files = files
        self._renew = renew
        self._seen = _stamp(files)
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Looks no more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            stamp = await asyncio.to_thread(_stamp, self._files)
            if stamp == self._seen:
                continue
            # Files are replaced one by one: what does not fit together yet may do so at the next look.
            self._seen = stamp
            try:
                context = await asyncio.to_thread(self._files.context)
                self._renew(context)
                logger.info("TLS: %s has changed and is used from now on", self._files.certificate)
            except OSError as error:
                logger.error("%s; what was there before stays in use", error)


def _stamp(files: TlsFiles) -> list[object]:
    stamps: list[object] = []
    for file in files.all:
        try:
            status = file.stat()
        except OSError as error:
            stamps.append(error.errno)
        else:
            stamps.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return stamps
