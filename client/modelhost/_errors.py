"""What can go wrong, as one tree. Every failure that a server or the client tells of is one of these.

ModelhostError
├── InvalidRequestError (ValueError)   a name, a source or an option that the server does not take
│   └── InvalidInputError              inputs that do not fit the model's signature, or that the model refused
├── NotFoundError (LookupError)        no such scope, model, version, label or signature
├── AlreadyExistsError                 the name or number is taken by something else
├── FailedPreconditionError            not possible in the state things are in
│   └── ModelFailedError               the model failed to load, or failed while it ran
├── ConflictError                      another operation on the same thing is under way
├── ResourceExhaustedError             the queue is full, or a memory limit stands in the way
├── UnavailableError                   not now; trying again may help
│   └── UnreachableError (ConnectionError)   no server answers, or the connection broke
├── DeadlineExceededError (TimeoutError)     no answer within the timeout
├── RevisionCompactedError             the server no longer has all changes since that revision
├── OperationCancelledError            cancelled, or what it worked on was removed
├── UnauthenticatedError               the server wants to know who is calling
├── PermissionDeniedError              the caller may not do this
├── UnsupportedError                   this server, or this client, does not offer that
└── InternalError                      a bug, in the server or on the way to it
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from modelhost.v1 import error_pb2


class Violation(NamedTuple):
    """A field of the request that was wrong, and how."""

    field: str
    description: str


class ModelhostError(Exception):
    """A failure, with a message for people and the rest for programs.

    Attributes:
        code: canonical status code, e.g. "NOT_FOUND".
        reason: name of a `modelhost.v1.ErrorReason` without its prefix, e.g. "MODEL_NOT_FOUND"; "" when the failure
            did not come from a modelhost server.
        details: names and values that the message speaks of.
        retry_after: seconds after which trying again may help; None when the server did not say.
        violations: the fields of the request at fault.
    """

    code: str = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        code: str = "",
        details: Mapping[str, str] | None = None,
        retry_after: float | None = None,
        violations: Iterable[Violation] = (),
    ) -> None:
        super().__init__(message)
        if code:
            self.code = code
        self.reason = reason
        self.details = dict(details or {})
        self.retry_after = retry_after
        self.violations = tuple(violations)


class InvalidRequestError(ModelhostError, ValueError):
    """A name, a source or an option that the server does not take."""

    code = "INVALID_ARGUMENT"


class InvalidInputError(InvalidRequestError):
    """Inputs that do not fit the model's signature, or that the model refused."""

    reasons: ClassVar = frozenset(
        {
            "INPUT_MISSING",
            "INPUT_UNKNOWN",
            "INPUT_DTYPE_MISMATCH",
            "INPUT_SHAPE_MISMATCH",
            "INPUT_MALFORMED",
            "OUTPUT_UNKNOWN",
            "MODEL_REJECTED_INPUT",
        }
    )


class NotFoundError(ModelhostError, LookupError):
    """No such scope, model, version, label or signature."""

    code = "NOT_FOUND"


class AlreadyExistsError(ModelhostError):
    """The name or number is taken by something else."""

    code = "ALREADY_EXISTS"


class FailedPreconditionError(ModelhostError):
    """Not possible in the state things are in."""

    code = "FAILED_PRECONDITION"


class ModelFailedError(FailedPreconditionError):
    """The model failed to load, or failed while it ran."""

    reasons: ClassVar = frozenset({"VERSION_FAILED", "MODEL_EXECUTION_FAILED"})


class ConflictError(ModelhostError):
    """Another operation on the same thing is under way."""

    code = "ABORTED"


class ResourceExhaustedError(ModelhostError):
    """The queue is full, or a memory limit stands in the way."""

    code = "RESOURCE_EXHAUSTED"


class UnavailableError(ModelhostError):
    """Not now; trying again may help."""

    code = "UNAVAILABLE"


class UnreachableError(UnavailableError, ConnectionError):
    """No server answers, or the connection broke."""


class DeadlineExceededError(ModelhostError, TimeoutError):
    """No answer within the timeout."""

    code = "DEADLINE_EXCEEDED"


class RevisionCompactedError(ModelhostError):
    """The server no longer has all changes since that revision."""

    code = "OUT_OF_RANGE"


class OperationCancelledError(ModelhostError):
    """Cancelled, or what it worked on was removed."""

    code = "CANCELLED"


