"""Tokens, grants and the access file; who is known by them, and for how long."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from modelhost_server.access.access_file import AccessFile
from modelhost_server.access.authenticator import Authenticator
from modelhost_server.access.grants import grant_texts, permission_denied, read_grants
from modelhost_server.access.identity import Credentials, Identity, Role
from modelhost_server.access.tokens import is_token, new_token, token_hash, token_id
from modelhost_server.access_cli import subject_app, token_app
from modelhost_server.errors import ModelhostError, Reason
from modelhost_server.services.call import Call
from modelhost_server.transport.sessions import Sessions
from modelhost_server.transport.subjects import common_name
from test_store_phases import refused
from typer.testing import CliRunner, Result


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "access.db"


def bearer(token: str) -> Credentials:
    return Credentials(f"Bearer {token}")


def test_tokens() -> None:
    found, token = new_token()
    assert token_id(token) == found
    assert is_token(token, token_hash(token))
    assert not is_token(token, token_hash(new_token()[1]))
    assert not is_token(token, None)
    assert new_token() != new_token()
    for wrong in ("", "mh_", f"mh_{found}_", token[1:], f"{token}x", f"mh_{found}_{'é' * 43}", f"{token}\n"):
        assert token_id(wrong) == ""
        assert not is_token(wrong, token_hash(token))


def test_grants() -> None:
    grants = read_grants(["predict:a", "admin:*", "manage:a", "predict:b"])
    assert grants == {"a": Role.MANAGE, "*": Role.ADMIN, "b": Role.PREDICT}
    assert grant_texts(grants) == ["admin:*", "manage:a", "predict:b"]
    assert read_grants(grant_texts(grants)) == grants
    assert Identity("x", grants).role_on("nowhere") is Role.ADMIN
    assert Identity("x", {"a": Role.PREDICT}).role_on("b") is Role.NONE


@pytest.mark.parametrize("wrong", ["", "predict", "predict:", ":a", "none:a", "read:a", "predict:a/b", "predict:**"])
def test_grants_that_are_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        read_grants([wrong])


def test_what_is_told_of_a_missing_role() -> None:
    error = permission_denied(Identity("robot", {"a": Role.PREDICT}), "a", Role.ADMIN)
    assert error.message == "'robot' needs the role admin on scope 'a' and has predict"
    assert len(permission_denied(Identity("robot", {}), "x" * 10_000, Role.ADMIN).message) < 300


def test_the_file_is_its_owners_alone_and_has_no_token(file: Path) -> None:
    access = AccessFile.made(file)
    found, token = access.create_token("team", read_grants(["predict:a"]), None)
    assert file.stat().st_mode & 0o777 == 0o600
    assert token.rpartition("_")[2].encode() not in file.read_bytes()
    assert AccessFile.made(file).read().tokens[found].identity == Identity("team", {"a": Role.PREDICT})
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]
    file.chmod(0o640)
    with pytest.raises(OSError, match="chmod 600"):
        AccessFile(file)


@pytest.mark.parametrize("content", [b"", b"not a database, whatever it is called" * 50])
def test_a_file_that_is_something_else_is_refused(file: Path, content: bytes) -> None:
    file.touch(0o600)
    file.write_bytes(content)
    with pytest.raises(OSError, match=r"version 0|not a database"):
        AccessFile(file)
    assert file.read_bytes() == content


def test_who_comes_with_what(file: Path) -> None:
    access = AccessFile.made(file)
    good, token = access.create_token("team", read_grants(["predict:a"]), time.time() + 60)
    expired = access.create_token("team", read_grants(["predict:a"]), time.time() - 1)[1]
    revoked_id, revoked = access.create_token("team", read_grants(["predict:a"]), None)
    assert access.revoke_token(revoked_id)
    assert not access.revoke_token(revoked_id)
    access.put_subject("robot.team", "robot", read_grants(["manage:a"]))
    authenticator = Authenticator(file)
    assert authenticator.identify(bearer(token)) == Identity("team", {"a": Role.PREDICT})
    assert authenticator.identify(Credentials(subject="robot.team")).name == "robot"
    # A token says it alone.
    assert authenticator.identify(Credentials(f"bearer {token}", "robot.team")).name == "team"
    wrong = [bearer(each) for each in (expired, revoked, f"{token}x", token.replace(good, revoked_id))]
    wrong += [Credentials(), Credentials(token), Credentials(f"Basic {token}"), Credentials(subject="robot")]
    for credentials in (*wrong, Credentials("Bearer mh_", "robot.team"), Credentials(subject="ROBOT.team")):
        with refused(Reason.UNAUTHENTICATED) as caught:
            authenticator.identify(credentials)
        assert token not in str(caught.value)
    assert token not in repr(bearer(token))


async def test_a_stream_ends_with_its_callers_token(file: Path) -> None:
    access = AccessFile.made(file)
    found, token = access.create_token("team", read_grants(["predict:a"]), None)
    authenticator = Authenticator(file)
    sessions = Sessions(authenticator)
    following = asyncio.create_task(authenticator.follow())
    credentials = bearer(token)
    call = Call(credentials=credentials, identity=authenticator.identify(credentials))
    with sessions.opened(call) as waiting, sessions.opened(call) as busy, sessions.opened(Call()) as anybody:
        assert await waiting.wait(asyncio.sleep(0, "something")) == "something"
        assert access.revoke_token(found)
        with refused(Reason.UNAUTHENTICATED):
            await asyncio.wait_for(waiting.wait(asyncio.Event().wait()), 20)
        with refused(Reason.UNAUTHENTICATED):
            busy.check()
        anybody.check()
        # A caller that leaves is no matter of tokens.
        leaving = asyncio.create_task(anybody.wait(asyncio.Event().wait()))
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
    following.cancel()


async def test_a_token_ends_though_requests_keep_all_threads_busy(file: Path) -> None:
    access = AccessFile.made(file)
    found, token = access.create_token("team", read_grants(["predict:a"]), None)
    authenticator = Authenticator(file)
    following = asyncio.create_task(authenticator.follow())
    done = threading.Event()
    busy = [asyncio.create_task(asyncio.to_thread(done.wait)) for _ in range(100)]
    looked = asyncio.Event()
    authenticator.listen(looked.set)
    try:
        assert access.revoke_token(found)
        await asyncio.wait_for(looked.wait(), 20)
        with refused(Reason.UNAUTHENTICATED):
            authenticator.identify(bearer(token))
    finally:
        done.set()
        await asyncio.gather(*busy)
        following.cancel()


async def test_a_stream_ends_when_what_its_caller_may_do_changes_or_time_is_up(file: Path) -> None:
    access = AccessFile.made(file)
    access.put_subject("robot", "robot", read_grants(["manage:a"]))
    short = access.create_token("team", read_grants(["predict:a"]), time.time() + 0.6)[1]
    authenticator = Authenticator(file)
    sessions = Sessions(authenticator)
    following = asyncio.create_task(authenticator.follow())
    for credentials in (bearer(short), Credentials(subject="robot")):
        call = Call(credentials=credentials, identity=authenticator.identify(credentials))
        with sessions.opened(call) as session, refused(Reason.UNAUTHENTICATED):
            if credentials.subject:
                access.put_subject("robot", "robot", read_grants(["predict:a"]))
            await asyncio.wait_for(session.wait(asyncio.Event().wait()), 20)
    following.cancel()


async def test_while_the_file_cannot_be_read_what_was_read_last_counts(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = AccessFile.made(file).create_token("team", read_grants(["predict:a"]), None)[1]
    authenticator = Authenticator(file)
    looked = asyncio.Event()
    stop = authenticator.listen(looked.set)
    following = asyncio.create_task(authenticator.follow())
    os.rename(file, file.with_suffix(".away"))
    await asyncio.wait_for(looked.wait(), 20)
    assert authenticator.identify(bearer(token)).name == "team"
    assert "what was read last counts" in caplog.text
    # Another file in its place is what counts.
    AccessFile.made(file)
    looked.clear()
    await asyncio.wait_for(looked.wait(), 20)
    with refused(Reason.UNAUTHENTICATED):
        authenticator.identify(bearer(token))
    # And so does a copy of another one, which may have as many changes behind it.
    other = AccessFile.made(file.with_suffix(".other"))
    other_token = AccessFile.made(file).create_token("team", read_grants(["predict:a"]), None)[1]
    looked.clear()
    await asyncio.wait_for(looked.wait(), 20)
    authenticator.identify(bearer(other_token))
    other.create_token("other", read_grants(["predict:a"]), None)
    shutil.copyfile(file.with_suffix(".other"), file)
    looked.clear()
    await asyncio.wait_for(looked.wait(), 20)
    with refused(Reason.UNAUTHENTICATED):
        authenticator.identify(bearer(other_token))
    stop()
    following.cancel()


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ("CN=robot,OU=x,O=y", "robot"),
        ("O=y+CN=robot", "robot"),
        ("OU=a\\,CN=evil,CN=robot", "robot"),
        ("CN=a\\,b\\2bc\\C3\\A9", "a,b+cé"),
        ("CN=second,CN=first", "first"),
        ("O=CN=evil", ""),
        ("", ""),
    ],
)
def test_common_names(subject: str, name: str) -> None:
    assert common_name(subject) == name


@pytest.fixture
def run(file: Path) -> Callable[..., Result]:
    """Runs a command on the file."""
    app = typer.Typer()
    app.add_typer(token_app, name="token")
    app.add_typer(subject_app, name="subject")

    @app.callback()
    def options(json: bool = False) -> None:
        """As the client's own."""

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments), env={"MODELHOST_ACCESS": str(file)})

    return run


