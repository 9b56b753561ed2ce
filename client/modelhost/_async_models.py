"""Which models are hosted."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from numpy.typing import ArrayLike

from modelhost.v1 import model_pb2, model_service_pb2

from ._async_uploads import AsyncUploads
from ._async_watches import AsyncWatches
from ._batching_types import Batching
from ._engine_types import EngineName
from ._errors import DeadlineExceededError, InternalError, ModelFailedError, NotFoundError
from ._messages import labels_request, load_request, load_update, model_info, unload_request, version_info
from ._names import parse_model
from ._signatures import find_version
from ._types import (
    CLIENT_TIMEOUT,
    LoadProgress,
    LoadSpec,
    LoadUpdate,
    ModelInfo,
    Sample,
    Timeout,
    VersionInfo,
)

_PAGE_SIZE = 1000


class AsyncModels(AsyncWatches, AsyncUploads):
    """Loads, unloads and lists models."""

    async def load(
        self,
        model: str,
        source: str | os.PathLike[str],
        *,
        version: int | None = None,
        labels: Sequence[str] = (),
        tags: Sequence[str] = (),
        annotations: Mapping[str, str] | None = None,
        engine: EngineName | None = None,
        tolerance: float | None = None,
        require_warmup: bool = False,
        batching: Batching | None = None,
        warmup: Sequence[Sample | Mapping[str, ArrayLike]] = (),
        keep_older: bool = False,
        pinned: bool = False,
        evictable: bool = False,
        idle_timeout: float | None = None,
        upload: bool = False,
        wait: bool = True,
        timeout: float | None = None,
        on_progress: Callable[[LoadProgress], None] | None = None,
    ) -> VersionInfo:
        """Loads a version of a model, and waits until it answers predictions.

        Loading the same version from the same source again is no error and answers at once.

        Args:
            model: "model" or "scope/model", with "@3" for the version's number.
            source: URI, or path on the server's machine, of a SavedModel, or of a `.tflite` or `.keras` file. A
                relative path that exists here is made absolute.
            version: its number, if it is not part of `model`; one more than the highest so far when None.
            labels: names to move to the version once it is AVAILABLE.
            tags: of the MetaGraph to load from a SavedModel; "serve" when empty.
            annotations: free text kept with the version.
            engine: "tensorflow", "litert" or "openvino"; when None the server chooses the fastest that gives the same
                outputs, see `wait_tuned`.
            tolerance: largest difference from TensorFlow's outputs that another engine's may show, relative to the
                output's scale; 1e-4 when None.
            require_warmup: fail when a warm-up request fails; otherwise that is only told, in `VersionInfo.warmup`.
            batching: how predictions are to run together; when None the server decides.
            warmup: inputs that the version is run on before it is AVAILABLE, and that engines are checked with: arrays
                by input name, or a `Sample` to name a signature.
            keep_older: keep older versions that have no label; otherwise they are unloaded once this one serves.
            pinned: never evict it; it cannot be evictable, too.
            evictable: while it is idle it may be taken out of memory to make room for others; its next prediction
                loads it again, and waits for that.
            idle_timeout: take it out of memory when it has been idle for so many seconds; None is never. Such a version
                is evictable, too.
            upload: `source` is a path on this machine, to be sent first, see `upload`.
            wait: False answers at once, with the version in state LOADING.
            timeout: seconds to wait; None waits for as long as it takes. The load goes on when the wait ends.
            on_progress: called with news of the upload and the load.

        Raises:
            InvalidRequestError: the source is not a model, does not exist, or cannot be run by `engine`.
            NotFoundError: there is no such scope.
            AlreadyExistsError: the version exists, from another source or with other options.
            ModelFailedError: the model could not be loaded.
            ResourceExhaustedError: a memory limit stands in the way.
            DeadlineExceededError: it is still loading when the timeout ends.
        """
        if upload:
            source, timeout = await self._uploaded(source, parse_model(model, version), timeout, on_progress)
        spec = LoadSpec(
            model=model,
            source=source,
            version=version,
            labels=labels,
            tags=tags,
            annotations=annotations or {},
            engine=engine,
            tolerance=tolerance,
            require_warmup=require_warmup,
            batching=batching,
            warmup=warmup,
            keep_older=keep_older,
            pinned=pinned,
            evictable=evictable,
            idle_timeout=idle_timeout,
        )
        request = load_request(spec, wait)
        if on_progress is None:
            response = await self._call(self._stubs.models.LoadModel, request, timeout)
            return version_info(response.scope, response.model, response.version)
        async for update in self._load([request], timeout):
            if update.error is not None:
                raise update.error
            if update.version is not None:
                return update.version
            if update.progress is not None:
                on_progress(update.progress)
        raise InternalError("the server ended the load without saying how it went")

    def load_many(self, loads: Iterable[LoadSpec], *, timeout: float | None = None) -> AsyncIterator[LoadUpdate]:
        """Loads several versions, and tells how they fare. One that fails stops no other.

        >>> specs = [LoadSpec(model="half_plus_two", source="/no/such/path", version=2)]
        >>> [update.error.reason async for update in client.load_many(specs) if update.error]
        ['SOURCE_NOT_FOUND']

        Args:
            loads: what to load.
            timeout: seconds to wait for all of them; None waits for as long as it takes.

        Yields:
            News, as they come: for each load any number of times progress, then the version or the error.

        Raises:
            InvalidRequestError: a name or option is malformed; nothing is loaded then.
            DeadlineExceededError: some are still loading when the timeout ends.
        """
        return self._load([load_request(spec, wait=True) for spec in loads], timeout)

    async def unload(
        self,
        model: str,
        *,
        version: int | None = None,
        label: str | None = None,
        missing_ok: bool = False,
        wait: bool = True,
        timeout: float | None = None,
    ) -> list[int]:
        """Unloads one version of a model, or without a version or label all of them, and waits until that is done.

        Predictions under way are finished; the memory is given back.

        Args:
            model: "model" or "scope/model", with "@3" or "@stable" for one version.
            version: number of the version, if it is not part of `model`.
            label: label of the version, if it is not part of `model`.
            missing_ok: there may be nothing to unload.
            wait: False answers at once, with the versions in state UNLOADING.
            timeout: seconds to wait; None waits for as long as it takes.

        Returns:
            The numbers of the versions that were unloaded.

        Raises:
            NotFoundError: there is no such model, version or label.
        """
        request = unload_request(parse_model(model, version, label), missing_ok, wait)
        response = await self._call(self._stubs.models.UnloadModel, request, timeout)
        return list(response.versions)

    async def set_labels(
        self,
        model: str,
        labels: Mapping[str, int] | None = None,
        *,
        remove: Sequence[str] = (),
        timeout: Timeout = CLIENT_TIMEOUT,
    ) -> dict[str, int]:
        """Puts labels on versions of a model, moves them and takes them off, all at once or not at all.

        Whoever asks for a label after the answer gets the version that it is on now.

        >>> await client.set_labels("half_plus_two", {"canary": 1})
        {'canary': 1}
        >>> await client.set_labels("half_plus_two", remove=["canary"])
        {}

        Args:
            model: "model" or "scope/model".
            labels: labels and the numbers of the versions to put them on. A version that is still loading gets its
                labels when it is AVAILABLE.
            remove: labels to take off; those that are nowhere are passed over.
            timeout: seconds.

        Returns:
            All labels of the model now, by name.

        Raises:
            NotFoundError: there is no such model or version.
            FailedPreconditionError: a version failed, or is being unloaded.
            InvalidRequestError: a name breaks the rules, or a label is to be put on and taken off.
        """
        request = labels_request(parse_model(model), labels or {}, remove)
        response = await self._call(self._stubs.models.SetLabels, request, timeout)
        return dict(sorted(response.labels.items()))

    async def model(
        self,
        model: str,
        *,
        version: int | None = None,
        label: str | None = None,
        variables: bool = False,
        timeout: Timeout = CLIENT_TIMEOUT,
    ) -> ModelInfo:
        """Describes a model: its versions with their signatures, or with a version or label only that version.

        >>> info = await client.model("default/half_plus_two")
        >>> print(info.served.signatures["serving_default"].inputs["x"])
        float32 [?]

        Args:
            model: "model" or "scope/model", with "@3" or "@stable" for one version.
            version: number of the version, if it is not part of `model`.
            label: label of the version, if it is not part of `model`.
            variables: also tell the versions' variables.
            timeout: seconds.

        Raises:
            NotFoundError: there is no such model, version or label.
        """
        ref = parse_model(model, version, label)
        view = model_pb2.MODEL_VIEW_VARIABLES if variables else model_pb2.MODEL_VIEW_FULL
        request = model_service_pb2.GetModelRequest(scope=ref.scope, model=ref.model, version=ref.version, view=view)
        response = await self._call(self._stubs.models.GetModel, request, timeout)
        info = model_info(response.model)
        return replace(info, versions=(find_version(info, ref),)) if ref.label else info

    async def models(self, scope: str | None = None, *, timeout: Timeout = CLIENT_TIMEOUT) -> list[ModelInfo]:
        """Lists the models of a scope, or of all scopes, by scope and name; without signatures.

        >>> [f"{info.scope}/{info.model}" for info in await client.models("default")]
        ['default/half_plus_two']

        Args:
            scope: all scopes when None.
            timeout: seconds, for each page of a thousand models.
        """
        found: list[ModelInfo] = []
        request = model_service_pb2.ListModelsRequest(scope=scope or "", page_size=_PAGE_SIZE)
        while True:
            response = await self._call(self._stubs.models.ListModels, request, timeout)
            found += map(model_info, response.models)
            request.page_token = response.next_page_token
            if not request.page_token:
                return found

    async def wait_tuned(
        self, model: str, *, version: int | None = None, label: str | None = None, timeout: float | None = None
    ) -> VersionInfo:
        """Waits until the search for a faster engine for a version is over, or finds that there is none.

        Nobody needs to wait for it to ask the model: TensorFlow answers meanwhile, and the change is not noticed but
        by the time that answers take. `engine` of the version tells what serves it, and what else was tried.

        >>> tuned = await client.wait_tuned("half_plus_two")
        >>> tuned.state, tuned.engine.is_settled
        ('AVAILABLE', True)

        Args:
            model: "model" or "scope/model", with "@3" or "@stable" for the version; without, the highest that is
                AVAILABLE, or else the newest.
            version: number of the version, if it is not part of `model`.
            label: label of the version, if it is not part of `model`.
            timeout: seconds to wait; None waits for as long as it takes.

        Returns:
            The version, AVAILABLE, with its signatures.

        Raises:
            NotFoundError: there is no such model, version or label, or it is unloaded meanwhile.
            ModelFailedError: the version failed to load, or was quarantined.
            DeadlineExceededError: the search is not over when the timeout ends; it goes on.
        """
        end = None if timeout is None else time.monotonic() + timeout
        first_timeout = CLIENT_TIMEOUT if timeout is None else timeout
        ref = parse_model(model, version, label)
        info = await self.model(model, version=version, label=label, timeout=first_timeout)
        number = find_version(info, ref).version
        request = model_service_pb2.WatchModelsRequest(scope=ref.scope, model=ref.model, view=model_pb2.MODEL_VIEW_FULL)
        told = False
        try:
            async for event in self._watch(request, end):
                news = event.version
                if news is None:
                    if not told:
                        break
                    # Should the watch begin anew, the version must be told of again.
                    told = False
                elif news.version == number:
                    told = True
                    if news.state in ("UNLOADING", "UNLOADED"):
                        break
                    if news.state == "FAILED":
                        raise news.error or ModelFailedError(f"{ref} failed to load", reason="VERSION_FAILED")
                    if news.state in ("AVAILABLE", "EVICTED") and news.engine is not None and news.engine.is_settled:
                        return news
        except DeadlineExceededError as error:
            raise DeadlineExceededError(
                f"the search for an engine for {ref} was not over within {timeout:g} s; it goes on", reason=error.reason
            ) from error
        raise NotFoundError(f"version {number} of {ref} was unloaded meanwhile", reason="VERSION_NOT_FOUND")

    async def _load(
        self, loads: Sequence[model_service_pb2.LoadModelRequest], timeout: float | None
    ) -> AsyncIterator[LoadUpdate]:
        request = model_service_pb2.LoadModelsRequest(loads=loads)
        call = self._stubs.models.LoadModels(request, timeout=timeout, metadata=self._metadata)
        try:
            with self._told_errors():
                async for message in call:
                    yield load_update(message)
        finally:
            call.cancel()
