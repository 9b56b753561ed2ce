"""What HTTP callers are told of failures: `{"error": message}`, with the status that their protocol has for a code."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import orjson
from starlette.responses import Response

from ..errors import Code, ForeignError, ModelhostError, Reason
from ..services.failures import as_modelhost_error

JSON = "application/json"


class HttpError(Exception):
    """A failure of HTTP itself."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers


def error_response(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """The answer that tells of a failure."""
    # Paths of files that a message names need not be text.
    text = message.encode(errors="replace").decode()
    return Response(orjson.dumps({"error": text}), status, headers, JSON)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a protocol tells of errors.

    Attributes:
        translate: its own words for an error of ours.
        statuses: its HTTP statuses for codes.
    """

    translate: Callable[[ModelhostError], ForeignError]
    statuses: Mapping[int, int]

    def response(self, error: Exception) -> Response:
        """What a caller is told of an error."""
        if isinstance(error, HttpError):
            return error_response(error.status, error.message, error.headers)
        headers = {}
        if not isinstance(error, ForeignError):
            known = as_modelhost_error(error)
            if known.retry_after is not None:
                headers["Retry-After"] = str(math.ceil(known.retry_after))
            if known.reason is Reason.UNAUTHENTICATED:
                headers["WWW-Authenticate"] = "Bearer"
            error = self.translate(known)
        return error_response(self.statuses.get(error.code, 500), error.message, headers)


# As TensorFlow Serving has them.
TENSORFLOW_SERVING_STATUSES: Mapping[int, int] = {
    Code.CANCELLED: 499, Code.INVALID_ARGUMENT: 400, Code.DEADLINE_EXCEEDED: 504, Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409, Code.PERMISSION_DENIED: 403, Code.RESOURCE_EXHAUSTED: 429, Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409, Code.OUT_OF_RANGE: 400, Code.UNIMPLEMENTED: 501, Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}  # fmt: skip
# As Triton has them, and what it has no codes for as everybody has it.
OPEN_INFERENCE_STATUSES: Mapping[int, int] = {
    **dict.fromkeys(Code, 400), Code.INTERNAL: 500, Code.NOT_FOUND: 404, Code.UNAVAILABLE: 503,
    Code.RESOURCE_EXHAUSTED: 503, Code.UNIMPLEMENTED: 501, Code.DEADLINE_EXCEEDED: 504, Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
}  # fmt: skip
