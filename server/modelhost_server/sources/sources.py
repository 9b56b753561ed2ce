"""From a source, as a caller names it, to a path that a worker can load."""

from __future__ import annotations

import asyncio
from pathlib import Path

from .local import Resolved, local_path, model_in, resolve_path
from .roots import ModelRoots
from .uploads import SCHEME as UPLOAD
from .uploads import Uploads
from .workspace import Workspace

# In the cache directory: what was fetched, and what belongs to processes that are running.
FETCHED = "fetched"
RUNNING = "running"


class Sources:
    """All kinds of sources.

    Args:
        cache_dir: where what was fetched stays.
        data_dir: where uploads stay; without one they go with this process.
        roots: where callers' local paths must be.
        upload_limit_bytes: see `Uploads`.
    """

    def __init__(self, cache_dir: Path, data_dir: Path | None, upload_limit_bytes: int, roots: ModelRoots) -> None:
        self._workspace = Workspace(cache_dir / RUNNING)
        self.roots = roots
        self.uploads = Uploads((data_dir or self._workspace.folder) / "uploads", upload_limit_bytes)

    @property
    def scratch(self) -> Path:
        """Where processes that convert models keep what is not to stay."""
        return self._workspace.folder / "scratch"

    def close(self) -> None:
        """Ends what is under way, and removes what does not stay."""
        self.uploads.close()
        self._workspace.close()

    async def resolve(self, scope: str, source: str, version: int, is_callers: bool = False) -> Resolved:
        """Looks at a source.

        Args:
            scope: of the request; uploads are a scope's own.
            source: a URI or an absolute path.
            version: the version asked for; 0 for the newest.
            is_callers: a caller named it, not who runs the server.

        Raises:
            ModelhostError: INVALID_REQUEST, SOURCE_FORBIDDEN, SOURCE_NOT_FOUND, SOURCE_INVALID, SOURCE_UNSUPPORTED.
        """
        if source.startswith(UPLOAD):
            folder = self.uploads.path(scope, source)
            return await asyncio.to_thread(lambda: resolve_path(model_in(folder), version))
        path = local_path(source)
        return await asyncio.to_thread(self._resolve_callers if is_callers else resolve_path, path, version)

    def _resolve_callers(self, path: Path, version: int) -> Resolved:
        # Before anything is told of what is there; and the directory of a version may be a link to elsewhere.
        self.roots.check(path)
        found = resolve_path(path, version)
        self.roots.check(found.path)
        return found
