"""What the tests of Triton's clients share. It is read where there are none of them, too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def models(built: Callable[[str], Path]) -> Path:
    """The directory of the models that Triton's examples ask for, and of an identity of each dtype."""
    return built("build_foreign")


@pytest.fixture(scope="session")
def hosted(server: Any, models: Path) -> Any:
    """A server with all of them; `simple` has a version 1, labelled stable, and a version 2, and is in another
    scope, too.
    """
    names = [path.name for path in models.iterdir() if path.name.startswith(("simple_", "identity_"))]
    server.modelhost("scope", "create", "team")
    server.modelhost("load-many", *(f"{name}={models / name}" for name in names), f"team/simple={models / 'simple'}")
    server.load("simple", models / "simple", "--label", "stable")
    server.load("simple", models / "simple", "--keep-older")
    server.load("half", models / "half_plus_two" / "1", "--max-batch-size", "8", "--batching")
    return server


@pytest.fixture
def client(hosted: Any) -> Iterator[Any]:
    """Triton's client of that server."""
    from tritonclient.grpc import InferenceServerClient

    with InferenceServerClient(hosted.address) as client:
        yield client
