"""URIs of remote sources: which ones the server reads, and how they are told."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import SplitResult, unquote, urlsplit

from ..errors import ModelhostError, Reason, brief

WEB = ("http", "https")
SCHEMES = ("s3", "gs", *WEB)
# Instead of prefixes: there are none.
NONE = "none"
_MAX_LENGTH = 4096
_PORTS = {"http": 80, "https": 443}


def is_remote(source: str) -> bool:
    """Whether a source is a URI of a remote place."""
    return source.partition("://")[0].lower() in SCHEMES and "://" in source


def shown(uri: str) -> str:
    """A URI as it may be told and logged: without its query, which may hold a signature that is a secret."""
    return brief(uri.partition("?")[0].partition("#")[0], 200)


class AllowedRemotes:
    """The remote sources that callers may load.

    Args:
        prefixes: what they must begin with, in whole parts of the path; all when empty.
    """

    def __init__(self, prefixes: Sequence[str]) -> None:
        self._prefixes = [_split(prefix) for prefix in prefixes if prefix != NONE]
        self._all = not prefixes

    def check(self, uri: str) -> None:
        """Raises ModelhostError, INVALID_REQUEST or SOURCE_FORBIDDEN, unless the URI may be read."""
        parts = _split(uri)
        if self._all or any(_is_below(parts, prefix) for prefix in self._prefixes):
            return
        raise ModelhostError(
            Reason.SOURCE_FORBIDDEN,
            f"source: this server does not load from {shown(uri)} (--remote-sources)",
            field="source",
        )


def check_prefix(prefix: str) -> str:
    """`prefix`, when it may stand for remote sources.

    Raises:
        ValueError: it may not.
    """
    if prefix != NONE and (not is_remote(prefix) or not urlsplit(prefix).netloc):
        raise ValueError(f"expected the beginning of a URI of {', '.join(SCHEMES)}, or {NONE}; got {prefix!r}")
    return prefix


def _split(uri: str) -> SplitResult:
    if len(uri) > _MAX_LENGTH:
        raise _refused(f"expected a URI of at most {_MAX_LENGTH} characters; got {len(uri)}")
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError:
        raise _refused("expected a URI; got one that cannot be read") from None
    if "@" in parts.netloc:
        # They would be kept, and told to everybody who may see the version.
        raise _refused("expected a URI without user and password; give the server credentials in its environment")
    if not parts.netloc or not uri.isprintable() or "\\" in uri or " " in parts.netloc:
        raise _refused(f"expected a URI like {parts.scheme}://HOST/PATH; got {shown(uri)}")
    if any(part in (".", "..") for part in unquote(parts.path).split("/")):
        raise _refused(f"expected a URI without '.' and '..'; got {shown(uri)}")
    return parts


def _is_below(parts: SplitResult, prefix: SplitResult) -> bool:
    return (
        (parts.scheme, parts.netloc if parts.scheme not in WEB else _place(parts))
        == (prefix.scheme, prefix.netloc if prefix.scheme not in WEB else _place(prefix))
        and f"{unquote(parts.path)}/".startswith(f"{unquote(prefix.path).rstrip('/')}/")
    )  # fmt: skip


def _place(parts: SplitResult) -> tuple[str | None, int]:
    return parts.hostname, parts.port or _PORTS[parts.scheme]


def _refused(message: str) -> ModelhostError:
    return ModelhostError(Reason.INVALID_REQUEST, f"source: {message}", field="source")
