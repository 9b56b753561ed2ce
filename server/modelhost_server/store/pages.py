"""Pagination: pages are cut by key, so that a list that changes meanwhile neither repeats nor skips what stays."""

from __future__ import annotations

import base64
import json
from bisect import bisect_right
from collections.abc import Sequence

from ..errors import ModelhostError, Reason

_DEFAULT_SIZE = 100
_MAX_SIZE = 1000


def page(
    keys: Sequence[tuple[str, ...]], page_size: int, page_token: str, listing: str
) -> tuple[Sequence[tuple[str, ...]], str]:
    """The page of sorted `keys` after the token's, and the next token ("" on the last page).

    Args:
        keys: what is listed, sorted.
        page_size: at most this many, 100 when 0; more than 1000 counts as 1000.
        page_token: from the page before.
        listing: what is being listed; a token is good for the list that issued it only.

    Raises:
        ModelhostError: INVALID_REQUEST for a negative size, INVALID_PAGE_TOKEN.
    """
    if page_size < 0:
        raise ModelhostError(
            Reason.INVALID_REQUEST, f"page_size: expected 0 to {_MAX_SIZE}; got {page_size}", field="page_size"
        )
    start = bisect_right(keys, _decode(page_token, listing)) if page_token else 0
    end = start + min(page_size or _DEFAULT_SIZE, _MAX_SIZE)
    chosen = keys[start:end]
    return chosen, _encode(chosen[-1], listing) if end < len(keys) else ""


def _encode(key: tuple[str, ...], listing: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([listing, *key]).encode()).decode()


def _decode(token: str, listing: str) -> tuple[str, ...]:
    try:
        items = json.loads(base64.urlsafe_b64decode(token.encode()))
        if items[0] == listing and all(isinstance(item, str) for item in items):
            return tuple(items[1:])
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        pass
    raise ModelhostError(
        Reason.INVALID_PAGE_TOKEN,
        "page_token: expected the next_page_token of the page before, of the same list",
        field="page_token",
    )
