"""Turns sources that no worker can load into what one can, and keeps the result by content."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from ..errors import ModelhostError, Reason
from .converting import ConverterFault, Converting
from .digests import Digests

_TIMEOUT_SECONDS = 600.0


class Conversion:
    """Makes SavedModels of `.keras` files, under a cache directory."""

    def __init__(self, cache_dir: Path, converting: Converting, digests: Digests) -> None:
        self._cache = cache_dir / "converted"
        self._converting = converting
        self._digests = digests

    def is_needed(self, path: str) -> bool:
        """Whether a source must be converted before a worker can load it."""
        return path.endswith(".keras")

    async def convert(self, path: str) -> str:
        """The SavedModel directory made from a source.

        Raises:
            ModelhostError: SOURCE_INVALID with the converter's words, SOURCE_NOT_FOUND.
        """
        result = self._cache / await self._digests.of(path)
        if result.is_dir():
            os.utime(result)
            return str(result)
        self._cache.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=self._cache, prefix="partial-"))
        try:
            job = {"source": path, "target": str(partial)}
            await self._converting.run("export", job, _TIMEOUT_SECONDS, urgent=True)
            # Complete or not at all: a reader never sees half a conversion.
            if not result.is_dir():
                os.replace(partial, result)
        except ConverterFault:
            raise
        except ModelhostError as error:
            raise ModelhostError(Reason.SOURCE_INVALID, f"the model cannot be converted: {error.message}") from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return str(result)
