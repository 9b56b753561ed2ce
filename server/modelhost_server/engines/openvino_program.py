"""One compiled file, and the requests that run it side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import openvino as ov

from ..tensors import RawTensor
from .base import EngineFailure, NotForEngine
from .optimised_arrays import NUMPY_DTYPE, Array, array_of, memory_of
from .optimised_pool import Pool

# OpenVINO's types by DataType number; not float64, which it computes as float32.
TYPES: Mapping[int, ov.Type] = {
    1: ov.Type.f32, 3: ov.Type.i32, 4: ov.Type.u8, 5: ov.Type.i16, 6: ov.Type.i8, 9: ov.Type.i64,
    10: ov.Type.boolean, 14: ov.Type.bf16, 17: ov.Type.u16, 19: ov.Type.f16, 22: ov.Type.u32, 23: ov.Type.u64,
}  # fmt: skip

# uint32, int64, uint64.
_COMPUTED_AS_INT32 = (22, 9, 23)

# As malloc aligns. Small tensors are anywhere in their frame; large ones begin a page.
_ALIGNMENT = 16


class Program:
    """A compiled file.

    `has_failed` once a run did. Nothing is run after that: a graph whose run failed half way answers later calls as if
    their shapes were still those of that run.
    """

    def __init__(self, compiled: ov.CompiledModel) -> None:
        self.has_failed = False
        self.has_run = False
        self.inputs = [port.get_element_type() for port in compiled.inputs]
        self.outputs = [port.get_element_type() for port in compiled.outputs]
        self._requests = Pool(compiled.create_infer_request() for _ in range(compiled.get_property("NUM_STREAMS")))

    def run(
        self,
        inputs: Sequence[tuple[int, RawTensor]],
        wanted: Sequence[int],
        take: Callable[[Sequence[Array]], None],
    ) -> None:
        """Computes the outputs wanted, for inputs by position, and hands them over: they are the request's own memory.

        Raises:
            EngineFailure: OpenVINO failed, at this call or at one before it.
        """
        request = self._requests.take()
        try:
            tensors = self._set_inputs(request, inputs)
            take(self._compute(request, wanted))
            # Until here, because a request keeps the memory's address, not the memory.
            del tensors
        finally:
            self._requests.put(request)

    def _set_inputs(self, request: ov.InferRequest, inputs: Sequence[tuple[int, RawTensor]]) -> list[ov.Tensor]:
        try:
            tensors = [self._tensor(position, value) for position, value in inputs]
            for (position, _), tensor in zip(inputs, tensors, strict=True):
                request.set_input_tensor(position, tensor)
        except EngineFailure:
            raise
        except Exception as error:
            raise EngineFailure(message_of(error)) from None
        return tensors

    def _compute(self, request: ov.InferRequest, wanted: Sequence[int]) -> list[Array]:
        self._check()
        try:
            # Not infer(): with one thread for one stream it says nothing of failures and leaves the outputs of the call
            # before.
            request.start_async()
            request.wait()
            results = [request.get_output_tensor(position).data for position in wanted]
        except Exception as error:
            self.has_failed = True
            raise EngineFailure(message_of(error)) from None
        # A call that failed meanwhile may have left this one a graph that was not in order.
        self._check()
        self.has_run = True
        return results

    def _check(self) -> None:
        if self.has_failed:
            raise NotForEngine("OpenVINO failed at another call and is being restored")

    def _tensor(self, position: int, tensor: RawTensor) -> ov.Tensor:
        """A tensor over the caller's memory."""
        array = np.frombuffer(memory_of(tensor), np.uint8)
        if tensor.dtype in _COMPUTED_AS_INT32:
            values = array_of(tensor, NUMPY_DTYPE[tensor.dtype])
            if values.size and (values.min() < -(2**31) or values.max() >= 2**31):
                raise NotForEngine("OpenVINO computes integers as int32, which cannot hold a value that came")
        if not array.size:
            # OpenVINO takes no memory of no bytes.
            array = np.zeros(1, np.uint8)
        elif array.__array_interface__["data"][0] % _ALIGNMENT:
            array = array.copy()
        return ov.Tensor(array, ov.Shape(tensor.shape), self.inputs[position])


def message_of(error: Exception) -> str:
    """What went wrong, without the list of places in OpenVINO's sources through which it came."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = (line for line in lines if line and not line.startswith(("Exception from", "Caught exception")))
    return next(telling, type(error).__name__)[:500]
