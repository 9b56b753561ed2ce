"""Smaller and faster versions of models."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from modelhost.v1 import model_pb2

from ._async_signatures import AsyncSignatures
from ._errors import InternalError
from ._messages import sample_message
from ._names import ModelRef, parse_model
from ._optimization_messages import optimization_progress, optimization_report, optimize_request
from ._optimization_types import OptimizationMethod, OptimizationProgress, OptimizationReport
from ._types import Inputs, Sample


class AsyncOptimizations(AsyncSignatures):
    """Makes new versions of models by quantizing or pruning them."""

    async def optimize(
        self,
        model: str,
        method: OptimizationMethod | str,
        *,
        sparsity: float | None = None,
        samples: Sequence[Sample | Inputs] = (),
        samples_file: str | os.PathLike[str] | None = None,
        true_classes: Sequence[int] = (),
        version: int | None = None,
        label: str | None = None,
        new_version: int | None = None,
        labels: Sequence[str] = (),
        timeout: float | None = None,
        on_progress: Callable[[OptimizationProgress], None] | None = None,
    ) -> OptimizationReport:
        """Makes a new version of a model, loads it beside the original, and compares the two.

        The original stays as it is, and is served under its number and labels. Predictions that name no version are
        answered by the new one, because its number is higher.

        Args:
            model: "model" or "scope/model", with "@3" or "@stable" for the version to start from; the highest version
                that is AVAILABLE without.
            method: an `OptimizationMethod`, or its word: "dynamic_int8", "float16", "full_int8", "weight_only_int8"
                or "prune".
            sparsity: for "prune", the share of each layer's weights that become zero, above 0 and below 1.
            samples: representative inputs, each as for `predict` or a `Sample`. "full_int8" is calibrated with them,
                and every method is compared on them; where the inputs have a batch dimension, one may hold many
                examples. The server makes some up when there are none.
            samples_file: more of them, in an `.npz` file on the server's machine with one array an input, whose first
                dimension counts examples. An array named "labels" holds the right class of each. A relative path that
                exists here is made absolute.
            true_classes: the right class of each example in `samples`, in order, so that accuracy can be told.
            version: number of the version to start from, if it is not part of `model`.
            label: label of the version to start from, if it is not part of `model`.
            new_version: number of the new version; the next one when None.
            labels: names to move to the new version.
            timeout: seconds to wait; None waits for as long as it takes.
            on_progress: called with news.

        Raises:
            InvalidRequestError: the method, its options or the samples make no sense, or the method does not apply to
                the model.
            NotFoundError: there is no such model, version or label.
            UnavailableError: the version is still loading.
            FailedPreconditionError: the version failed, or is being unloaded.
            ResourceExhaustedError: a memory limit stands in the way of the new version.
            DeadlineExceededError: the timeout ended. A version that was loaded by then stays.
        """
        ref = parse_model(model, version, label)
        request = optimize_request(
            ref,
            method,
            sparsity=sparsity,
            samples=[await self._sample(ref, sample) for sample in samples],
            samples_file=samples_file,
            true_classes=true_classes,
            new_version=new_version,
            labels=labels,
        )
        call = self._stubs.optimizations.OptimizeModel(request, timeout=timeout, metadata=self._metadata)
        try:
            with self._told_errors():
                async for message in call:
                    if message.HasField("report"):
                        return optimization_report(ref, message.report)
                    if on_progress is not None:
                        on_progress(optimization_progress(message.progress))
        finally:
            call.cancel()
        raise InternalError("the server ended the optimization without a report")

    async def _sample(self, ref: ModelRef, given: Sample | Inputs) -> model_pb2.Sample:
        sample = given if isinstance(given, Sample) else Sample(given)
        return sample_message(sample.signature, await self._arrays(ref, sample.signature, sample.inputs))
