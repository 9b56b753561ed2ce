"""Fixtures of the tests of the client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.service import Asynchronous, Served, Synchronous


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
