"""A server that knows its callers, and callers with each role, by token."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import grpc
from modelhost_server.access.access_file import AccessFile
from modelhost_server.access.grants import read_grants

# Of one length, so that what is told of one is what is told of the other with the name exchanged.
MINE, OTHER, ABSENT = "team-a", "team-b", "team-x"
ROLES = ("predict", "manage", "admin")
ADMIN = "admin on *"
# Who must not get in.
STRANGERS = ("nobody", "wrong", "expired", "revoked")


def make_access_file(path: Path) -> dict[str, str]:
    """Makes an access file; answers each caller's token, by what it may do."""
    file = AccessFile.made(path)
    tokens = {"nobody": "", "wrong": f"mh_{'0' * 12}_{'x' * 43}"}
    for scope in (MINE, OTHER):
        for role in ROLES:
            grants = read_grants([f"{role}:{scope}"])
            tokens[f"{role} on {scope}"] = file.create_token(f"{role}-{scope}", grants, None)[1]
    everything = read_grants(["admin:*"])
    tokens[ADMIN] = file.create_token("root", everything, None)[1]
    tokens["expired"] = file.create_token("root", everything, time.time() - 1)[1]
    token_id, tokens["revoked"] = file.create_token("root", everything, None)
    file.revoke_token(token_id)
    return tokens


class Answer(NamedTuple):
    """What came first of a call: its first message, or why there is none."""

    code: grpc.StatusCode
    message: bytes
    text: str = ""
    details: bytes = b""

    def named(self, old: str, new: str) -> Answer:
        """The answer with a name exchanged."""
        then = (self.message.replace(old.encode(), new.encode()), self.text.replace(old, new))
        return Answer(self.code, *then, self.details.replace(old.encode(), new.encode()))


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata that has a token."""
    return (("authorization", f"Bearer {token}"),) if token else ()


def ask(channel: grpc.Channel, path: str, requests: Iterable[bytes], token: str) -> Answer:
    """Calls a method, of whatever kind: on the wire, all are streams."""
    call = channel.stream_stream(path)(iter(requests), metadata=bearer(token), timeout=30)
    try:
        return Answer(grpc.StatusCode.OK, next(call))
    except StopIteration:
        return Answer(grpc.StatusCode.OK, b"")
    except grpc.RpcError as error:
        found = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
        return Answer(error.code(), b"", error.details() or "", found)
    finally:
        call.cancel()
