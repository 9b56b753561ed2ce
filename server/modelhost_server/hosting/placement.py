"""Puts versions into workers, and takes them out."""

from __future__ import annotations

import logging
from typing import Any

from ..errors import ModelhostError, Reason
from ..ipc.frames import Kind
from ..store.records import Loaded, Progress, Version
from ..store.store import Store
from ..tensors import SignatureSpec, VariableSpec
from ..workers.worker import Worker
from .conversion import Converter

logger = logging.getLogger(__name__)


class Placement:
    """Speaks LOAD and UNLOAD with workers; tells the store how a load gets on."""

    def __init__(self, store: Store, converter: Converter) -> None:
        self._store = store
        self._converter = converter

    async def place(self, worker: Worker, version: Version) -> Loaded:
        """Loads a version into a worker.

        Raises:
            ModelhostError: the engine's or the converter's, or WORKER_DIED.
        """

        def progress(report: dict[str, Any]) -> None:
            self._store.set_progress(version, Progress(str(report["stage"]).upper(), report["done"], report["total"]))

        if self._converter.is_needed(version.path):
            progress({"stage": "converting", "done": 0, "total": 0})
            version.path = await self._converter.convert(version.path)
        request = {"key": version.key, "path": version.path, "tags": version.options.tags}
        reply = await worker.link.control(Kind.LOAD, request, progress)
        worker.loaded.add(version.key)
        return _loaded(reply)

    async def free(self, worker: Worker, version: Version) -> int:
        """Frees a version in a worker; the worker's private memory after that, 0 when the worker has gone."""
        worker.loaded.discard(version.key)
        try:
            reply = await worker.link.control(Kind.UNLOAD, {"key": version.key})
        except ModelhostError as error:
            if error.reason is not Reason.WORKER_DIED:
                logger.error("%s cannot unload: %s", worker.name, error.message)
                worker.kill()
            return 0
        return int(reply["private"])


def _loaded(reply: dict[str, Any]) -> Loaded:
    return Loaded(
        engine=reply["engine"],
        loader=reply["loader"],
        signatures=tuple(SignatureSpec.from_json(signature) for signature in reply["signatures"]),
        variables=tuple(VariableSpec(name, dtype, tuple(shape)) for name, dtype, shape in reply["variables"]),
        private_bytes=reply["private_bytes"],
        variable_bytes=reply["variable_bytes"],
        load_ns=reply["load_ns"],
    )
