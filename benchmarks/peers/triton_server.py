"""Triton with its Python backend, by PyTriton. Usage: python -m benchmarks.peers.triton_server MODELS.json [batching]

With batching, Triton gathers requests for a millisecond at most; without, it hands them over one by one.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Callable
from typing import Any

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from .announcing import announced_port
from .tensorflow_model import INPUT, OUTPUT, TensorflowModel, told_models

_DELAY_MICROSECONDS = 1000
_ANY = -1
# Without batching, as many calls of one model side by side as there are processors.
_INSTANCES = os.cpu_count() or 1

Infer = Callable[..., Any]


def _on_batches(model: TensorflowModel) -> Infer:
    @batch
    def infer(**inputs: np.ndarray) -> dict[str, np.ndarray]:
        return {OUTPUT: model(inputs[INPUT])}

    return infer


def _on_requests(model: TensorflowModel) -> Infer:
    def infer(requests: list[Any]) -> list[dict[str, np.ndarray]]:
        return [{OUTPUT: model(request.data[INPUT])} for request in requests]

    return infer


def _bind(triton: Triton, name: str, told: dict[str, Any], batching: bool) -> None:
    model = TensorflowModel(told["path"])
    input_dims, output_dims = (_ANY,) * model.input_rank, (_ANY,) * model.output_rank
    infer: Infer | list[Infer]
    if batching and told["max_batch"]:
        # Triton knows of the first dimension by itself.
        input_dims, output_dims = input_dims[1:], output_dims[1:]
        infer = _on_batches(model)
        batcher = DynamicBatcher(max_queue_delay_microseconds=_DELAY_MICROSECONDS)
        config = ModelConfig(max_batch_size=told["max_batch"], batcher=batcher)
    else:
        infer = [_on_requests(model)] * _INSTANCES
        config = ModelConfig(batching=False)
    triton.bind(
        name, infer, config=config,
        inputs=[Tensor(name=INPUT, dtype=np.float32, shape=input_dims)],
        outputs=[Tensor(name=OUTPUT, dtype=np.float32, shape=output_dims)],
    )  # fmt: skip


def main() -> None:
    """Serves until it is terminated."""
    port, models = announced_port(), told_models()
    # Triton's own process would take the system's libpython otherwise, which may not fit the library of this Python.
    os.environ["LD_LIBRARY_PATH"] = sysconfig.get_config_var("LIBDIR")
    config = TritonConfig(
        grpc_address="127.0.0.1", grpc_port=port, allow_http=False, allow_metrics=False, log_verbose=0
    )
    with Triton(config=config) as triton:
        for name, told in models.items():
            _bind(triton, name, told, batching="batching" in sys.argv[2:])
        triton.serve()


if __name__ == "__main__":
    main()
