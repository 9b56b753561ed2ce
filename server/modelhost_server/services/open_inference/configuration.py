"""The configuration of a model, as Triton makes one for a model that has none."""

from __future__ import annotations

from collections.abc import Sequence

from ...compat import model_config_pb2 as pb
from ...hosting.batching import Batching, BatchingState
from ...hosting.checks import choose_signature
from ...hosting.host import Host
from ...store.records import Loaded, Version
from ...tensors import SignatureSpec, TensorSpec
from .datatypes import config_name
from .metadata import PLATFORM, shape_of
from .models import ready_version, ready_versions

# Predictions may be of any size; but callers are told some size, and more examples than these gain nothing.
_MAX_BATCH_SIZE = 128


async def model_config(host: Host, model: str, version: str) -> pb.ModelConfig:
    """The configuration of a version, with its default signature.

    Raises:
        ForeignError: INVALID_ARGUMENT, NOT_FOUND, UNAVAILABLE.
        ModelhostError: SIGNATURE_NOT_FOUND.
    """
    found = ready_version(host, model, version)
    loaded = await host.learn(found)
    position, spec = choose_signature(found, "")
    config = pb.ModelConfig(
        name=model,
        platform=PLATFORM,
        backend="tensorflow",
        version_policy=_version_policy([ready.number for ready in ready_versions(host, model)]),
        default_model_filename="model.savedmodel",
    )
    said = found.description
    for tensor in spec.inputs:
        config.input.add(
            name=tensor.name, data_type=_type(tensor), dims=_dims(spec, tensor), optional=tensor.optional,
            format=pb.ModelInput.Format.Value(said.formats.get(tensor.name, "FORMAT_NONE")),
        )  # fmt: skip
    for tensor in spec.outputs:
        config.output.add(
            name=tensor.name, data_type=_type(tensor), dims=_dims(spec, tensor),
            label_filename=said.label_files.get(tensor.name, ""),
        )  # fmt: skip
    config.instance_group.add(
        name=f"{model}_0", kind=pb.ModelInstanceGroup.KIND_CPU, count=host.store.scope(found.scope).config.replicas
    )
    if spec.is_batched:
        _fill_batching(config, found, loaded, position)
    return config


def _version_policy(numbers: Sequence[int]) -> pb.ModelVersionPolicy:
    if len(numbers) > 1:
        return pb.ModelVersionPolicy(specific=pb.ModelVersionPolicy.Specific(versions=sorted(numbers)))
    return pb.ModelVersionPolicy(latest=pb.ModelVersionPolicy.Latest(num_versions=1))


def _type(tensor: TensorSpec) -> pb.DataType.ValueType:
    return pb.DataType.Value(config_name(tensor.dtype))


def _dims(spec: SignatureSpec, tensor: TensorSpec) -> Sequence[int]:
    """The shape; without the batch's extent, of which a configuration tells by `max_batch_size`."""
    return shape_of(tensor)[1:] if spec.is_batched else shape_of(tensor)


def _fill_batching(config: pb.ModelConfig, version: Version, loaded: Loaded, position: int) -> None:
    options = version.options.batching
    sizes = options.allowed_batch_sizes
    config.max_batch_size = sizes[-1] if sizes else options.max_batch_size or _MAX_BATCH_SIZE
    runner = loaded.runners.get(position)
    # One that was not asked yet says what it is going to do.
    batching: Batching = (
        runner.batching if runner else Batching(version.options, loaded.signatures[position], loaded.is_pure)
    )
    if batching.state is BatchingState.OFF:
        return
    config.dynamic_batching.preferred_batch_size.extend(sizes)
    config.dynamic_batching.max_queue_delay_microseconds = int(options.max_delay * 1e6)
    if options.max_queue or options.queue_timeout:
        config.dynamic_batching.default_queue_policy.max_queue_size = options.max_queue
        config.dynamic_batching.default_queue_policy.default_timeout_microseconds = int(options.queue_timeout * 1e6)
