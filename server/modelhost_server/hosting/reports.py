"""What workers tell in JSON, as far as it is to be believed: a model may have taken over its worker."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt

from ..store.records import Loaded, Progress
from ..tensors import SignatureSpec, VariableSpec

_Count = Annotated[StrictInt, Field(ge=0, lt=1 << 63)]
_Extent = Annotated[StrictInt, Field(ge=-1, lt=1 << 63)]
_Dtype = Annotated[StrictInt, Field(ge=0, lt=1 << 15)]


class _Report(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Tensor(_Report):
    name: str
    dtype: _Dtype
    shape: tuple[_Extent, ...] | None
    optional: StrictBool
    tensor: str


class _Signature(_Report):
    name: str
    inputs: tuple[_Tensor, ...]
    outputs: tuple[_Tensor, ...]
    method_name: str


class _Warmup(_Report):
    success_count: _Count
    failure_count: _Count
    first_error: str


class _LoadReport(_Report):
    engine: Literal["tensorflow", "litert", "openvino"]
    loader: str
    signatures: tuple[_Signature, ...]
    variables: tuple[tuple[str, _Dtype, tuple[_Extent, ...]], ...]
    private_bytes: _Count
    anonymous_bytes: _Count
    variable_bytes: _Count
    load_ns: _Count
    warmup: _Warmup
    is_pure: StrictBool


class _ProgressReport(_Report):
    stage: Literal["reading", "warming"]
    done: _Count
    total: _Count


class _Memory(_Report):
    anonymous: _Count


class _Shared(_Report):
    shared_bytes: _Count


def read_loaded(reply: dict[str, Any]) -> Loaded:
    """What is told of a version that was loaded.

    Raises:
        ValueError: that cannot be.
    """
    told = _LoadReport.model_validate(reply)
    return Loaded(
        engine=told.engine,
        loader=told.loader,
        signatures=tuple(SignatureSpec.from_json(signature.model_dump()) for signature in told.signatures),
        variables=tuple(VariableSpec(*variable) for variable in told.variables),
        private_bytes=told.private_bytes,
        anonymous_bytes=told.anonymous_bytes,
        variable_bytes=told.variable_bytes,
        load_ns=told.load_ns,
        warmup=(told.warmup.success_count, told.warmup.failure_count, told.warmup.first_error),
        is_pure=told.is_pure,
    )


def read_progress(reply: dict[str, Any]) -> Progress:
    """How far a load has come.

    Raises:
        ValueError: that cannot be.
    """
    told = _ProgressReport.model_validate(reply)
    return Progress(told.stage.upper(), told.done, told.total)


def read_anonymous(reply: dict[str, Any]) -> int:
    """A worker's anonymous memory.

    Raises:
        ValueError: that cannot be.
    """
    return _Memory.model_validate(reply).anonymous


def read_shared(reply: dict[str, Any]) -> int:
    """What a version shares with others, in bytes.

    Raises:
        ValueError: that cannot be.
    """
    return _Shared.model_validate(reply).shared_bytes
