"""Runs the converter process: turns what no worker can load into what one can, one at a time, and caches the result
by content.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path

from ..errors import ModelhostError, Reason

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 600.0


class Converter:
    """Converts `.keras` files to SavedModels under a cache directory."""

    def __init__(self, cache_dir: Path) -> None:
        self._cache = cache_dir / "converted"
        self._turn = asyncio.Lock()

    def is_needed(self, path: str) -> bool:
        """Whether a source must be converted before a worker can load it."""
        return path.endswith(".keras")

    async def convert(self, path: str) -> str:
        """The SavedModel directory made from a source.

        Raises:
            ModelhostError: SOURCE_INVALID with the converter's words, SOURCE_NOT_FOUND.
        """
        async with self._turn:
            try:
                digest = await asyncio.to_thread(_digest, path)
            except OSError as error:
                raise ModelhostError(Reason.SOURCE_NOT_FOUND, f"source: cannot be read: {error.strerror}") from None
            result = self._cache / digest
            if result.is_dir():
                return str(result)
            self._cache.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(dir=self._cache, prefix="partial-"))
            try:
                await self._run(path, partial)
                # Complete or not at all: a reader never sees half a conversion.
                os.replace(partial, result)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
            return str(result)

    async def _run(self, path: str, target: Path) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "modelhost_server.converter", path, str(target),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            output, log = await asyncio.wait_for(process.communicate(), _TIMEOUT_SECONDS)
        except TimeoutError:
            raise ModelhostError(
                Reason.SOURCE_INVALID, f"converting the model took longer than {_TIMEOUT_SECONDS:.0f} s"
            ) from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode == 0:
            return
        try:
            error = str(json.loads(output)["error"])
        except (ValueError, KeyError):
            logger.error("the converter failed: %s", log.decode("utf-8", "replace")[-2000:])
            error = f"the converter ended with status {process.returncode}"
        raise ModelhostError(Reason.SOURCE_INVALID, f"the model cannot be converted: {error}")


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
