"""Who gets in, and what it sees: tokens that are revoked while they are used, certificates, lists, memory, logs."""

from __future__ import annotations

import asyncio
import secrets
import ssl
import threading
from pathlib import Path

import grpc
import httpx
import modelhost
import numpy as np
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from modelhost.cli.app import app
from modelhost.v1 import model_service_pb2, prediction_service_pb2, scope_service_pb2, shared_memory_service_pb2
from modelhost.v1.shared_memory_service_pb2_grpc import SharedMemoryServiceStub
from modelhost_server.access.access_file import AccessFile
from modelhost_server.access.grants import read_grants
from modelhost_server.compat import open_inference_pb2 as oip
from support.access import ADMIN, MINE, OTHER, Answer, Team, ask, bearer
from support.calls import eventually, failure, half, load, request, vector
from support.server import ServerProcess, Stubs
from typer.testing import CliRunner

TLS = Path(__file__).parent.parent / "support" / "tls"
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
X = np.arange(100_000, dtype=np.float32)


def test_lists_have_what_the_caller_sees_whatever_the_page(team: Team):
    mine, everything = team.stubs(f"predict on {MINE}"), team.stubs(ADMIN)

    def listed(stubs: Stubs) -> list[str]:
        names, token = [], ""
        while True:
            answer = stubs.scopes.ListScopes(scope_service_pb2.ListScopesRequest(page_size=1, page_token=token))
            names += [scope.scope for scope in answer.scopes]
            token = answer.next_page_token
            if not token:
                return names

    assert listed(mine) == [MINE]
    assert listed(everything) == ["default", MINE, OTHER]
    # A page that ends where the rest cannot be seen is the last one, and tells so.
    models = mine.models.ListModels(model_service_pb2.ListModelsRequest(page_size=1))
    assert [model.scope for model in models.models] == [MINE]
    assert not models.next_page_token
    theirs = everything.models.ListModels(model_service_pb2.ListModelsRequest(page_size=1)).next_page_token
    again = mine.models.ListModels(model_service_pb2.ListModelsRequest(page_token=theirs))
    assert OTHER not in {model.scope for model in again.models}


def test_a_watch_tells_of_what_the_caller_sees(team: Team):
    watch = team.stubs(f"predict on {MINE}").models.WatchModels(model_service_pb2.WatchModelsRequest(), timeout=60)
    assert next(watch).scope == MINE
    assert next(watch).type == model_service_pb2.WATCH_EVENT_TYPE_SYNCED
    for scope in (OTHER, MINE):
        load(team.admin, scope, "seen", team.models / "half_plus_two")
    assert next(watch).scope == MINE
    watch.cancel()


def test_parts_of_a_request_fail_alone(team: Team):
    mine = team.stubs(f"manage on {MINE}")
    ids = {1: MINE, 2: OTHER, 3: MINE, 4: "default"}
    asked = prediction_service_pb2.PredictStreamRequest(
        requests=[{"id": id_, "request": request(scope, "half", x=vector(4.0))} for id_, scope in ids.items()]
    )
    answers = {}
    for answer in mine.predictions.PredictStream(iter([asked]), timeout=30):
        answers |= {each.id: each.error.message if each.HasField("error") else "" for each in answer.responses}
    assert [bool(answers[id_]) for id_ in ids] == [False, True, False, True]
    assert answers[2].startswith(f"there is no scope '{OTHER}'")
    loads = [{"scope": scope, "model": "many", "source": str(team.models / "half_plus_two")} for scope in (MINE, OTHER)]
    outcomes = {}
    for answer in mine.models.LoadModels(model_service_pb2.LoadModelsRequest(loads=loads), timeout=60):
        outcomes[answer.index] = answer.WhichOneof("outcome")
    assert outcomes == {0: "loaded", 1: "error"}


def test_a_token_that_is_revoked_ends_its_streams(team: Team):
    token_id, token = team.new_token(f"predict:{MINE}")
    stubs = team.until_known(token)
    watch = stubs.models.WatchModels(model_service_pb2.WatchModelsRequest(scope=MINE), timeout=60)
    health = health_pb2_grpc.HealthStub(stubs.channel).Watch(
        health_pb2.HealthCheckRequest(service=f"scopes/{MINE}/models/half"), timeout=60
    )
    # One that waits for its caller.
    asked = prediction_service_pb2.PredictStreamRequest(requests=[{"request": request(MINE, "half", x=vector(4.0))}])
    idle = stubs.predictions.PredictStream(_once_and_wait(asked), timeout=60)
    for stream in (watch, health, idle):
        next(stream)
    assert team.file.revoke_token(token_id)
    for stream in (watch, health, idle):
        assert failure(lambda stream=stream: list(stream))[0] is UNAUTHENTICATED
    assert failure(lambda: half(stubs, MINE))[0] is UNAUTHENTICATED


