"""From a source, as a caller names it, to a path that a worker can load."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from .local import Resolved, local_path, model_in, resolve_path
from .remote import Remote, Tell
from .remotes import SCHEMES, AllowedRemotes, is_remote
from .roots import ModelRoots
from .uploads import SCHEME as UPLOAD
from .uploads import Uploads
from .workspace import Workspace

_EXPECTED = f"an absolute path, an `{UPLOAD}` source, or a URI of file, {', '.join(SCHEMES)}"
# In the data directory. In the cache directory: what was fetched, and what belongs to processes that are running.
UPLOADS = "uploads"
FETCHED = "fetched"
RUNNING = "running"


class Sources:
    """All kinds of sources.

    Args:
        cache_dir: where what was fetched stays.
        data_dir: where uploads stay; without one they go with this process.
        upload_limit_bytes: what an upload, or a remote source, may have when it is unpacked.
        remote_sources: see `AllowedRemotes`.
        roots: where callers' local paths must be.
    """

    def __init__(
        self, cache_dir: Path, data_dir: Path | None, upload_limit_bytes: int, remote_sources: Sequence[str],
        roots: ModelRoots,
    ) -> None:  # fmt: skip
        # Workers are elsewhere.
        cache_dir = cache_dir.absolute()
        # It has what callers send: models, and samples of their data.
        cache_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._workspace = Workspace(cache_dir / RUNNING)
        self.roots = roots
        self.uploads = Uploads(
            (self._workspace.folder if data_dir is None else data_dir.absolute()) / UPLOADS, upload_limit_bytes
        )
        allowed = AllowedRemotes(remote_sources)
        self._remote = Remote(
            cache_dir / FETCHED,
            cache_dir / "fetched_as",
            self._workspace.folder / "fetching",
            allowed,
            upload_limit_bytes,
        )

    @property
    def scratch(self) -> Path:
        """Where processes that convert models keep what is not to stay."""
        return self._workspace.folder / "scratch"

    def close(self) -> None:
        """Ends what is under way, and removes what does not stay."""
        self._remote.close()
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
            ModelhostError: INVALID_REQUEST, SOURCE_NOT_FOUND, SOURCE_INVALID, SOURCE_UNSUPPORTED, SOURCE_UNAVAILABLE,
                SOURCE_FORBIDDEN.
        """
        if source.startswith(UPLOAD):
            folder = self.uploads.path(scope, source)
            return await asyncio.to_thread(lambda: resolve_path(model_in(folder), version))
        if is_remote(source):
            return await self._remote.resolve(source, version)
        path = local_path(source, _EXPECTED)
        return await asyncio.to_thread(self._resolve_callers if is_callers else resolve_path, path, version)

    def _resolve_callers(self, path: Path, version: int) -> Resolved:
        # Before anything is told of what is there; and the directory of a version may be a link to elsewhere.
        self.roots.check(path)
        found = resolve_path(path, version)
        self.roots.check(found.path)
        return found

    async def resolve_again(self, scope: str, source: str, version: int) -> Resolved:
        """As `resolve`, for what an earlier server was allowed to load: from a remote place, what that has fetched
        counts.
        """
        if is_remote(source) and (fetched := await self._remote.fetched(source, version)) is not None:
            return fetched
        return await self.resolve(scope, source, version)

    async def fetch(self, source: str, path: str, version: int, tell: Tell) -> str:
        """The path to load a source from, once it is on this machine; see `Remote.fetch`."""
        return await self._remote.fetch(source, path, version, tell) if is_remote(source) else path
