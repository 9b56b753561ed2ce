"""Asking models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from ._async_signatures import AsyncSignatures
from ._encoding import Question, encode_many, encode_predict
from ._errors import (
    InvalidInputError,
    ModelFailedError,
    ModelhostError,
    NotFoundError,
    UnavailableError,
    UnreachableError,
    UnsupportedError,
)
from ._messages import outcome, prediction
from ._names import ModelRef, parse_model, parse_models, routing
from ._regions import Region
from ._shared_memory import Exchange
from ._signatures import STALE_REASONS, needs_signature, to_arrays
from ._types import CLIENT_TIMEOUT, Inputs, Prediction, PredictTarget, Timeout

# As gRPC waits before it sends a request again.
_RETRY_SECONDS = 0.1


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
        priority: int = 0,
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
            priority: among the predictions that wait in a scope, those with the highest run first; 0 is usual.
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
        question = Question(ref, signature, tuple(outputs or ()), priority)
        was_known = (ref, signature) in self._signatures
        arrays = await self._arrays(ref, signature, inputs)
        try:
            return await self._predict(question, arrays, timeout)
        except InvalidInputError as error:
            if not was_known or error.reason not in STALE_REASONS:
                raise
        # The inputs fitted what was known of the model, so the model has changed since.
        arrays = to_arrays(inputs, await self._learn(ref, signature))
        return await self._predict(question, arrays, timeout)

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
        arrays = await self._shared_arrays(list(zip(refs, signatures, strict=True)), inputs)
        if isinstance(arrays, list):
            return [*arrays]
        request = encode_many(refs, signatures, arrays, outputs, one_scope)
        metadata = (("modelhost-scope", one_scope),)
        response = await self._call(self._stubs.predictions.PredictMany, request, timeout, metadata=metadata)
        results = [outcome(result) for result in response.results]
        for ref, signature, result in zip(refs, signatures, results, strict=False):
            if isinstance(result, ModelhostError) and result.reason in STALE_REASONS:
                self._signatures.pop((ref, signature), None)
        return results

    async def _predict(self, question: Question, arrays: Mapping[str, NDArray[Any]], timeout: Timeout) -> Prediction:
        if not self._retries_predictions:
            request = b"".join(encode_predict(question, arrays))
            return prediction(
                await self._call(self._stubs.predictions.Predict, request, timeout, metadata=routing(question.ref))
            )
        seconds = self._seconds(timeout)
        end = None if seconds is None else time.monotonic() + seconds
        region = await self._region()
        try:
            return await self._predict_shared(question, arrays, seconds, region)
        except UnavailableError:
            await asyncio.sleep(_RETRY_SECONDS)
        except (NotFoundError, UnsupportedError) as error:
            if error.reason not in ("REGION_NOT_FOUND", "UNSUPPORTED"):
                raise
        # The server may be another now, which does not know the region or shares no memory.
        self._forget(region)
        remaining = None if end is None else end - time.monotonic()
        return await self._predict_shared(question, arrays, remaining, await self._region())

    async def _predict_shared(
        self, question: Question, arrays: Mapping[str, NDArray[Any]], timeout: float | None, region: Region | None
    ) -> Prediction:
        exchange = Exchange.within(region)
        sizes = self._output_sizes.of(question[:2], question.outputs)
        try:
            request = b"".join(encode_predict(question, arrays, exchange, sizes))
            response = await self._call(
                self._stubs.predictions.Predict, request, timeout, metadata=routing(question.ref)
            )
            answer = prediction(response, exchange)
        except BaseException as error:
            if exchange is not None:
                exchange.end(error)
            raise
        if exchange is not None:
            exchange.end()
        self._output_sizes.note(question[:2], answer)
        return answer

    async def _shared_arrays(
        self, targets: Sequence[tuple[ModelRef, str]], inputs: Inputs
    ) -> dict[str, NDArray[Any]] | list[ModelhostError]:
        """`inputs` as arrays for all targets; or when no target lets them be understood, why not, for each."""
        if not needs_signature(inputs):
            return to_arrays(inputs, None)
        failures: list[ModelhostError] = []
        for ref, signature in targets:
            try:
                return await self._arrays(ref, signature, inputs)
            except UnreachableError:
                raise
            except (NotFoundError, InvalidInputError, ModelFailedError, UnavailableError) as error:
                # This is about all targets.
                if error.reason == "SCOPE_NOT_FOUND":
                    raise
                failures.append(error)
        return failures
