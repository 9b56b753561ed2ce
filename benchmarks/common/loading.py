"""Models in modelhost, on the engine that stays."""

from __future__ import annotations

from typing import Literal, TypeAlias

import modelhost

from .cases import Model

_SECONDS = 900.0
Engine: TypeAlias = Literal["tensorflow", "litert"]


def load(address: str, model: Model, engine: Engine | None = None, batching: modelhost.Batching | None = None) -> None:
    """Loads a model and waits until the server has found its engine."""
    with modelhost.Client(address) as client:
        client.load(model.name, model.path(), engine=engine, batching=batching, timeout=_SECONDS)
        client.wait_tuned(model.name, timeout=_SECONDS)
