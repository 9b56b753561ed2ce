"""fsspec's file systems for remote sources, and what their failures mean. Blocking: for threads.

What is read here is imported when it is first needed: fsspec and its plug-ins are extras.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import ModelhostError, Reason
from .disk import is_full, storage_failed
from .remotes import WEB, shown

_CONNECT_SECONDS = 10.0
_READ_SECONDS = 60.0
_RETRY_SECONDS = 10.0
_CHECK_SECONDS = 0.5
_EXTRAS = {"s3": "s3", "gs": "gcs", "http": "http", "https": "http"}


def open_filesystem(uri: str, check: Callable[[str], None]) -> Any:
    """The file system that a URI is of. Credentials come from this process's environment, as each library has it.

    Args:
        uri: of a remote source.
        check: raises when a URI may not be read; where http: redirects to is checked, too.

    Raises:
        ModelhostError: SOURCE_UNSUPPORTED.
    """
    scheme = urlsplit(uri).scheme
    try:
        import fsspec

        if scheme in WEB:
            return fsspec.filesystem(scheme, skip_instance_cache=True, **_web_options(check))
        if scheme == "s3":
            timeouts = {"connect_timeout": _CONNECT_SECONDS, "read_timeout": _READ_SECONDS}
            return fsspec.filesystem(scheme, use_listings_cache=False, config_kwargs=timeouts)
        return fsspec.filesystem(scheme, use_listings_cache=False, requests_timeout=_READ_SECONDS)
    except ImportError:
        raise ModelhostError(
            Reason.SOURCE_UNSUPPORTED,
            f"source: to load from {scheme}: the server needs pip install 'modelhost[{_EXTRAS[scheme]}]'",
            field="source",
        ) from None


def _web_options(check: Callable[[str], None]) -> dict[str, Any]:
    import aiohttp
    from yarl import URL

    async def on_redirect(session: Any, context: Any, params: Any) -> None:
        # aiohttp itself follows to http: and https: only.
        check(str(params.url.join(URL(params.response.headers.get("Location", "")))))

    async def client(**options: Any) -> Any:
        tracing = aiohttp.TraceConfig()
        tracing.on_request_redirect.append(on_redirect)
        # Proxies, and passwords in ~/.netrc, are taken from the environment.
        return aiohttp.ClientSession(trace_configs=[tracing], trust_env=True, **options)

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_READ_SECONDS)
    return {"get_client": client, "client_kwargs": {"timeout": timeout}}


class Store:
    """A file system, of which each question can be given up.

    Args:
        filesystem: fsspec's.
        check: called while an answer is waited for; raises when it is no longer wanted.
    """

    def __init__(self, filesystem: Any, check: Callable[[], None]) -> None:
        self._filesystem = filesystem
        self._check = check

    def path(self, uri: str) -> str:
        """What a URI is called within the file system."""
        return str(self._filesystem._strip_protocol(uri)).rstrip("/")

    def info(self, name: str) -> Any:
        """What is known of a file or directory."""
        return self._answer(self._filesystem._info(name))

    def list(self, name: str) -> Any:
        """What is known of all that is in a directory."""
        return self._answer(self._filesystem._ls(name, detail=True))

    def find(self, name: str) -> Any:
        """What is known of all files below a directory, by name."""
        return self._answer(self._filesystem._find(name, detail=True))

    def get(self, name: str, target: Path, note: Callable[[int], None]) -> None:
        """Copies a file; `note` is told of every few bytes more."""
        self._answer(self._filesystem._get_file(name, str(target), callback=_noting(note)))

    def _answer(self, asking: Coroutine[Any, Any, Any]) -> Any:
        # In a thread of fsspec's own, which is told when the answer is not wanted any more.
        answer = asyncio.run_coroutine_threadsafe(asking, self._filesystem.loop)
        while not wait([answer], _CHECK_SECONDS).done:
            try:
                self._check()
            except BaseException:
                answer.cancel()
                raise
        return answer.result()


def _noting(note: Callable[[int], None]) -> Any:
    from fsspec.callbacks import Callback

    class Noting(Callback):  # type: ignore[misc]
        def relative_update(self, inc: int = 1) -> None:
            note(inc)

    return Noting()


@contextmanager
def told(uri: str) -> Iterator[None]:
    """Within, what the libraries raise is told as ModelhostError: SOURCE_NOT_FOUND, SOURCE_UNAVAILABLE, STORAGE_FAILED.

    Their words are not, because they may hold secrets of the URI.
    """
    try:
        yield
    except ModelhostError:
        raise
    except Exception as error:
        causes = list(_causes(error))
        for cause in causes:
            if isinstance(cause, ModelhostError):
                raise cause from None
        if any(map(is_full, causes)):
            raise storage_failed(f"source: {shown(uri)}", "the disk is full") from error
        raise _told(uri, causes) from error


def _told(uri: str, causes: list[BaseException]) -> ModelhostError:
    statuses = [getattr(cause, "status", None) for cause in causes]
    status = next((status for status in statuses if isinstance(status, int)), 0)
    is_refused = isinstance(causes[0], PermissionError) or status in (401, 403)
    if is_refused or type(causes[0]).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
        return _no_source(f"{shown(uri)} may not be read with the credentials in the server's environment")
    if 400 <= status < 500 and status not in (408, 425, 429):
        return _no_source(f"there is nothing at {shown(uri)} (HTTP status {status})")
    # That is what fsspec says of http: whatever went wrong.
    if isinstance(causes[0], FileNotFoundError) and (len(causes) == 1 or urlsplit(uri).scheme not in WEB):
        return _no_source(f"there is nothing at {shown(uri)}")
    why = f"HTTP status {status}" if status else type(causes[-1]).__name__
    return ModelhostError(
        Reason.SOURCE_UNAVAILABLE,
        f"source: {shown(uri)} could not be fetched: {why}; try again later",
        field="source",
        retry_after=_RETRY_SECONDS,
    )


def _no_source(message: str) -> ModelhostError:
    return ModelhostError(Reason.SOURCE_NOT_FOUND, f"source: {message}", field="source")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