class UnauthenticatedError(ModelhostError):
    """The server wants to know who is calling."""

    code = "UNAUTHENTICATED"


class PermissionDeniedError(ModelhostError):
    """The caller may not do this."""

    code = "PERMISSION_DENIED"


class UnsupportedError(ModelhostError):
    """This server, or this client, does not offer that."""

    code = "UNIMPLEMENTED"


class InternalError(ModelhostError):
    """A bug, in the server or on the way to it."""

    code = "INTERNAL"


_BY_CODE: Mapping[str, type[ModelhostError]] = {
    cls.code: cls
    for cls in (
        InvalidRequestError,
        NotFoundError,
        AlreadyExistsError,
        FailedPreconditionError,
        ConflictError,
        ResourceExhaustedError,
        UnavailableError,
        DeadlineExceededError,
        RevisionCompactedError,
        OperationCancelledError,
        UnauthenticatedError,
        PermissionDeniedError,
        UnsupportedError,
        InternalError,
    )
}
_CODE_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


def _class_for(code: str, reason: str) -> type[ModelhostError]:
    if reason in InvalidInputError.reasons:
        return InvalidInputError
    if reason in ModelFailedError.reasons:
        return ModelFailedError
    return _BY_CODE.get(code, InternalError)


def from_message(error: error_pb2.Error) -> ModelhostError:
    """The failure of one item of a stream, or of a version."""
    code = _CODE_NAMES.get(error.code, "UNKNOWN")
    reason = _reason_name(error.reason)
    return _class_for(code, reason)(
        error.message,
        reason=reason,
        code=code,
        details=error.metadata,
        retry_after=error.retry_delay.ToTimedelta().total_seconds() if error.HasField("retry_delay") else None,
    )


def from_rpc_error(error: grpc.RpcError, target: str) -> ModelhostError:
    """The failure of an RPC to `target`, from its status and the details that came with it."""
    code = error.code().name
    message = error.details() or code.replace("_", " ").lower()
    info = error_details_pb2.ErrorInfo()
    violations: list[Violation] = []
    retry = error_details_pb2.RetryInfo()
    for detail in _rich_details(error):
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(retry.DESCRIPTOR):
            detail.Unpack(retry)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad_request = error_details_pb2.BadRequest()
            detail.Unpack(bad_request)
            violations += [Violation(v.field, v.description) for v in bad_request.field_violations]
    if not info.reason:
        return _from_transport(code, message, target)
    return _class_for(code, info.reason)(
        message,
        reason=info.reason,
        code=code,
        details=info.metadata,
        retry_after=retry.retry_delay.ToTimedelta().total_seconds() if retry.HasField("retry_delay") else None,
        violations=violations,
    )


def _from_transport(code: str, message: str, target: str) -> ModelhostError:
    """A failure that no modelhost server explained: made by gRPC itself, or by something between here and there."""
    match code:
        case "UNAVAILABLE" if "failed to connect" in message:
            return UnreachableError(
                f"no server answers at {target}; start one with `modelhost serve`, or name another target ({message})"
            )
        case "UNAVAILABLE":
            return UnreachableError(f"the connection to {target} failed: {message}")
        case "DEADLINE_EXCEEDED":
            return DeadlineExceededError(f"no answer from {target} within the timeout", reason="DEADLINE_EXCEEDED")
        case "RESOURCE_EXHAUSTED" if "larger than max" in message:
            return InvalidRequestError(
                f"the message is too large ({message}); let the server take larger ones with "
                "`modelhost serve --max-receive-bytes`, or the client with max_message_bytes",
                code=code,
            )
        case "UNIMPLEMENTED":
            return UnsupportedError(f"the server at {target} does not offer this: {message}")
        case _:
            return _BY_CODE.get(code, InternalError)(message, code=code)


def _rich_details(error: grpc.RpcError) -> Iterable[Any]:
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
    except (ValueError, DecodeError):
        # Something on the way changed the status but not its details, so the details tell of another failure.
        return ()
    return () if status is None else status.details


def _reason_name(reason: int) -> str:
    if reason == error_pb2.ERROR_REASON_UNSPECIFIED:
        return ""
    known = reason in error_pb2.ErrorReason.values()
    return error_pb2.ErrorReason.Name(reason).removeprefix("ERROR_REASON_") if known else str(reason)  # type: ignore[arg-type]