def _once_and_wait(message):
    yield message
    threading.Event().wait(60)


def test_shared_memory_is_its_callers(team: Team):
    mine, theirs = team.stubs(f"predict on {MINE}"), team.stubs(f"predict on {OTHER}")
    pb = shared_memory_service_pb2
    with team.client(f"predict on {MINE}", shared_memory=True) as client:
        np.testing.assert_array_equal(client.predict(f"{MINE}/half", X)["y"], X / 2 + 2)
        (region,) = SharedMemoryServiceStub(mine.channel).ListRegions(pb.ListRegionsRequest()).regions
        others = SharedMemoryServiceStub(theirs.channel)
        assert not others.ListRegions(pb.ListRegionsRequest()).regions
        assert failure(lambda: others.UnregisterRegion(pb.UnregisterRegionRequest(region=region.region)))[1] == (
            "REGION_NOT_FOUND"
        )
        stolen = request(OTHER, "half", x=vector(1.0))
        stolen.inputs["x"].ClearField("raw")
        stolen.inputs["x"].shared_memory.region, stolen.inputs["x"].shared_memory.byte_size = region.region, 4
        assert failure(lambda: theirs.predictions.Predict(stolen))[1] == "REGION_NOT_FOUND"


def test_shared_memory_of_tritons_clients_is_its_callers(team: Team):
    service = "/inference.GRPCInferenceService/SystemSharedMemory"
    mine, theirs = team.tokens[f"predict on {MINE}"], team.tokens[f"predict on {OTHER}"]
    file = Path("/dev/shm", f"test-{secrets.token_hex(8)}")
    file.write_bytes(bytes(64))

    def call(what: str, message: Message, token: str) -> Answer:
        return ask(team.channel, f"{service}{what}", [message.SerializeToString()], token)

    def names(token: str) -> set[str]:
        answer = call("Status", oip.SystemSharedMemoryStatusRequest(), token)
        return set(oip.SystemSharedMemoryStatusResponse.FromString(answer.message).regions)

    try:
        register = oip.SystemSharedMemoryRegisterRequest(name="r", key=f"/{file.name}", byte_size=64)
        assert call("Register", register, mine).code is grpc.StatusCode.OK
        nothing = "x" * len(file.name)
        absent = oip.SystemSharedMemoryRegisterRequest(name="r", key=f"/{nothing}", byte_size=64)
        assert call("Register", register, theirs).named(file.name, nothing) == call("Register", absent, theirs)
        assert (names(mine), names(theirs)) == ({"r"}, set())
        # All of one's own.
        call("Unregister", oip.SystemSharedMemoryUnregisterRequest(), theirs)
        assert names(mine) == {"r"}
        call("Unregister", oip.SystemSharedMemoryUnregisterRequest(), mine)
        assert names(mine) == set()
    finally:
        file.unlink()


def test_ids_of_requests_tell_nothing_to_others(team: Team):
    asked = model_service_pb2.LoadModelRequest(
        scope=MINE, model="again", source=str(team.models / "half_plus_two"), request_id="guessable"
    )
    team.stubs(f"manage on {MINE}").models.LoadModel(asked, timeout=60)
    asked.scope = OTHER
    answer = team.stubs(f"manage on {OTHER}").models.LoadModel(asked, timeout=60)
    assert answer.scope == OTHER


def test_the_sdk_and_the_command_line(team: Team):
    token = team.tokens[f"manage on {MINE}"]
    with team.client(f"manage on {MINE}") as client:
        assert [scope.scope for scope in client.scopes()] == [MINE]
        assert client.predict(f"{MINE}/half", [2.0])["y"].tolist() == [3.0]
        assert [answer["y"].tolist() for answer in client.map(f"{MINE}/half", [[2.0], [4.0]])] == [[3.0], [4.0]]
        with pytest.raises(modelhost.NotFoundError):
            client.predict(f"{OTHER}/half", [2.0])
        with pytest.raises(modelhost.PermissionDeniedError, match="role admin on scope 'team-a' and has manage"):
            client.delete_scope(MINE)

    async def ask() -> list[float]:
        async with modelhost.AsyncClient(team.process.address, token=token + "\n") as client:
            return [float(answer["y"][0]) async for answer in client.map(f"{MINE}/half", [[2.0], [4.0]])]

    assert asyncio.run(ask()) == [3.0, 4.0]
    run = CliRunner()
    target = {"MODELHOST_TARGET": team.process.address, "COLUMNS": "200"}
    assert MINE in run.invoke(app, ["ls"], env={**target, "MODELHOST_TOKEN": token}).output
    assert OTHER not in run.invoke(app, ["--token", token, "ls"], env=target).output
    refused = run.invoke(app, ["ls"], env=target)
    assert refused.exit_code != 0
    assert "Bearer mh_" in refused.output


