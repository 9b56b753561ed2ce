"""From errors to google.rpc.Status, in one place."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from ..errors import ModelhostError
from ..services.failures import as_modelhost_error

DOMAIN = "modelhost"


class StatusError(Exception):
    """An error that is a status already: the transport's own, or one that another process made."""

    def __init__(self, status: status_pb2.Status) -> None:
        super().__init__(status.message)
        self.status = status


def status_error(code: int, message: str) -> StatusError:
    """A status without details, as gRPC's own."""
    return StatusError(status_pb2.Status(code=code, message=message))


def status_of(error: Exception) -> status_pb2.Status:
    """What a caller is told of an error."""
    return error.status if isinstance(error, StatusError) else rich_status(as_modelhost_error(error))


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
