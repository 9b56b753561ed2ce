"""What every transport must do, with grpcio's clients: TLS, limits, cancellation, flow control, many streams."""

import socket
import threading
import time
from pathlib import Path

import grpc
import modelhost
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from modelhost.v1 import model_service_pb2, prediction_service_pb2, prediction_service_pb2_grpc
from support.calls import assert_place_is_given_back, failure, half, load
from support.predict import request
from support.server import BOTH_TRANSPORTS, ServerProcess, Stubs

pytestmark = BOTH_TRANSPORTS

TLS = Path(__file__).parent.parent / "support" / "tls"
SERVER = ("--tls-certificate", str(TLS / "server.pem"), "--tls-key", str(TLS / "server.key"))


def credentials(name: str | None = None) -> grpc.ChannelCredentials:
    """A client's: anonymous, or with a certificate of that name."""
    return modelhost.tls(TLS / "ca.pem", *([TLS / f"{name}.pem", TLS / f"{name}.key"] if name else []))


def check(channel: grpc.Channel) -> int:
    return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10).status


def test_tls(models):
    with ServerProcess(*SERVER) as process:
        with modelhost.Client(process.address, credentials=credentials()) as client:
            client.load("half", str(models / "half_plus_two"))
            assert client.predict("half", [2.0])["y"].tolist() == [3.0]
        with grpc.insecure_channel(process.address) as channel:
            assert failure(lambda: check(channel))[0] is grpc.StatusCode.UNAVAILABLE
        with grpc.secure_channel(process.address, grpc.ssl_channel_credentials()) as channel:
            assert failure(lambda: check(channel))[0] is grpc.StatusCode.UNAVAILABLE


def test_mutual_tls_lets_in_only_whom_the_authority_vouches_for(tmp_path):
    unix = f"unix:{tmp_path / 'plain'}"
    options = (*SERVER, "--tls-client-ca", str(TLS / "ca.pem"))
    with ServerProcess(*options, listen=("localhost:0", unix)) as process:
        with grpc.secure_channel(process.address, credentials("client")) as channel:
            assert check(channel) == health_pb2.HealthCheckResponse.SERVING
        for name in (None, "stranger"):
            with grpc.secure_channel(process.address, credentials(name)) as channel:
                assert failure(lambda channel=channel: check(channel))[0] is grpc.StatusCode.UNAVAILABLE
        with grpc.insecure_channel(unix) as channel:
            assert check(channel) == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize(
    ("certificate", "key", "said"),
    [
        ("server.pem", "client.key", "key values mismatch"),
        ("make.sh", "server.key", "server.key"),
        ("nothing.pem", "server.key", "No such file"),
    ],
)
def test_tls_files_that_are_not_right_end_the_start(certificate, key, said):
    with pytest.raises(AssertionError, match=f"TLS: .*{said}"):
        ServerProcess("--tls-certificate", str(TLS / certificate), "--tls-key", str(TLS / key))


def test_half_of_what_tls_needs_is_refused():
    with pytest.raises(AssertionError, match="expected both or neither"):
        ServerProcess("--tls-certificate", str(TLS / "server.pem"))


def test_messages_up_to_the_limits_are_taken_and_larger_ones_refused(models):
    with ServerProcess("--max-receive-bytes", "2000000", "--max-send-bytes", "1000000") as process:
        stubs = Stubs(process.address)
        load(stubs, "default", "half", models / "half_plus_two")

        def predict(count):
            return stubs.predictions.Predict(request("default", "half", {"x": np.zeros(count, np.float32)}))

        assert len(predict(249_000).outputs["y"].raw) == 4 * 249_000
        with pytest.raises(grpc.RpcError, match=r"Sent message larger than max \(\d+ vs. 1000000\)") as caught:
            predict(251_000)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(grpc.RpcError, match=r"Received message larger than max \(\d+ vs. 2000000\)") as caught:
            predict(2_500_000)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert half(stubs, "default") == 4.0
        stubs.close()


