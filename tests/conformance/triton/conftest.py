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
def hosted(server: Any, built: Callable[[str], Path], models: Path) -> Any:
    """A server with all of them; `simple` has a version 1, labelled stable, and a version 2, and is in another
    scope, too. `gate` is for those that ask for `waiting`.
    """
    names = [path.name for path in models.iterdir() if path.name.startswith(("simple_", "identity_"))]
    server.modelhost("scope", "create", "team")
    server.modelhost("load-many", *(f"{name}={models / name}" for name in names), f"team/simple={models / 'simple'}")
    server.load("simple", models / "simple", "--label", "stable")
    server.load("simple", models / "simple", "--keep-older")
    server.load("half", models / "half_plus_two" / "1", "--max-batch-size", "8", "--batching")
    server.load("gate", built("build_batching") / "gate")
    return server


@pytest.fixture
def client(hosted: Any) -> Iterator[Any]:
    """Triton's client of that server."""
    from tritonclient.grpc import InferenceServerClient

    with InferenceServerClient(hosted.address) as client:
        yield client


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[Any]:
    """What has the model `gate` run until the test ends: the input that names the file it waits for."""
    import numpy as np
    from tritonclient.grpc import InferInput

    path = InferInput("path", [], "BYTES")
    path.set_data_from_numpy(np.array(str(tmp_path / "open").encode(), np.object_))
    yield [path]
    (tmp_path / "open").touch()
