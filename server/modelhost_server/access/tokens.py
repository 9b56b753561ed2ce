"""Tokens: `mh_<id>_<secret>`. The id finds the token in the access file; only a hash of the whole is kept there.

The secret is 256 random bits: nobody guesses it, however fast hashes are made, so the hash is one SHA-256 and no slow
one, which every call would have to wait for.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

PREFIX = "mh"
_ID_BYTES = 6
_SECRET_BYTES = 32
_TOKEN = re.compile(rf"{PREFIX}_([0-9a-f]{{{2 * _ID_BYTES}}})_[A-Za-z0-9_-]{{43}}", re.ASCII)
# What a token is compared with that is nobody's: no token has this hash.
_NO_HASH = bytes(hashlib.sha256().digest_size)


def new_token() -> tuple[str, str]:
    """A new token's id, and the token."""
    token_id = secrets.token_hex(_ID_BYTES)
    return token_id, f"{PREFIX}_{token_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"


def token_id(token: str) -> str:
    """The id in a token; empty when it is none."""
    found = _TOKEN.fullmatch(token)
    return found[1] if found else ""


def token_hash(token: str) -> bytes:
    """What is kept of a token."""
    return hashlib.sha256(token.encode(errors="replace")).digest()


def is_token(token: str, kept: bytes | None) -> bool:
    """Whether `kept` is what is kept of this token. Takes as long when nothing is kept."""
    return hmac.compare_digest(token_hash(token), _NO_HASH if kept is None else kept)