def test_no_secret_is_in_the_log(team: Team):
    stubs = team.stubs(f"predict on {MINE}")
    half(stubs, MINE)
    failure(lambda: half(stubs, OTHER))
    secret = "mh_0123456789ab_thesecret"
    failure(lambda: half(Stubs(team.process.address, token=secret), MINE))
    with httpx.Client(base_url=team.process.addresses[-1]) as rest:
        for token in (team.tokens[ADMIN], secret):
            rest.get("/v2/models/stats", headers={"Authorization": f"Bearer {token}"})
            rest.get("/v2/nothing", headers={"Authorization": f"Bearer {token}"})
    log = team.process.log()
    assert "DEBUG" in log
    for token in (secret, *team.tokens.values()):
        assert not token or token not in log
        assert not token or token.split("_", 2)[2] not in log


def test_what_is_no_bearer_token_is_refused(team: Team):
    health = health_pb2_grpc.HealthStub(team.admin.channel)
    token = team.tokens[ADMIN]
    with grpc.insecure_channel(team.process.address) as channel:
        list_scopes = channel.unary_unary("/modelhost.v1.ScopeService/ListScopes")
        for value in ("", "Bearer", "Bearer ", f"Basic {token}", token, f"Bearer {token}x", f"Bearer {token[:-1]}"):
            refused = failure(lambda value=value: list_scopes(b"", metadata=(("authorization", value),)))
            assert refused[0] is UNAUTHENTICATED
        # As HTTP has it.
        list_scopes(b"", metadata=(("authorization", f"bearer {token}"),))
        # Of the server itself anybody may ask, whatever it comes with.
        check = health_pb2_grpc.HealthStub(channel).Check
        check(health_pb2.HealthCheckRequest(), metadata=bearer("wrong"), timeout=10)
    health.Check(health_pb2.HealthCheckRequest(), timeout=10)


@pytest.mark.parametrize("transport", ["grpcio", "h2corn"], indirect=True, scope="module")
def test_certificates(transport: str, tmp_path):
    file = tmp_path / "access.db"
    access = AccessFile.made(file)
    access.put_subject("client", "robot", read_grants(["predict:default"]))
    token = access.create_token("root", read_grants(["admin:*"]), None)[1]
    options = ["--tls-certificate", str(TLS / "server.pem"), "--tls-key", str(TLS / "server.key")]
    options += ["--tls-client-ca", str(TLS / "ca.pem"), "--access", str(file), "--rest", "localhost:0"]
    own = modelhost.tls(TLS / "ca.pem", TLS / "client.pem", TLS / "client.key")
    server_processes = ("--server-processes", "2") if transport == "h2corn" else ()
    with (
        ServerProcess("--transport", transport, *options, *server_processes, listen=("localhost:0",)) as process,
        modelhost.Client(process.address, credentials=own) as client,
    ):
        assert [scope.scope for scope in client.scopes()] == ["default"]
        with pytest.raises(modelhost.PermissionDeniedError, match="'robot' needs the role admin"):
            client.create_scope("mine")
        # A token says it alone, good or not.
        with modelhost.Client(process.address, credentials=own, token=token) as admin:
            admin.create_scope("mine")
        with (
            modelhost.Client(process.address, credentials=own, token=f"{token}x") as nobody,
            pytest.raises(modelhost.UnauthenticatedError),
        ):
            nobody.scopes()
        assert [scope.scope for scope in client.scopes()] == ["default"]
        verify = ssl.create_default_context(cafile=TLS / "ca.pem")
        verify.load_cert_chain(TLS / "client.pem", TLS / "client.key")
        with httpx.Client(base_url=process.addresses[-1], verify=verify) as rest:
            assert rest.get("/v2").status_code == 200
            assert rest.get("/v2/logging").status_code == 403
        access.remove_subject("client")
        eventually(lambda: failure_of(client) == "UNAUTHENTICATED")


def failure_of(client: modelhost.Client) -> str:
    """The code of a question that fails."""
    try:
        client.scopes()
    except modelhost.ModelhostError as error:
        return error.code
    return ""


def test_a_server_without_its_access_file_does_not_start(tmp_path):
    with pytest.raises(AssertionError, match="modelhost token create"):
        ServerProcess("--access", str(tmp_path / "access.db"))
