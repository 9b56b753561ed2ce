"""For tests without a server: what hypothesis may take, and fixtures of the tests of the client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from support.service import Asynchronous, Served, Synchronous

# How long something takes says nothing on a machine that does other things besides.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    yield served
    served.stop()


@pytest.fixture(params=[Synchronous, Asynchronous], ids=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Makes clients of one kind, and closes them."""
    made: list[Any] = []

    def make(target: str, **options: Any) -> Any:
        made.append(request.param(target, **options))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(connect: Callable[..., Any], served: Served) -> Any:
    return connect(served.target)
