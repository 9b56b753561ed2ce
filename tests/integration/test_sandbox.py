"""What a hostile model cannot do: a SavedModel that reads and writes files, in a real worker."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest
from modelhost.v1 import error_pb2, optimization_service_pb2
from modelhost.v1 import model_service_pb2 as pb
from modelhost_server.compat import serving_model_service_pb2
from modelhost_server.sources.manifest import FILES, Manifest, UploadedFile
from support.building import built
from support.predict import error_of, load, predict
from support.server import ServerProcess, Stubs

SECRET = "the server's secret"


class Served:
    """A server with the hostile model, and what it can get at."""

    def __init__(self, server: ServerProcess, directory: Path) -> None:
        self.server, self.directory = server, directory
        self.stubs = Stubs(server.address)
        load(self.stubs, "default", directory / "models" / "hostile")

    @property
    def worker(self) -> psutil.Process:
        return next(worker for worker in self.server.workers() if "tensorflow" in worker.parent().cmdline())

    def read(self, path: object) -> bytes:
        return predict(self.stubs, "default", "hostile", "read", path=str(path).encode())["content"].item()

    def write(self, path: object) -> None:
        predict(self.stubs, "default", "hostile", "write", path=str(path).encode(), content=b"defaced")

    def is_refused(self, path: object) -> bool:
        failure = error_of(lambda: self.read(path))
        return failure.code == "FAILED_PRECONDITION"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("sandbox")
    (directory / "models").mkdir()
    shutil.copytree(built("build_hostile") / "hostile", directory / "models" / "hostile")
    (directory / "outside").write_bytes(b"not a model")
    (directory / "models" / "way-out").symlink_to(directory / "outside")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_SECRET_ACCESS_KEY", "MODELHOST_SERVER_NAME", "HTTPS_PROXY", "PYTHONSTARTUP"):
            patch.setenv(name, SECRET)
        options = ("--sandbox", "on", "--model-root", str(directory / "models"))
        with ServerProcess(*options, cache_dir=directory / "cache") as server:
            served = Served(server, directory)
            yield served
            served.stubs.close()


def test_a_model_reads_below_its_root(served: Served) -> None:
    assert served.read(served.directory / "models" / "hostile" / "fingerprint.pb")


@pytest.mark.parametrize("path", ["/etc/passwd", "/etc/hostname", "{directory}/outside", "{directory}/models/way-out",
                                  "/proc/{server}/environ", "/proc/{template}/environ", "/proc/{server}/cmdline",
                                  "/proc/{server}/maps"])  # fmt: skip
def test_a_model_reads_nothing_else(served: Served, path: str) -> None:
    template, server = served.worker.ppid(), served.server.process.pid
    assert served.is_refused(path.format(directory=served.directory, server=server, template=template))


@pytest.mark.parametrize("path", ["/tmp/modelhost-defaced", "{directory}/defaced", "{directory}/models/defaced",
                                  "{directory}/outside", "/dev/shm/modelhost-defaced"])  # fmt: skip
def test_a_model_writes_nothing(served: Served, path: str) -> None:
    place = Path(path.format(directory=served.directory))
    failure = error_of(lambda: served.write(place))
    assert failure.code == "FAILED_PRECONDITION"
    assert "ermission denied" in failure.message
    assert not place.exists() or place.read_bytes() == b"not a model"


def test_a_model_cannot_have_the_server_write_for_it(served: Served) -> None:
    # Where there is no data directory, uploads are in the cache. One that nobody has announced:
    cache = served.directory / "cache"
    assert not cache.stat().st_mode & 0o077, "they are nobody else's to read"
    (workspace,) = (cache / "running").glob("process-*")
    planted, content = served.directory / "planted", b"by the server"
    manifest = Manifest(FILES, (UploadedFile(str(planted), len(content), hashlib.sha256(content).hexdigest()),))
    folder = workspace / "uploads" / "default" / "partial" / manifest.id
    predict(
        served.stubs, "default", "hostile", "write",
        path=str(folder / "manifest").encode(), content=manifest.to_json().encode(),
    )  # fmt: skip
    assert (folder / "manifest").exists()
    piece = pb.UploadModelRequest(scope="default", upload=manifest.id, file=0, offset=0, data=content)
    failure = error_of(lambda: served.stubs.models.UploadModel(iter([piece])))
    assert failure.reason == "UPLOAD_INVALID"
    assert not planted.exists()


def test_a_models_environment_has_no_secrets(served: Served) -> None:
    environment = served.read("/proc/self/environ")
    assert b"PATH=" in environment
    assert SECRET.encode() not in environment


def test_what_the_kernel_says_of_a_worker(served: Served) -> None:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{served.worker.pid}/status").read_text().splitlines())
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == (2 if os.geteuid() == 0 else 0)


def test_a_worker_has_a_session_and_limits_of_its_own(served: Served) -> None:
    worker = served.worker
    assert os.getsid(worker.pid) == worker.pid
    assert os.getsid(worker.ppid()) == worker.ppid()
    assert worker.rlimit(resource.RLIMIT_CORE) == (0, 0)
    assert worker.rlimit(resource.RLIMIT_NOFILE)[1] <= 4096


def test_a_worker_inherits_only_what_it_uses(served: Served) -> None:
    opened = sorted(os.readlink(link) for link in Path(f"/proc/{served.worker.pid}/fd").iterdir())
    kinds = {name.split(":")[0].split(" ")[0] for name in opened}
    assert kinds == {"/dev/null", "pipe", "socket", "/memfd"}
    # Its link to the server, its two arenas; standard input, output and error.
    assert sum(name.startswith("socket") for name in opened) == 1
    assert sum(name.startswith("/memfd") for name in opened) == 2
    assert len(opened) == 6


@pytest.mark.parametrize("path", ["/etc", "{directory}/outside", "{directory}/models/way-out", "{directory}/nothing"])
def test_callers_load_nothing_from_outside_of_the_root(served: Served, path: str) -> None:
    source = path.format(directory=served.directory)
    failure = error_of(lambda: load(served.stubs, "default", source, "elsewhere"))
    assert (failure.code, failure.reason) == ("PERMISSION_DENIED", "SOURCE_FORBIDDEN")
    assert "--model-root" in failure.message
    loads = pb.LoadModelsRequest(loads=[pb.LoadModelRequest(model="elsewhere", source=source)])
    (answer,) = served.stubs.models.LoadModels(loads, timeout=20)
    assert answer.error.reason == error_pb2.ERROR_REASON_SOURCE_FORBIDDEN


def test_other_ways_to_name_a_path_are_no_way_out(served: Served) -> None:
    optimize = served.stubs.optimizations.OptimizeModel
    request = optimization_service_pb2.OptimizeModelRequest(
        model="hostile", method=optimization_service_pb2.OPTIMIZATION_METHOD_FLOAT16, samples_file="/etc/passwd"
    )
    assert error_of(lambda: list(optimize(request, timeout=20))).reason == "SOURCE_FORBIDDEN"
    reload = served.stubs.channel.unary_unary(
        "/tensorflow.serving.ModelService/HandleReloadConfigRequest",
        serving_model_service_pb2.ReloadConfigRequest.SerializeToString,
        serving_model_service_pb2.ReloadConfigResponse.FromString,
    )
    config = serving_model_service_pb2.ReloadConfigRequest()
    config.config.model_config_list.config.add(name="elsewhere", base_path="/etc", model_platform="tensorflow")
    with pytest.raises(grpc.RpcError) as refused:
        reload(config, timeout=20)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED  # type: ignore[attr-defined]
