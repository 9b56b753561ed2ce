"""What servers and models say of themselves."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from ...hosting.checks import choose_signature
from ...hosting.host import Host
from ...tensors import TensorSpec
from .datatypes import datatype
from .models import ready_version, ready_versions

PLATFORM = "tensorflow_savedmodel"
# Of Triton's extensions, those that are here.
EXTENSIONS = (
    "classification", "model_repository", "schedule_policy", "model_configuration", "system_shared_memory",
    "binary_tensor_data", "parameters", "statistics", "trace", "logging",
)  # fmt: skip


class TensorMetadata(NamedTuple):
    """An input or an output; open extents are -1."""

    name: str
    datatype: str
    shape: Sequence[int]


class ModelMetadata(NamedTuple):
    """A model; `versions` are those that serve."""

    name: str
    versions: Sequence[str]
    platform: str
    inputs: Sequence[TensorMetadata]
    outputs: Sequence[TensorMetadata]


def server_version() -> str:
    """The server's version."""
    try:
        return version("modelhost")
    except PackageNotFoundError:
        return "unknown"


async def model_metadata(host: Host, model: str, version: str) -> ModelMetadata:
    """What there is to know of a model: its versions, and the default signature of one of them.

    Raises:
        ForeignError: INVALID_ARGUMENT, NOT_FOUND, UNAVAILABLE.
        ModelhostError: SIGNATURE_NOT_FOUND.
    """
    found = ready_version(host, model, version)
    await host.learn(found)
    _, spec = choose_signature(found, "")
    numbers = sorted(found.number for found in ready_versions(host, model))
    return ModelMetadata(
        model, [str(number) for number in numbers], PLATFORM, _tensors(spec.inputs), _tensors(spec.outputs)
    )


def _tensors(specs: Sequence[TensorSpec]) -> list[TensorMetadata]:
    return [TensorMetadata(spec.name, datatype(spec.dtype), shape_of(spec)) for spec in specs]


def shape_of(spec: TensorSpec) -> Sequence[int]:
    """The shape as callers are told it; they know of no rank that is unknown."""
    return (-1,) if spec.shape is None else spec.shape
