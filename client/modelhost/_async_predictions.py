"""Asking models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from modelhost.v1 import prediction_service_pb2, tensor_pb2

from ._async_signatures import AsyncSignatures
from ._errors import (
    InvalidInputError,
    ModelFailedError,
    ModelhostError,
    NotFoundError,
    UnavailableError,
    UnreachableError,
)
from ._items import AsyncStreamRequests, async_items
from ._messages import many_request, many_result, predict_request, prediction, stream_request, stream_result
from ._names import ModelRef, parse_model, parse_models
from ._signatures import STALE_REASONS, needs_signature, to_tensors
from ._types import CLIENT_TIMEOUT, Inputs, Prediction, PredictItem, PredictTarget, StreamResult, Timeout


class AsyncPredictions(AsyncSignatures):
    """Asks models."""

    async def predict(
        self,
        model: str,
        inputs: Inputs,
        *,
        signature: str = "",
        version: int | None = None,
        label: str | None = None,
        outputs: Sequence[str] | None = None,
        timeout: Timeout = CLIENT_TIMEOUT,
    ) -> Prediction:
        """Runs one signature of a model once.

        >>> answer = await client.predict("default/half_plus_two", [1.0, 2.0, 5.0])
        >>> answer["y"]
        array([2.5, 3. , 4.5], dtype=float32)
        >>> answer.version
        1

        Arrays (anything with `__array__`) need exactly the dtype of the model's input and are never cast. Lists and
        scalars are converted to it, when no value loses more than floating-point precision. When the inputs are
        arrays by name, nothing but the prediction itself is sent; otherwise the client asks for the model's signature
        first, once, and from then on also checks names, dtypes and shapes before it sends anything.

        Args:
            model: "model" or "scope/model", with "@3" or "@stable" for a version or label. Without one, the highest
                version that is AVAILABLE answers.
            inputs: arrays by input name, or one array for a model that needs a single input.
            signature: the signature to run; "serving_default", or the only one, when empty.
            version: number of the version, if it is not part of `model`.
            label: label of the version, if it is not part of `model`.
            outputs: names of the outputs to compute; all when None.
            timeout: seconds.

        Returns:
            The outputs by name, as read-only arrays (strings as object arrays of `bytes`), and the version that
            answered.

        Raises:
            InvalidInputError: the inputs do not fit the signature, or the model refused them.
            NotFoundError: there is no such model, version, label or signature.
            ModelFailedError: the model failed to load, or failed while it ran.
            UnavailableError: the model is still loading, or its worker died.
            ResourceExhaustedError: the queue of the model's scope is full.
            DeadlineExceededError: no answer within the timeout.
        """
        ref = parse_model(model, version, label)
        was_known = (ref, signature) in self._signatures
        tensors = await self._tensors(ref, signature, inputs)
        try:
            return await self._predict(predict_request(ref, tensors, signature, outputs), timeout)
        except InvalidInputError as error:
            if not was_known or error.reason not in STALE_REASONS:
                raise
        # The inputs fitted what was known of the model, so the model has changed since.
        tensors = to_tensors(inputs, await self._learn(ref, signature))
        return await self._predict(predict_request(ref, tensors, signature, outputs), timeout)

    async def predict_many(
        self,
        models: Sequence[str | PredictTarget],
        inputs: Inputs,
        *,
        scope: str | None = None,
        outputs: Sequence[str] | None = None,
        timeout: Timeout = CLIENT_TIMEOUT,
    ) -> list[Prediction | ModelhostError]:
        """Runs the same inputs through several models of one scope, in one call and side by side.

        >>> answers = await client.predict_many(["half_plus_two", "no_such_model"], [4.0])
        >>> answers[0]["y"]
        array([4.], dtype=float32)
        >>> answers[1].reason
        'MODEL_NOT_FOUND'

        The inputs are sent once. What `predict` says of them holds here, too; the signature that lists are converted
        to, and a single array is named by, is that of the first model that has one they fit.

        Args:
            models: names as for `predict`, or `PredictTarget` to name a signature; at most 1000.
            inputs: arrays by input name, or one array for models that need a single input.
            scope: the scope of names that have none in them; "default" when None.
            outputs: names of the outputs to compute; all when None.
            timeout: seconds, for all of them.

        Returns:
            What became of each, in the order of `models`: a prediction, or the error, to be looked at or raised. One
            that fails stops no other.

        Raises:
            InvalidRequestError: a name is malformed, or the models are not all of one scope.
            NotFoundError: there is no such scope.
            DeadlineExceededError: no answer within the timeout.
        """
        targets = [target if isinstance(target, PredictTarget) else PredictTarget(target) for target in models]
        one_scope, refs = parse_models([(target.model, target.version, target.label) for target in targets], scope)
        signatures = [target.signature for target in targets]
        tensors = await self._shared_tensors(list(zip(refs, signatures, strict=True)), inputs)
        if isinstance(tensors, list):
            return [*tensors]
        request = many_request(refs, signatures, tensors, outputs, one_scope)
        metadata = (("modelhost-scope", one_scope),)
        response = await self._call(self._stubs.predictions.PredictMany, request, timeout, metadata=metadata)
        results = [many_result(result) for result in response.results]
        for ref, signature, result in zip(refs, signatures, results, strict=False):
            if isinstance(result, ModelhostError) and result.reason in STALE_REASONS:
                self._signatures.pop((ref, signature), None)
        return results

    async def predict_stream(
        self, requests: AsyncStreamRequests, *, in_flight: int = 64, timeout: Timeout = CLIENT_TIMEOUT
    ) -> AsyncIterator[StreamResult]:
        """Runs many predictions over one stream, several at a time; the fastest way to ask small models a lot.

        >>> requests = [("half_plus_two", [1.0]), ("no_such_model", [1.0]), ("half_plus_two", [5.0])]
        >>> results = {result.index: result async for result in client.predict_stream(requests)}
        >>> results[2].unwrap()["y"]
        array([4.5], dtype=float32)
        >>> results[1].error.reason
        'MODEL_NOT_FOUND'

        A prediction that fails is an answer like any other and stops nothing. When `requests` itself raises, the
        answers to the requests before are yielded, then the error is raised.

        Args:
            requests: `(model, inputs)` or `PredictItem`, read no faster than they are answered.
            in_flight: predictions under way at most.
            timeout: seconds, for each prediction.

        Yields:
            Answers as they come, not in the order of the requests; `index` says which request each belongs to.

        Raises:
            UnreachableError: the connection broke; predictions that were under way are lost.
        """
        room = asyncio.Semaphore(in_flight)
        refused: dict[int, ModelhostError] = {}
        failures: list[Exception] = []
        stopped = False

        async def messages() -> AsyncIterator[prediction_service_pb2.PredictStreamRequest]:
            try:
                async for index, item in async_items(requests):
                    await room.acquire()
                    if stopped:
                        return
                    try:
                        request = await self._item_request(item)
                    except ModelhostError as error:
                        # An empty request is answered by an error, which wakes the reader below to tell this one.
                        refused[index] = error
                        request = prediction_service_pb2.PredictRequest()
                    yield stream_request(index, request, self._seconds(timeout))
            # gRPC would log it and tell the caller nothing but that the call was cancelled.
            except Exception as error:
                failures.append(error)

        call = self._stubs.predictions.PredictStream(messages(), metadata=self._metadata)
        try:
            with self._told_errors():
                async for message in call:
                    for response in message.responses:
                        room.release()
                        if response.id in refused:
                            yield StreamResult(response.id, error=refused.pop(response.id))
                            continue
                        result = stream_result(response)
                        if result.error is not None and result.error.reason in STALE_REASONS:
                            self._signatures.clear()
                        yield result
        finally:
            # Whoever waits for room must see that nobody answers any more.
            stopped = True
            room.release()
            call.cancel()
        if failures:
            raise failures[0]

    async def _item_request(self, item: PredictItem) -> prediction_service_pb2.PredictRequest:
        ref = parse_model(item.model, item.version, item.label)
        tensors = await self._tensors(ref, item.signature, item.inputs)
        return predict_request(ref, tensors, item.signature, item.outputs)

    async def _predict(self, request: prediction_service_pb2.PredictRequest, timeout: Timeout) -> Prediction:
        # So that a front can route without reading the message.
        metadata = (("modelhost-scope", request.scope), ("modelhost-model", request.model))
        return prediction(await self._call(self._stubs.predictions.Predict, request, timeout, metadata=metadata))

    async def _shared_tensors(
        self, targets: Sequence[tuple[ModelRef, str]], inputs: Inputs
    ) -> dict[str, tensor_pb2.Tensor] | list[ModelhostError]:
        """`inputs` as they travel to all targets; or when no target lets them be understood, why not, for each."""
        if not needs_signature(inputs):
            return to_tensors(inputs, None)
        failures: list[ModelhostError] = []
        for ref, signature in targets:
            try:
                return await self._tensors(ref, signature, inputs)
            except UnreachableError:
                raise
            except (NotFoundError, InvalidInputError, ModelFailedError, UnavailableError) as error:
                # This is about all targets.
                if error.reason == "SCOPE_NOT_FOUND":
                    raise
                failures.append(error)
        return failures
