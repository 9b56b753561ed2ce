"""Whether the inputs and outputs that Triton's description of a model names are those of the SavedModel."""

from __future__ import annotations

from collections.abc import Sequence

from ..compat.model_config_pb2 import DataType, ModelConfig, ModelInput, ModelOutput
from ..errors import ModelhostError, Reason, brief
from ..store.records import Loaded
from ..tensors import TensorSpec

# TensorFlow's numbers of Triton's.
_DTYPES = {
    DataType.TYPE_BOOL: 10, DataType.TYPE_UINT8: 4, DataType.TYPE_UINT16: 17, DataType.TYPE_UINT32: 22,
    DataType.TYPE_UINT64: 23, DataType.TYPE_INT8: 6, DataType.TYPE_INT16: 5, DataType.TYPE_INT32: 3,
    DataType.TYPE_INT64: 9, DataType.TYPE_FP16: 19, DataType.TYPE_FP32: 1, DataType.TYPE_FP64: 2,
    DataType.TYPE_STRING: 7, DataType.TYPE_BF16: 14,
}  # fmt: skip
_TYPES = {dtype: DataType.Name(number) for number, dtype in _DTYPES.items()}
_ANY = -1


def check_signature(name: str, config: ModelConfig, loaded: Loaded) -> None:
    """Checks what a worker has loaded. A description need not name inputs or outputs.

    Raises:
        ModelhostError: SOURCE_INVALID, in Triton's words.
    """
    found = loaded.signature("serving_default") or (0, loaded.signatures[0])
    spec = found[1]
    if config.input and len(config.input) != len([i for i in spec.inputs if not i.optional or _names(config.input, i)]):
        raise _invalid(
            f"unable to load model '{name}', configuration expects {len(config.input)} inputs, model provides "
            f"{len(spec.inputs)}"
        )
    _check(name, config, "input", config.input, spec.inputs)
    _check(name, config, "output", config.output, spec.outputs)


def _names(tensors: Sequence[ModelInput], spec: TensorSpec) -> bool:
    return any(tensor.name == spec.name for tensor in tensors)


def _check(
    name: str, config: ModelConfig, kind: str, tensors: Sequence[ModelInput | ModelOutput], specs: Sequence[TensorSpec]
) -> None:
    by_name = {spec.name: spec for spec in specs}
    for tensor in tensors:
        spec = by_name.get(tensor.name)
        if spec is None:
            allowed = ", ".join(sorted(by_name))[:500]
            raise _invalid(f"unexpected inference {kind} {brief(tensor.name)}, allowed {kind}s are: {allowed}")
        if _DTYPES.get(tensor.data_type) != spec.dtype:
            raise _invalid(
                f"unable to load model '{name}', {kind} '{spec.name}' data-type {_TYPES.get(spec.dtype, spec.dtype)} "
                f"doesn't match configuration data-type {_type_name(tensor.data_type)}"
            )
        dims = tuple(tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims)
        _check_shape(name, spec, dims, batches=config.max_batch_size > 0)


def _type_name(number: int) -> str:
    """What Triton calls a datatype; numbers of none are let pass by who reads descriptions."""
    return DataType.Name(number) if number in DataType.values() else str(number)  # type: ignore[arg-type]


def _check_shape(name: str, spec: TensorSpec, dims: tuple[int, ...], batches: bool) -> None:
    if spec.shape is None:
        return
    full = (_ANY, *dims) if batches else dims
    if batches and spec.shape[:1] != (_ANY,):
        raise _invalid(
            f"model '{name}', tensor '{spec.name}': for the model to support batching the shape should have at least 1 "
            f"dimension and the first dimension must be -1; but shape expected by the model is {_text(spec.shape)}"
        )
    if len(spec.shape) == len(full) and all(want in (_ANY, got) for want, got in zip(spec.shape, full, strict=True)):
        return
    says = f"{len(full)} dimensions (shape {_text(full)})"
    if batches:
        says = (
            f"{len(full)} dimensions (an initial batch dimension because max_batch_size > 0 followed by the explicit "
            f"tensor shape, making complete shape {_text(full)})"
        )
    raise _invalid(
        f"model '{name}', tensor '{spec.name}': the model expects {len(spec.shape)} dimensions (shape "
        f"{_text(spec.shape)}) but the model configuration specifies {says}"
    )


def _text(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _invalid(message: str) -> ModelhostError:
    return ModelhostError(Reason.SOURCE_INVALID, message)
