"""Certificates that are renewed while the server runs, at every door."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from modelhost.v1 import model_service_pb2, model_service_pb2_grpc
from support.calls import eventually
from support.server import BOTH_TRANSPORTS, ServerProcess

pytestmark = BOTH_TRANSPORTS

TLS = Path(__file__).parent.parent / "support" / "tls"


def certificate_at(address: str) -> str:
    """The certificate that a server shows to who connects."""
    host, port = address.rsplit(":", 1)
    return ssl.get_server_certificate((host, int(port)), timeout=10)


def replace(path: Path, other: Path) -> None:
    """As tools that renew certificates do it: the new file takes the old one's place."""
    shutil.copy(other, path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)


@pytest.fixture
def renewed(tmp_path: Path) -> Path:
    """A new certificate and key."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
         "/CN=renewed", "-addext", "subjectAltName=DNS:localhost", "-keyout", "renewed.key", "-out", "renewed.pem"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    return tmp_path


def test_new_certificates_are_used_without_a_restart(tmp_path: Path, renewed: Path) -> None:
    for name in ("server.pem", "server.key"):
        shutil.copy(TLS / name, tmp_path / name)
    files = ("--tls-certificate", str(tmp_path / "server.pem"), "--tls-key", str(tmp_path / "server.key"))
    with ServerProcess(*files, "--rest", "localhost:0", "--server-processes", "2", listen=("localhost:0",)) as server:
        doors = [server.address, server.addresses[-1].removeprefix("https://")]
        before = (TLS / "server.pem").read_text()
        for door in doors:
            assert certificate_at(door) in before
        with grpc.secure_channel(server.address, grpc.ssl_channel_credentials((TLS / "ca.pem").read_bytes())) as old:
            watch = model_service_pb2_grpc.ModelServiceStub(old).WatchModels(model_service_pb2.WatchModelsRequest())
            next(watch)
            # A key that is not the certificate's: what was there before goes on.
            replace(tmp_path / "server.key", renewed / "renewed.key")
            eventually(lambda: "stays in use" in server.log())
            for door in doors:
                assert certificate_at(door) in before
            replace(tmp_path / "server.pem", renewed / "renewed.pem")
            after = (renewed / "renewed.pem").read_text()
            for door in doors:
                eventually(lambda door=door: _is_always(door, after))
            # What was under way goes on, and who connects again knows the new certificate.
            assert watch.is_active()
            watch.cancel()
        with grpc.secure_channel(server.address, grpc.ssl_channel_credentials(after.encode())) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


def _is_always(door: str, certificate: str) -> bool:
    # The kernel shares connections out among the processes.
    return all(certificate_at(door) in certificate for _ in range(8))
