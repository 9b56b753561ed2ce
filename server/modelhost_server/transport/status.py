"""From errors to google.rpc.Status, in one place."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from ..errors import Code, ForeignError, ModelhostError
from ..services.failures import as_modelhost_error

DOMAIN = "modelhost"
# A status is a part of HTTP headers, of which clients take 8 KiB in all, and has its message twice.
_MAX_MESSAGE_BYTES = 3200


class StatusError(Exception):
    """An error that is a status already: the transport's own, or one that another process made."""

    def __init__(self, status: status_pb2.Status) -> None:
        super().__init__(status.message)
        self.status = status


def status_error(code: int, message: str) -> StatusError:
    """A status without details, as gRPC's own."""
    return StatusError(status_pb2.Status(code=code, message=message))


def too_slow(seconds: float) -> StatusError:
    """A stream whose caller does not read."""
    return status_error(Code.ABORTED, f"the caller has taken nothing of the stream for {seconds:g} s")


def status_of(error: Exception, translate: Callable[[ModelhostError], ForeignError] | None = None) -> status_pb2.Status:
    """What a caller is told of an error; `translate` puts it into the words of the caller's protocol."""
    if isinstance(error, StatusError):
        return error.status
    if not isinstance(error, ForeignError):
        known = as_modelhost_error(error)
        if translate is None:
            return rich_status(known)
        error = translate(known)
    return status_pb2.Status(code=error.code, message=_fitting(error.message))


def _fitting(message: str) -> str:
    """A message, as much of it as fits when it is sent: what is not plain ASCII is three times as long then."""
    place = size = 0
    while place < len(message) and size <= _MAX_MESSAGE_BYTES:
        plain = " " <= message[place] <= "~" and message[place] != "%"
        size += 1 if plain else 3 * len(message[place].encode())
        place += 1
    return message if size <= _MAX_MESSAGE_BYTES else f"{message[: place - 1]}…"


def rich_status(error: ModelhostError) -> status_pb2.Status:
    """The status with its details: ErrorInfo always, BadRequest and RetryInfo where they apply."""
    status = status_pb2.Status(code=error.reason.code, message=error.message)
    status.details.add().Pack(
        error_details_pb2.ErrorInfo(reason=error.reason.name, domain=DOMAIN, metadata=error.details)
    )
    if error.field:
        bad = error_details_pb2.BadRequest()
        bad.field_violations.add(field=error.field, description=error.message)
        status.details.add().Pack(bad)
    if error.retry_after is not None:
        delay = Duration()
        delay.FromNanoseconds(int(error.retry_after * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status
