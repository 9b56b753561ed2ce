"""Versions and predictions, found by what a ModelSpec names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from ...errors import ModelhostError
from ...hosting.checks import Checks
from ...hosting.host import Host
from ...hosting.prediction import Begun
from ...store.records import Version
from ...tensors import RawTensor
from ..call import Call
from .checks import PREDICT
from .errors import check_target, servable_error
from .names import Target


def begin(
    host: Host,
    target: Target,
    inputs: Mapping[str, RawTensor],
    output_filter: Sequence[str],
    call: Call,
    checks: Checks = PREDICT,
) -> Begun:
    """Begins to run a signature of a version.

    Raises:
        ModelhostError, ForeignError: SERVER_DRAINING and QUEUE_FULL; there is no such version; what `checks` raises.
    """
    check_target(target)
    try:
        return host.predictions.begin(
            *target.place, target.version or 0, target.label or "", target.signature, inputs, output_filter,
            deadline=call.deadline, caller=call.who, checks=checks,
        )  # fmt: skip
    except ModelhostError as error:
        raise servable_error(target, error) from None


@asynccontextmanager
async def acquired(host: Host, target: Target) -> AsyncIterator[Version]:
    """A handle on a version of which it is known what it takes and gives.

    Raises:
        ForeignError: the server is draining; there is no such version, or it cannot be loaded again.
    """
    check_target(target)
    try:
        host.draining.check_accepting()
        version = host.store.acquire(*target.place, target.version or 0, target.label or "")
    except ModelhostError as error:
        raise servable_error(target, error) from None
    try:
        try:
            await host.learn(version)
        except ModelhostError as error:
            raise servable_error(target, error) from None
        yield version
    finally:
        version.release()
