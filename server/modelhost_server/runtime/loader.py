"""Loads models into a worker: the engine, what stands behind it, first executions, and what all of it took."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..engines.base import LITERT, OPENVINO, TENSORFLOW, Engine, EngineOptions, LoadedModel, LoadRequest, Progress
from ..errors import ModelhostError, Reason, brief
from ..memory import give_back, resident
from .backed import BackedModel
from .warming import Warmup, requests_of, warm

_MAX_BYTES = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Job:
    """A load as the server asks for it.

    `artifact` is what was made of `path` for another engine than tensorflow, which then stands behind that engine;
    empty when the engine loads `path` itself.
    """

    key: int
    engine: str
    path: str
    artifact: str
    tags: tuple[str, ...]
    digest: str
    samples_file: str
    require_warmup: bool
    alone_threads: int
    # A prediction waits for it.
    is_awaited: bool

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Job:
        """The job the server sent."""
        return cls(**{**data, "tags": tuple(data["tags"])})


class Loader:
    """The engines of a worker, each made when it is first needed."""

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._engines: dict[str, Engine] = {}
        self._under_way = 0
        self._lock = threading.Lock()

    def prepare(self, name: str) -> None:
        """Makes an engine, and starts the threads that its models share: from the caller's thread, whose priority they
        inherit.
        """
        with self._lock:
            if name not in self._engines:
                engine = _make_engine(name, self._options)
                engine.prepare()
                self._engines[name] = engine

    def load(
        self, job: Job, progress: Progress, on_failure: Callable[[str], None]
    ) -> tuple[LoadedModel, dict[str, Any]]:
        """A model, ready to serve, and what is told of it.

        Raises:
            ModelhostError: the engine's; SOURCE_INVALID for shapes that cannot be; a warm-up request's when those must
                succeed.
        """
        with self._counted():
            started, before = time.monotonic_ns(), resident()
            model = self._load(job, progress, on_failure)
            try:
                _check_shapes(model)
                progress("warming", 0, 0)
                warmup = warm(model, requests_of(job.path, job.samples_file))
                if job.require_warmup and warmup.failure_count:
                    raise ModelhostError(
                        Reason.SOURCE_INVALID, f"{warmup.first_error} ({warmup.failure_count} failed); load without "
                        "require_warmup to serve the version all the same",
                    )  # fmt: skip
            except BaseException:
                model.close()
                raise
        after = resident()
        grown = {name: max(0, after[name] - before[name]) for name in ("private", "anonymous")}
        return model, _report(model, warmup, grown, time.monotonic_ns() - started)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Counts a load. Freed memory is given back before the first of them, so that it does not take over what others
        freed, and after the last; meanwhile that would hold up the others.
        """
        with self._lock:
            self._under_way += 1
            is_first = self._under_way == 1
        if is_first:
            give_back()
        try:
            yield
        finally:
            with self._lock:
                self._under_way -= 1
                is_last = self._under_way == 0
            if is_last:
                give_back()

    def _load(self, job: Job, progress: Progress, on_failure: Callable[[str], None]) -> LoadedModel:
        request = LoadRequest(job.path, job.tags, job.digest)
        if not job.artifact:
            return self._engines[job.engine].load(request, progress)
        made = LoadRequest(job.artifact, (), job.digest, job.alone_threads)
        model = self._engines[job.engine].load(made, progress)
        return BackedModel(model, partial(self._load_backup, request), on_failure)

    def _load_backup(self, request: LoadRequest) -> LoadedModel:
        self.prepare(TENSORFLOW)
        return self._engines[TENSORFLOW].load(request, lambda *_: None)


def _check_shapes(model: LoadedModel) -> None:
    # The server takes a worker that tells of such shapes for one that lies, and ends it.
    shapes = [
        (f"signature {brief(spec.name)}: {brief(tensor.name)}", tensor.shape)
        for spec in model.signatures
        for tensor in (*spec.inputs, *spec.outputs)
    ]
    shapes += [(f"the variable {brief(variable.name)}", variable.shape) for variable in model.variables]
    for what, shape in shapes:
        if shape and min(shape) < -1:
            raise ModelhostError(
                Reason.SOURCE_INVALID, f"{what} has an extent of {min(shape)}; expected -1, for an open one, or more"
            )
    if sum(variable.nbytes for variable in model.variables) > _MAX_BYTES:
        raise ModelhostError(Reason.SOURCE_INVALID, "its variables are larger than any memory")


def _report(model: LoadedModel, warmup: Warmup, grown: dict[str, int], nanoseconds: int) -> dict[str, Any]:
    return {
        "engine": model.engine,
        "loader": model.loader,
        "signatures": [signature.to_json() for signature in model.signatures],
        "variables": [[v.name, v.dtype, v.shape] for v in model.variables],
        "variable_bytes": sum(v.nbytes for v in model.variables),
        "private_bytes": grown["private"],
        "anonymous_bytes": grown["anonymous"],
        "load_ns": nanoseconds,
        "warmup": asdict(warmup),
        "is_pure": model.is_pure,
    }


def _make_engine(name: str, options: EngineOptions) -> Engine:
    # Each is imported by need: a worker has in memory what its models run on, and nothing else.
    if options.cache_dir is not None:
        options = EngineOptions(
            options.intra_op_threads, options.inter_op_threads, options.lanes, Path(options.cache_dir) / name
        )
    if name == TENSORFLOW:
        from ..engines.tensorflow import TensorflowEngine

        return TensorflowEngine(options)
    if name == LITERT:
        from ..engines.litert import LitertEngine

        return LitertEngine(options)
    if name == OPENVINO:
        from ..engines.openvino import OpenvinoEngine

        return OpenvinoEngine(options)
    raise ModelhostError(Reason.UNSUPPORTED, f"there is no engine '{name}'")
