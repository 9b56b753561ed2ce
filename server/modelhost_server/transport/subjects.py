"""Names in certificates, as ASGI has them: RFC 4514."""

from __future__ import annotations

import re
from functools import lru_cache

_COMMON_NAME = re.compile(r"(?:^|[,+])CN=((?:[^,+\\]|\\[0-9A-Fa-f]{2}|\\.)*)", re.DOTALL)
_ESCAPES = re.compile(r"((?:\\[0-9A-Fa-f]{2})+)|\\(.)", re.DOTALL)


@lru_cache(maxsize=1024)
def common_name(subject: str) -> str:
    """The common name in a subject; empty if it has none. The last in the text is the certificate's first, which is
    what grpcio takes.
    """
    names = _COMMON_NAME.findall(subject)
    return _ESCAPES.sub(_plain, names[-1]) if names else ""


def _plain(escape: re.Match[str]) -> str:
    if escape[1]:
        return bytes.fromhex(escape[1].replace("\\", "")).decode(errors="replace")
    return escape[2]
