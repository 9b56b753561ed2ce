"""What is known of the models asked so far."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from numpy.typing import NDArray

from modelhost.v1 import model_pb2, model_service_pb2

from ._async_memory import AsyncMemory
from ._errors import InvalidInputError
from ._messages import model_info
from ._names import ModelRef
from ._signatures import find_signature, needs_signature, to_arrays
from ._types import CLIENT_TIMEOUT, Inputs, SignatureInfo


class AsyncSignatures(AsyncMemory):
    """Learns signatures when they are needed, and makes inputs fit them."""

    # A signature that proves out of date is learnt again.
    _signatures: dict[tuple[ModelRef, str], SignatureInfo]

    async def _arrays(self, ref: ModelRef, signature: str, inputs: Inputs) -> dict[str, NDArray[Any]]:
        known = self._signatures.get((ref, signature))
        if known is not None:
            # When they do not fit, it may be the signature that is out of date.
            with suppress(InvalidInputError):
                return to_arrays(inputs, known)
        elif not needs_signature(inputs):
            return to_arrays(inputs, None)
        return to_arrays(inputs, await self._learn(ref, signature))

    async def _learn(self, ref: ModelRef, signature: str) -> SignatureInfo:
        request = model_service_pb2.GetModelRequest(
            scope=ref.scope, model=ref.model, version=ref.version, view=model_pb2.MODEL_VIEW_FULL
        )
        response = await self._call(self._stubs.models.GetModel, request, CLIENT_TIMEOUT)
        found = find_signature(model_info(response.model), ref, signature)
        self._signatures[ref, signature] = found
        return found