def test_commands_of_tokens(run: Callable[..., Result], file: Path) -> None:
    token = run("token", "create", "team-a", "--grant", "predict:team-a", "-g", "manage:b", "--expires", "30d").output
    assert Authenticator(file).identify(bearer(token.strip())).grants == {"team-a": Role.PREDICT, "b": Role.MANAGE}
    (row,) = json.loads(run("--json", "token", "list").output)
    assert (row["name"], row["grants"], row["state"]) == ("team-a", ["manage:b", "predict:team-a"], "good")
    assert row["id"] == token.split("_")[1]
    assert token.strip() not in run("token", "list").output
    assert run("token", "revoke", row["id"]).exit_code == 0
    assert "revoked" in run("token", "list").output
    again = run("token", "revoke", row["id"])
    assert (again.exit_code, "modelhost token list" in again.output) == (1, True)
    made = json.loads(run("--json", "token", "create", "ci", "-g", "admin:*").output)
    assert Authenticator(file).identify(bearer(made["token"])).name == made["name"] == "ci"


def test_commands_of_subjects(run: Callable[..., Result], file: Path) -> None:
    assert run("subject", "add", "robot", "team-a", "-g", "predict:a").exit_code == 0
    assert Authenticator(file).identify(Credentials(subject="robot")).name == "team-a"
    assert "predict:a" in run("subject", "list").output
    assert run("subject", "remove", "robot").exit_code == 0
    assert run("subject", "remove", "robot").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "team a", "-g", "predict:a"), "name: expected letters"),
        (("create", "team", "-g", "read:a"), "predict, manage, admin"),
        (("create", "team", "-g", "predict:a", "--expires", "soon"), "like 30d"),
        (("create", "team"), "--grant"),
        (("list",), "modelhost token create"),
    ],
)
def test_commands_that_are_not_right(run: Callable[..., Result], file: Path, arguments: list[str], said: str) -> None:
    result = run("token", *arguments)
    assert result.exit_code in (1, 2)
    assert said in result.output
    assert not file.exists()


def test_an_error_without_a_role_is_no_bug() -> None:
    with pytest.raises(ModelhostError) as caught:
        Call(identity=Identity("x", {})).require(Role.PREDICT, "a")
    assert caught.value.reason is Reason.SCOPE_NOT_FOUND
    Call().require(Role.ADMIN, "a")
