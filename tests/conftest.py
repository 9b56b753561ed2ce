"""Fixtures of all tests that need a server or models."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

_scope_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def models() -> Path:
    """A directory of SavedModels, built once for each state of the builder by a process that has TensorFlow."""
    from support.building import built

    return built("build")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--transport h2corn` runs the tests with servers of that transport."""
    parser.addoption("--transport", choices=["grpcio", "h2corn"], default="grpcio", help="what servers speak gRPC with")


def pytest_configure(config: pytest.Config) -> None:
    """Servers that fixtures of modules start, too, are of that transport."""
    os.environ["MODELHOST_TRANSPORT"] = config.getoption("--transport")


@pytest.fixture(scope="session")
def transport(request: pytest.FixtureRequest) -> str:
    """What servers speak gRPC with: what was asked for, or each in turn (support.server.BOTH_TRANSPORTS)."""
    return getattr(request, "param", None) or request.config.getoption("--transport")


@pytest.fixture(autouse=True)
def _servers_of_the_transport(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELHOST_TRANSPORT", transport)


@pytest.fixture(scope="session")
def server(transport: str) -> Iterator["ServerProcess"]:  # noqa: F821, UP037
    """A server that all tests share; tests that hurt a server start their own."""
    from support.server import ServerProcess

    with ServerProcess("--transport", transport) as process:
        yield process


@pytest.fixture(scope="session")
def stubs(server: "ServerProcess") -> Iterator["Stubs"]:  # noqa: F821, UP037
    """Generated stubs connected to the shared server."""
    from support.server import Stubs

    stubs = Stubs(server.address)
    yield stubs
    stubs.close()


@pytest.fixture
def scope(stubs: "Stubs") -> Iterator[str]:  # noqa: F821, UP037
    """A scope of the test's own on the shared server."""
    from modelhost.v1 import scope_service_pb2 as pb

    name = f"test-{next(_scope_numbers)}"
    stubs.scopes.CreateScope(pb.CreateScopeRequest(scope=name), timeout=30)
    yield name
    stubs.scopes.DeleteScope(pb.DeleteScopeRequest(scope=name, force=True, allow_missing=True), timeout=60)
