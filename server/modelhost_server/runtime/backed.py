"""A model on an engine that TensorFlow stands behind: what the engine cannot run, TensorFlow answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from ..engines.base import EngineFailure, LoadedModel, NotForEngine, OutputSink
from ..tensors import RawTensor, SignatureSpec, VariableSpec


class BackedModel:
    """A LoadedModel whose failed runs are run again by another, which is loaded when it is first needed.

    Args:
        model: what runs.
        load_backup: loads the other; its signatures are the same.
        on_failure: told why, once, when the engine failed at what the other could do.
    """

    def __init__(
        self, model: LoadedModel, load_backup: Callable[[], LoadedModel], on_failure: Callable[[str], None]
    ) -> None:
        self._model = model
        self._load_backup = load_backup
        self._on_failure: Callable[[str], None] | None = on_failure
        self._backup: LoadedModel | None = None
        self._lock = threading.Lock()
        self._demoted = False

    @property
    def engine(self) -> str:
        """See LoadedModel."""
        return self._model.engine

    @property
    def loader(self) -> str:
        """See LoadedModel."""
        return self._model.loader

    @property
    def signatures(self) -> Sequence[SignatureSpec]:
        """See LoadedModel."""
        return self._model.signatures

    @property
    def variables(self) -> Sequence[VariableSpec]:
        """See LoadedModel."""
        return self._model.variables

    @property
    def is_pure(self) -> bool:
        """See LoadedModel."""
        return self._model.is_pure

    def shared_bytes(self) -> int:
        """See LoadedModel."""
        return self._model.shared_bytes()

    def run(
        self, signature: int, inputs: Sequence[tuple[int, RawTensor]], outputs: Sequence[int], sink: OutputSink
    ) -> None:
        """See LoadedModel; raises no EngineFailure."""
        why = ""
        if not self._demoted:
            try:
                self._model.run(signature, inputs, outputs, sink)
                return
            except NotForEngine:
                pass
            except EngineFailure as failure:
                why = str(failure)
        # When this raises, too, the input is to blame, and the engine stays.
        self._get_backup().run(signature, inputs, outputs, sink)
        if why:
            self._demote(why)

    def _get_backup(self) -> LoadedModel:
        with self._lock:
            if self._backup is None:
                self._backup = self._load_backup()
            return self._backup

    def _demote(self, why: str) -> None:
        with self._lock:
            self._demoted = True
            on_failure, self._on_failure = self._on_failure, None
        if on_failure is not None:
            on_failure(why)

    def close(self) -> None:
        """See LoadedModel."""
        self._model.close()
        if self._backup is not None:
            self._backup.close()
