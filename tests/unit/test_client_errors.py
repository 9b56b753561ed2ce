"""Errors: one tree, made from what real gRPC brings."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from concurrent import futures

import grpc
import grpc.aio
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status
from modelhost import _errors
from modelhost._errors import ModelhostError, from_message, from_rpc_error
from modelhost.v1 import error_pb2

METHOD = "/test.Service/Fail"


def fail(request: bytes, context: grpc.ServicerContext) -> bytes:
    """Ends the RPC with the google.rpc.Status in the request."""
    status = status_pb2.Status.FromString(request)
    if status.message == "plain":
        context.abort(next(code for code in grpc.StatusCode if code.value[0] == status.code), "plain")
    if status.message == "contradictory":
        context.set_trailing_metadata((("grpc-status-details-bin", request),))
        context.abort(grpc.StatusCode.INTERNAL, "another")
    if status.message == "garbled":
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff"),))
        context.abort(grpc.StatusCode.INTERNAL, "garbled")
    context.abort_with_status(rpc_status.to_status(status))
    return b""


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    handler = grpc.method_handlers_generic_handler("test.Service", {"Fail": grpc.unary_unary_rpc_method_handler(fail)})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


async def failures(target: str, status: status_pb2.Status) -> list[ModelhostError]:
    """What both kinds of client make of an RPC that ends with `status`."""
    request = status.SerializeToString()
    errors = []
    with grpc.insecure_channel(target) as channel:
        try:
            channel.unary_unary(METHOD)(request)
        except grpc.RpcError as error:
            errors.append(from_rpc_error(error, target))
    async with grpc.aio.insecure_channel(target) as aio_channel:
        try:
            await aio_channel.unary_unary(METHOD)(request)
        except grpc.RpcError as error:
            errors.append(from_rpc_error(error, target))
    assert len(errors) == 2
    return errors


def status_of(code: int, reason: str, message: str = "what came") -> status_pb2.Status:
    status = status_pb2.Status(code=code, message=message)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain="modelhost", metadata={"model": "m"}))
    return status


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (code_pb2.INVALID_ARGUMENT, "INVALID_NAME", _errors.InvalidRequestError),
        (code_pb2.INVALID_ARGUMENT, "INPUT_MISSING", _errors.InvalidInputError),
        (code_pb2.INVALID_ARGUMENT, "MODEL_REJECTED_INPUT", _errors.InvalidInputError),
        (code_pb2.NOT_FOUND, "MODEL_NOT_FOUND", _errors.NotFoundError),
        (code_pb2.ALREADY_EXISTS, "SCOPE_ALREADY_EXISTS", _errors.AlreadyExistsError),
        (code_pb2.FAILED_PRECONDITION, "SCOPE_NOT_EMPTY", _errors.FailedPreconditionError),
        (code_pb2.FAILED_PRECONDITION, "VERSION_FAILED", _errors.ModelFailedError),
        (code_pb2.FAILED_PRECONDITION, "MODEL_EXECUTION_FAILED", _errors.ModelFailedError),
        (code_pb2.ABORTED, "CONFLICT", _errors.ConflictError),
        (code_pb2.RESOURCE_EXHAUSTED, "QUEUE_FULL", _errors.ResourceExhaustedError),
        (code_pb2.UNAVAILABLE, "WORKER_DIED", _errors.UnavailableError),
        (code_pb2.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", _errors.DeadlineExceededError),
        (code_pb2.OUT_OF_RANGE, "REVISION_COMPACTED", _errors.RevisionCompactedError),
        (code_pb2.CANCELLED, "CANCELLED", _errors.OperationCancelledError),
        (code_pb2.UNAUTHENTICATED, "UNAUTHENTICATED", _errors.UnauthenticatedError),
        (code_pb2.PERMISSION_DENIED, "PERMISSION_DENIED", _errors.PermissionDeniedError),
        (code_pb2.UNIMPLEMENTED, "UNSUPPORTED", _errors.UnsupportedError),
        (code_pb2.INTERNAL, "INTERNAL", _errors.InternalError),
        (code_pb2.NOT_FOUND, "A_REASON_OF_A_LATER_SERVER", _errors.NotFoundError),
    ],
)
async def test_code_and_reason_decide_the_class(
    target: str, code: int, reason: str, expected: type[ModelhostError]
) -> None:
    for error in await failures(target, status_of(code, reason)):
        assert type(error) is expected
        assert str(error) == "what came"
        assert error.reason == reason
        assert error.code == code_pb2.Code.Name(code)  # type: ignore[arg-type]
        assert error.details == {"model": "m"}
        assert error.retry_after is None
        assert error.violations == ()


async def test_details(target: str) -> None:
    status = status_of(code_pb2.UNAVAILABLE, "VERSION_LOADING")
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(1500)
    status.details.add().Pack(retry)
    bad_request = error_details_pb2.BadRequest()
    bad_request.field_violations.add(field="inputs[x]", description="expected float32")
    status.details.add().Pack(bad_request)
    for error in await failures(target, status):
        assert error.retry_after == 1.5
        assert error.violations == (_errors.Violation("inputs[x]", "expected float32"),)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (code_pb2.UNAVAILABLE, _errors.UnreachableError),
        (code_pb2.UNIMPLEMENTED, _errors.UnsupportedError),
        (code_pb2.UNKNOWN, _errors.InternalError),
        (code_pb2.DATA_LOSS, _errors.InternalError),
    ],
)
async def test_failures_that_no_modelhost_server_explained(
    target: str, code: int, expected: type[ModelhostError]
) -> None:
    for error in await failures(target, status_pb2.Status(code=code, message="plain")):
        assert type(error) is expected
        assert error.reason == ""
        assert error.code == code_pb2.Code.Name(code)  # type: ignore[arg-type]
        assert "plain" in str(error)


@pytest.mark.parametrize("message", ["contradictory", "garbled"])
async def test_details_of_another_failure_are_ignored(target: str, message: str) -> None:
    for error in await failures(target, status_of(code_pb2.NOT_FOUND, "MODEL_NOT_FOUND", message)):
        assert type(error) is _errors.InternalError
        assert error.details == {}


@pytest.mark.parametrize("number", error_pb2.ErrorReason.values())
def test_every_reason_can_come_in_a_message(number: int) -> None:
    message = error_pb2.Error(code=code_pb2.INVALID_ARGUMENT, message="what came", reason=number, metadata={"a": "b"})  # type: ignore[arg-type]
    message.retry_delay.FromSeconds(2)
    error = from_message(message)
    assert error.reason == error_pb2.ErrorReason.Name(number).removeprefix("ERROR_REASON_").replace("UNSPECIFIED", "")  # type: ignore[arg-type]
    assert (str(error), error.details, error.retry_after) == ("what came", {"a": "b"}, 2.0)


def test_an_error_of_a_later_server() -> None:
    message = error_pb2.Error(code=4711, message="new")
    message.reason = 4711  # type: ignore[assignment]
    error = from_message(message)
    assert type(error) is _errors.InternalError
    assert (error.code, error.reason) == ("UNKNOWN", "4711")


def test_the_special_reasons_exist_in_the_protocol() -> None:
    known = {name.removeprefix("ERROR_REASON_") for name in error_pb2.ErrorReason.keys()}  # noqa: SIM118
    assert _errors.InvalidInputError.reasons <= known
    assert _errors.ModelFailedError.reasons <= known


def test_the_tree_is_as_drawn() -> None:
    drawn: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in (_errors.__doc__ or "").splitlines():
        name = line.strip("│├└─ ").partition(" ")[0]
        if name.endswith("Error"):
            indent = line.index(name)
            path = [(i, parent) for i, parent in path if i < indent]
            drawn[name] = path[-1][1] if path else "Exception"
            path.append((indent, name))
    actual = {
        name: cls.__bases__[0].__name__
        for name, cls in vars(_errors).items()
        if isinstance(cls, type) and issubclass(cls, ModelhostError)
    }
    assert drawn == actual


def test_errors_survive_pickling() -> None:
    error = _errors.UnreachableError("gone", reason="R", details={"a": "b"}, retry_after=1.0)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is _errors.UnreachableError
    assert (str(copy), copy.reason, copy.details, copy.retry_after) == ("gone", "R", {"a": "b"}, 1.0)
