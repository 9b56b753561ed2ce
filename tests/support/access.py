"""A server that knows its callers, and callers with each role, by token."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import modelhost
from modelhost.v1 import scope_service_pb2
from modelhost_server.access.access_file import AccessFile
from modelhost_server.access.grants import read_grants

from .calls import eventually, load
from .server import ServerProcess, Stubs

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


class Team:
    """A server with two teams, each with a model in a scope of its own."""

    def __init__(self, process: ServerProcess, file: Path, tokens: dict[str, str], models: Path) -> None:
        self.process = process
        self.channel = grpc.insecure_channel(process.address)
        self.file = AccessFile(file)
        self.tokens = tokens
        self.models = models
        self.admin = self.stubs(ADMIN)
        for scope in (MINE, OTHER):
            self.admin.create_scope(scope)
            load(self.admin, scope, "half", models / "half_plus_two")

    def stubs(self, caller: str) -> Stubs:
        """Stubs with a caller's token."""
        return Stubs(self.process.address, token=self.tokens[caller])

    def client(self, caller: str, **options: Any) -> modelhost.Client:
        """A client with a caller's token."""
        return modelhost.Client(self.process.address, token=self.tokens[caller], **options)

    def new_token(self, *grants: str) -> tuple[str, str]:
        """A token's id, and the token."""
        return self.file.create_token("guest", read_grants(grants), None)

    def until_known(self, token: str) -> Stubs:
        """Stubs of a token that has just been made; the server looks twice a second."""
        stubs = Stubs(self.process.address, token=token)
        eventually(lambda: stubs.scopes.ListScopes(scope_service_pb2.ListScopesRequest(page_size=1)) is not None)
        return stubs


def serve_team(directory: Path, models: Path, *options: str) -> Iterator[Team]:
    """Serves them."""
    tokens = make_access_file(directory / "access.db")
    with ServerProcess("--access", str(directory / "access.db"), "--model-root", "/", *options) as process:
        yield Team(process, directory / "access.db", tokens, models)
