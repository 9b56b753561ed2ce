"""Every method of every protocol, asked by callers of every role, about scopes that they see, do not see, or that are
not there. The methods come from the protos: one that is in no table here fails.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import modelhost.v1
import modelhost_server.compat
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from modelhost.v1 import (
    model_service_pb2,
    optimization_service_pb2,
    prediction_service_pb2,
    scope_service_pb2,
    shared_memory_service_pb2,
)
from modelhost_server.compat import open_inference_pb2 as oip
from modelhost_server.compat import serving_inference_pb2 as examples_pb
from modelhost_server.compat import serving_model_service_pb2 as status_pb
from modelhost_server.compat import serving_predict_pb2 as predict_pb
from modelhost_server.compat import serving_prediction_service_pb2 as metadata_pb
from modelhost_server.services.call import foreign_name
from support.access import ABSENT, ADMIN, MINE, OTHER, ROLES, STRANGERS, Answer, Team, ask, serve_team

Code = grpc.StatusCode
DENIED = {Code.PERMISSION_DENIED, Code.UNAUTHENTICATED}
BUGS = {Code.INTERNAL, Code.UNKNOWN}
MODEL, NO_VERSION = "half", 999


@dataclass(frozen=True)
class Method:
    """What a method must ask of its caller.

    Attributes:
        needs: a role on the scope asked about; or "open" (nothing), "known" (a good token), "server" (admin on *).
        request: about a scope; what is allowed may be asked again and again.
        hidden: what is answered of a scope that is not there for the caller. None: PERMISSION_DENIED, without a look.
        error: the code of the error in a message of a stream, or its text.
    """

    needs: str
    request: Callable[[str], Message]
    hidden: Code | None = Code.NOT_FOUND
    error: Callable[[bytes], object] | None = None


def spec(scope: str) -> dict[str, Any]:
    """A ModelSpec."""
    return {"name": f"{scope}/{MODEL}", "version": {"value": NO_VERSION}}


def streamed_error(answer: bytes) -> object:
    return prediction_service_pb2.PredictStreamResponse.FromString(answer).responses[0].error.code


def loads_error(answer: bytes) -> object:
    return model_service_pb2.LoadModelsResponse.FromString(answer).error.code


def inferred_error(answer: bytes) -> object:
    text = oip.ModelStreamInferResponse.FromString(answer).error_message
    return Code.PERMISSION_DENIED.value[0] if "needs the role" in text else text


m, p, s = model_service_pb2, prediction_service_pb2, scope_service_pb2
r, o = shared_memory_service_pb2, optimization_service_pb2
NATIVE = {
    "ModelService": {
        "LoadModel": Method("manage", lambda x: m.LoadModelRequest(scope=x, model=MODEL, source="/nowhere")),
        "LoadModels": Method(
            "manage", lambda x: m.LoadModelsRequest(loads=[{"scope": x, "model": MODEL, "source": "/nowhere"}]),
            error=loads_error,
        ),
        "UnloadModel": Method("manage", lambda x: m.UnloadModelRequest(scope=x, model=MODEL, version=NO_VERSION)),
        "SetLabels": Method("manage", lambda x: m.SetLabelsRequest(scope=x, model=MODEL, labels={"l": NO_VERSION})),
        "PrepareUpload": Method("manage", lambda x: m.PrepareUploadRequest(scope=x)),
        "UploadModel": Method("manage", lambda x: m.UploadModelRequest(scope=x, upload="nothing")),
        "GetModel": Method("predict", lambda x: m.GetModelRequest(scope=x, model=MODEL)),
        "ListModels": Method("predict", lambda x: m.ListModelsRequest(scope=x)),
        "WatchModels": Method("predict", lambda x: m.WatchModelsRequest(scope=x)),
    },
    "PredictionService": {
        "Predict": Method("predict", lambda x: p.PredictRequest(scope=x, model=MODEL)),
        "PredictStream": Method(
            "predict", lambda x: p.PredictStreamRequest(requests=[{"request": {"scope": x, "model": MODEL}}]),
            error=streamed_error,
        ),
        "PredictMany": Method("predict", lambda x: p.PredictManyRequest(scope=x, targets=[{"model": MODEL}])),
    },
    "ScopeService": {
        "CreateScope": Method("admin", lambda x: s.CreateScopeRequest(scope=x, config={"replicas": -1}), hidden=None),
        "GetScope": Method("predict", lambda x: s.GetScopeRequest(scope=x)),
        "ListScopes": Method("known", lambda x: s.ListScopesRequest()),
        "UpdateScope": Method(
            "admin",
            lambda x: s.UpdateScopeRequest(scope=x, config={"max_queue": 9}, update_mask={"paths": ["max_queue"]}),
        ),
        # Not empty, and not forced.
        "DeleteScope": Method("admin", lambda x: s.DeleteScopeRequest(scope=x)),
    },
    "SharedMemoryService": {
        "RegisterRegion": Method("known", lambda x: r.RegisterRegionRequest(region=x)),
        "UnregisterRegion": Method("known", lambda x: r.UnregisterRegionRequest(region=x)),
        "ListRegions": Method("known", lambda x: r.ListRegionsRequest()),
    },
    "OptimizationService": {
        "OptimizeModel": Method(
            "manage",
            lambda x: o.OptimizeModelRequest(
                scope=x, model=MODEL, version=NO_VERSION, method=o.OPTIMIZATION_METHOD_DYNAMIC_INT8
            ),
        ),
    },
}  # fmt: skip
TENSORFLOW_SERVING = {
    "PredictionService": {
        "Predict": Method("predict", lambda x: predict_pb.PredictRequest(model_spec=spec(x))),
        "Classify": Method("predict", lambda x: examples_pb.ClassificationRequest(model_spec=spec(x))),
        "Regress": Method("predict", lambda x: examples_pb.RegressionRequest(model_spec=spec(x))),
        "MultiInference": Method(
            "predict", lambda x: examples_pb.MultiInferenceRequest(tasks=[{"model_spec": spec(x), "method_name": "m"}])
        ),
        "GetModelMetadata": Method(
            "predict",
            lambda x: metadata_pb.GetModelMetadataRequest(model_spec=spec(x), metadata_field=["signature_def"]),
        ),
    },
    "ModelService": {
        "GetModelStatus": Method(
            "predict", lambda x: status_pb.GetModelStatusRequest(model_spec={"name": f"{x}/{MODEL}"})
        ),
        "HandleReloadConfigRequest": Method("server", lambda x: status_pb.ReloadConfigRequest()),
    },
}


def infer(x: str) -> Message:
    return oip.ModelInferRequest(model_name=f"{x}/{MODEL}")


OPEN_INFERENCE = {
    "GRPCInferenceService": {
        "ServerLive": Method("open", lambda x: oip.ServerLiveRequest()),
        "ServerReady": Method("open", lambda x: oip.ServerReadyRequest()),
        "ServerMetadata": Method("known", lambda x: oip.ServerMetadataRequest()),
        # Triton says so of a model that it does not know.
        "ModelReady": Method("predict", lambda x: oip.ModelReadyRequest(name=f"{x}/{MODEL}"), hidden=Code.OK),
        "ModelMetadata": Method("predict", lambda x: oip.ModelMetadataRequest(name=f"{x}/{MODEL}")),
        "ModelConfig": Method("predict", lambda x: oip.ModelConfigRequest(name=f"{x}/{MODEL}")),
        "ModelStatistics": Method(
            "predict", lambda x: oip.ModelStatisticsRequest(name=f"{x}/{MODEL}"), hidden=Code.INVALID_ARGUMENT
        ),
        "ModelInfer": Method("predict", infer),
        "ModelStreamInfer": Method("predict", infer, error=inferred_error),
        "RepositoryIndex": Method("known", lambda x: oip.RepositoryIndexRequest()),
        # Triton has it INTERNAL, whatever is wrong.
        "RepositoryModelLoad": Method(
            "manage", lambda x: oip.RepositoryModelLoadRequest(model_name=f"{x}/none"), hidden=Code.INTERNAL
        ),
        "RepositoryModelUnload": Method(
            "manage", lambda x: oip.RepositoryModelUnloadRequest(model_name=f"{x}/none"), hidden=Code.OK
        ),
        "SystemSharedMemoryStatus": Method("known", lambda x: oip.SystemSharedMemoryStatusRequest()),
        "SystemSharedMemoryRegister": Method("known", lambda x: oip.SystemSharedMemoryRegisterRequest(name=x)),
        "SystemSharedMemoryUnregister": Method("known", lambda x: oip.SystemSharedMemoryUnregisterRequest(name=x)),
        "CudaSharedMemoryStatus": Method("known", lambda x: oip.CudaSharedMemoryStatusRequest()),
        "CudaSharedMemoryRegister": Method("known", lambda x: oip.CudaSharedMemoryRegisterRequest(name=x)),
        "CudaSharedMemoryUnregister": Method("known", lambda x: oip.CudaSharedMemoryUnregisterRequest(name=x)),
        "TraceSetting": Method("server", lambda x: oip.TraceSettingRequest(model_name=f"{x}/{MODEL}")),
        "LogSettings": Method("server", lambda x: oip.LogSettingsRequest()),
    }
}


def health(x: str) -> Message:
    return health_pb2.HealthCheckRequest(service=f"scopes/{x}/models/{MODEL}")


OTHERS = {
    "grpc.health.v1.Health": {
        "Check": Method("predict", health),
        # SERVICE_UNKNOWN.
        "Watch": Method("predict", health, hidden=Code.OK),
    },
    "grpc.reflection.v1alpha.ServerReflection": {
        "ServerReflectionInfo": Method("known", lambda x: reflection_pb2.ServerReflectionRequest(list_services="")),
    },
}
TABLES = {
    **{f"modelhost.v1.{name}": table for name, table in NATIVE.items()},
    **{f"tensorflow.serving.{name}": table for name, table in TENSORFLOW_SERVING.items()},
    **{f"inference.{name}": table for name, table in OPEN_INFERENCE.items()},
    **OTHERS,
}
METHODS = {f"/{service}/{name}": method for service, table in TABLES.items() for name, method in table.items()}
# For what is not about each method.
SLICE = ["nobody", "revoked", f"predict on {MINE}", f"manage on {MINE}", ADMIN]


def all_methods() -> Iterator[str]:
    """The paths of all methods that the protos of the project have, and of the services of others that are served."""
    files = [health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR]
    for package in (modelhost.v1, modelhost_server.compat):
        names = [f"{package.__name__}.{module.name}" for module in pkgutil.iter_modules(package.__path__)]
        files += [importlib.import_module(name).DESCRIPTOR for name in names if name.endswith("_pb2")]
    for file in files:
        for service in file.services_by_name.values():
            yield from (f"/{foreign_name(service.full_name)}/{method.name}" for method in service.methods)


def test_every_method_of_every_protocol_has_an_entry():
    assert sorted(METHODS) == sorted(all_methods())


class Asked:
    """A server that is asked."""

    def __init__(self, team: Team) -> None:
        self.tokens = team.tokens
        self._channel = team.channel
        self._absent: dict[str, Answer] = {}

    def ask(self, path: str, caller: str, scope: str) -> Answer:
        """What a method answers a caller about a scope."""
        request = METHODS[path].request(scope)
        return ask(self._channel, path, [request.SerializeToString()], self.tokens[caller])

    def absent(self, path: str) -> Answer:
        """What a method answers about a scope that is not there for anybody."""
        if path not in self._absent:
            self._absent[path] = self.ask(path, ADMIN, ABSENT)
        return self._absent[path]

    def codes(self, path: str, caller: str, scope: str) -> tuple[Answer, object]:
        """The answer, and what it comes to."""
        answer = self.ask(path, caller, scope)
        read_error = METHODS[path].error
        if read_error is None or answer.code is not Code.OK:
            return answer, answer.code
        code = read_error(answer.message)
        return answer, next((each for each in Code if each.value[0] == code), code)


@pytest.fixture(scope="module")
def grpcio(team):
    return Asked(team)


@pytest.fixture(scope="module")
def h2corn_fronts(tmp_path_factory, models):
    options = ("--transport", "h2corn", "--server-processes", "2")
    for team in serve_team(tmp_path_factory.mktemp("h2corn"), models, *options):
        yield Asked(team)


def expected(method: Method, caller: str, scope: str) -> str:
    """What must come of it: "allowed", "stranger", "denied" or "hidden"."""
    if method.needs == "open":
        return "allowed"
    if caller in STRANGERS:
        return "stranger"
    role, _, where = caller.partition(" on ")
    if method.needs == "known":
        return "allowed"
    if method.needs == "server":
        return "allowed" if where == "*" else "denied"
    if where not in ("*", scope):
        return "hidden" if method.hidden is not None else "denied"
    return "allowed" if ROLES.index(role) >= ROLES.index(method.needs) else "denied"


def check(asked: Asked, path: str, caller: str, scope: str) -> None:
    method = METHODS[path]
    answer, code = asked.codes(path, caller, scope)
    match expected(method, caller, scope):
        case "stranger":
            assert code is Code.UNAUTHENTICATED, answer
        case "denied":
            assert code is Code.PERMISSION_DENIED, answer
        case "hidden":
            # As of a scope that really is not there, in every byte.
            assert answer.named(scope, ABSENT) == asked.absent(path), answer
            if isinstance(code, Code):
                assert code is method.hidden, answer
        case "allowed":
            assert code not in DENIED, answer
            # Triton has some failures of callers INTERNAL.
            assert code not in BUGS or path.startswith("/inference."), answer


@pytest.mark.parametrize("path", METHODS)
def test_each_caller_may_what_its_role_allows(grpcio: Asked, path: str):
    for caller in grpcio.tokens:
        for scope in (MINE, OTHER, ABSENT):
            check(grpcio, path, caller, scope)


@pytest.mark.parametrize("path", METHODS)
def test_front_processes_and_another_transport_change_nothing(h2corn_fronts: Asked, path: str):
    for caller in SLICE:
        for scope in (MINE, OTHER):
            check(h2corn_fronts, path, caller, scope)
