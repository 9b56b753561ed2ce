"""What can go wrong, in the words of the domain. No transport is known here.

Every error has a `Reason`; the reason decides the status code, in one table, so that a failure has the same code
wherever it is raised: in a service, in the store or, sent over as JSON, in a worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, IntEnum

# Of an error that a worker sends: no honest one says more.
_LONGEST_TEXT, _MOST_DETAILS, _LONGEST_WAIT = 4000, 20, 3600.0


class Code(IntEnum):
    """Canonical status codes, numbered as google.rpc.Code."""

    CANCELLED = 1
    # Never ours; other protocols have it.
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class Reason(Enum):
    """Why something failed; the value is the status code that goes with it. Names as in `modelhost.v1.ErrorReason`."""

    def __new__(cls, code: Code) -> Reason:
        member = object.__new__(cls)
        # Members that share a code must not become aliases of one another.
        member._value_ = (len(cls.__members__), code)
        return member

    @property
    def code(self) -> Code:
        """The status code of a failure for this reason."""
        return self.value[1]  # type: ignore[no-any-return]

    INTERNAL = Code.INTERNAL
    INVALID_REQUEST = Code.INVALID_ARGUMENT
    INVALID_NAME = Code.INVALID_ARGUMENT
    INVALID_PAGE_TOKEN = Code.INVALID_ARGUMENT
    SCOPE_NOT_FOUND = Code.NOT_FOUND
    MODEL_NOT_FOUND = Code.NOT_FOUND
    VERSION_NOT_FOUND = Code.NOT_FOUND
    LABEL_NOT_FOUND = Code.NOT_FOUND
    SIGNATURE_NOT_FOUND = Code.NOT_FOUND
    SCOPE_ALREADY_EXISTS = Code.ALREADY_EXISTS
    VERSION_ALREADY_EXISTS = Code.ALREADY_EXISTS
    SCOPE_NOT_EMPTY = Code.FAILED_PRECONDITION
    VERSION_FAILED = Code.FAILED_PRECONDITION
    VERSION_UNLOADING = Code.FAILED_PRECONDITION
    VERSION_LOADING = Code.UNAVAILABLE
    SOURCE_NOT_FOUND = Code.INVALID_ARGUMENT
    SOURCE_INVALID = Code.INVALID_ARGUMENT
    SOURCE_UNSUPPORTED = Code.INVALID_ARGUMENT
    INPUT_MISSING = Code.INVALID_ARGUMENT
    INPUT_UNKNOWN = Code.INVALID_ARGUMENT
    INPUT_DTYPE_MISMATCH = Code.INVALID_ARGUMENT
    INPUT_SHAPE_MISMATCH = Code.INVALID_ARGUMENT
    INPUT_MALFORMED = Code.INVALID_ARGUMENT
    OUTPUT_UNKNOWN = Code.INVALID_ARGUMENT
    MODEL_REJECTED_INPUT = Code.INVALID_ARGUMENT
    MODEL_EXECUTION_FAILED = Code.FAILED_PRECONDITION
    WORKER_DIED = Code.UNAVAILABLE
    WORKER_UNAVAILABLE = Code.UNAVAILABLE
    QUEUE_FULL = Code.RESOURCE_EXHAUSTED
    MEMORY_LIMIT = Code.RESOURCE_EXHAUSTED
    DEADLINE_EXCEEDED = Code.DEADLINE_EXCEEDED
    SERVER_DRAINING = Code.UNAVAILABLE
    REVISION_COMPACTED = Code.OUT_OF_RANGE
    CONFLICT = Code.ABORTED
    UNSUPPORTED = Code.UNIMPLEMENTED
    UNAUTHENTICATED = Code.UNAUTHENTICATED
    PERMISSION_DENIED = Code.PERMISSION_DENIED
    CANCELLED = Code.CANCELLED
    REGION_NOT_FOUND = Code.NOT_FOUND
    REGION_ALREADY_EXISTS = Code.ALREADY_EXISTS
    REGION_INVALID = Code.INVALID_ARGUMENT
    REGION_LIMIT = Code.RESOURCE_EXHAUSTED
    UPLOAD_INVALID = Code.INVALID_ARGUMENT
    UPLOAD_NOT_FOUND = Code.NOT_FOUND
    UPLOAD_LIMIT = Code.RESOURCE_EXHAUSTED
    SOURCE_UNAVAILABLE = Code.UNAVAILABLE
    SOURCE_FORBIDDEN = Code.PERMISSION_DENIED
    THRASHING = Code.RESOURCE_EXHAUSTED
    RATE_LIMIT = Code.RESOURCE_EXHAUSTED
    TOO_MANY_CALLS = Code.RESOURCE_EXHAUSTED
    STORAGE_FAILED = Code.UNAVAILABLE


class ModelhostError(Exception):
    """A failure with a reason, a message for people and details for programs.

    Args:
        reason: why; decides the status code.
        message: names what was expected, what came, and what to do next.
        field: the request field at fault, if one is.
        retry_after: seconds after which trying again may help.
        details: names and values for programs.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        field: str = "",
        retry_after: float | None = None,
        **details: object,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.field = field
        self.retry_after = retry_after
        self.details = {key: str(value) for key, value in details.items()}

    def to_json(self) -> dict[str, object]:
        """The error as a worker sends it to the server."""
        return {
            "reason": self.reason.name,
            "message": self.message,
            "field": self.field,
            "retry_after": self.retry_after,
            "details": self.details,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> ModelhostError:
        """The error a worker sent, as much of it as may be sent on.

        Raises:
            LookupError, TypeError: it is none.
        """
        details, seconds = data.get("details"), data.get("retry_after")
        given = list(details.items())[:_MOST_DETAILS] if isinstance(details, dict) else []
        return cls(
            Reason[str(data["reason"])],
            _text(data["message"]),
            field=_text(data.get("field", "")),
            retry_after=float(seconds) if isinstance(seconds, int | float) and 0 <= seconds <= _LONGEST_WAIT else None,
            **{_text(key): _text(value) for key, value in given},
        )


def _text(value: object) -> str:
    """A text of limited length, without what is no character."""
    return str(value)[:_LONGEST_TEXT].encode(errors="replace").decode()


class ForeignError(Exception):
    """A failure in the words of another protocol, whose callers know its codes and messages.

    Args:
        code: the status code.
        message: as that protocol has it.
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def brief(value: object, limit: int = 64) -> str:
    """`value` as it may stand in a message: quoted, and short whatever a caller sent."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}… ({len(str(value))} characters)"