def test_large_messages_both_ways(stubs, scope, models):
    load(stubs, scope, "half", models / "half_plus_two")
    x = np.arange(2_500_000, dtype=np.float32)
    answer = stubs.predictions.Predict(request(scope, "half", {"x": x}), timeout=60)
    assert np.array_equal(np.frombuffer(answer.outputs["y"].raw, np.float32), x / 2 + 2)


def test_an_unknown_method_is_unimplemented(stubs):
    for path in ("/modelhost.v1.PredictionService/Guess", "/nobody.Service/Method"):
        assert failure(lambda path=path: stubs.channel.unary_unary(path)(b""))[0] is grpc.StatusCode.UNIMPLEMENTED


def test_metadata_of_callers_is_let_through(stubs, scope, models):
    load(stubs, scope, "half", models / "half_plus_two")
    message = request(scope, "half", {"x": np.float32([4])})
    metadata = [("modelhost-scope", scope), ("trace-bin", bytes(range(256)))]
    assert stubs.predictions.Predict(message, metadata=metadata).outputs["y"].raw == np.float32([4]).tobytes()


@pytest.mark.parametrize("leaves", [True, False], ids=["cancels", "deadline"])
def test_a_caller_that_leaves_or_is_late_gives_its_place_to_others(leaves, models):
    with ServerProcess("--max-in-flight", "1", "--max-queue", "1") as process:
        stubs = Stubs(process.address)
        load(stubs, "default", "slow", models / "slow")
        assert_place_is_given_back(stubs, leaves)
        process.process.kill()
        stubs.close()


def test_a_thousand_calls_that_are_cancelled_hurt_nobody(stubs, scope, models):
    load(stubs, scope, "half", models / "half_plus_two")
    message = request(scope, "half", {"x": np.float32([4])})
    for _ in range(20):
        calls = [stubs.predictions.Predict.future(message, timeout=30) for _ in range(50)]
        for call in calls:
            call.cancel()
    assert half(stubs, scope) == 4.0


def test_a_reader_that_does_not_read_stops_the_writer(server, stubs, scope, models):
    load(stubs, scope, "half", models / "half_plus_two")
    megabyte = request(scope, "half", {"x": np.zeros(1 << 18, np.float32)})
    asked, stop = [], threading.Event()

    def requests():
        for i in range(2_000):
            if stop.is_set():
                return
            asked.append(i)
            yield prediction_service_pb2.PredictStreamRequest(requests=[{"id": i + 1, "request": megabyte}])

    # A connection of its own: h2corn has one buffer for all the answers of a connection.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(server.address, options) as channel:
        answers = prediction_service_pb2_grpc.PredictionServiceStub(channel).PredictStream(requests())
        received = len(next(answers).responses)
        seen = -1
        while seen != len(asked):
            seen = len(asked)
            time.sleep(1.0)
        assert seen < 1_000
        assert half(stubs, scope) == 4.0, "others are answered"
        stop.set()
        # The answers were all there, only not read.
        assert received + sum(len(answer.responses) for answer in answers) == len(asked)


def test_hundreds_of_streams_on_one_connection(stubs):
    watches = [stubs.models.WatchModels(model_service_pb2.WatchModelsRequest()) for _ in range(400)]
    for watch in watches:
        next(watch)
    for watch in watches:
        watch.cancel()


def test_names_stand_for_all_their_addresses():
    with ServerProcess(listen=("localhost:0", "[::1]:0")) as process:
        for address in process.addresses:
            with grpc.insecure_channel(address) as channel:
                assert check(channel) == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:x", "203.0.113.7:0", "unix:/nowhere/at/all"])
def test_addresses_that_cannot_be_listened_on_are_said(address):
    with pytest.raises(AssertionError, match=f"cannot listen on {address}"):
        ServerProcess("--insecure", listen=(address,))


def test_a_socket_file_that_a_dead_server_left_is_taken_over(tmp_path):
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with ServerProcess(listen=(f"unix:{path}",)) as process, grpc.insecure_channel(process.address) as channel:
        assert check(channel) == health_pb2.HealthCheckResponse.SERVING
