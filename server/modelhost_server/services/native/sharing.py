"""Tensors of predictions in memory that callers share with the server."""

from __future__ import annotations

from collections.abc import Mapping

from modelhost.v1.prediction_service_pb2 import PredictRequest
from modelhost.v1.tensor_pb2 import DATA_TYPE_BOOL, SharedMemoryReference

from ...errors import ModelhostError, Reason, brief
from ...hosting.regions import Regions
from ...tensors import STRING, RawTensor, RegionRange, output_bytes


def found_inputs(inputs: Mapping[str, RawTensor], regions: Regions) -> Mapping[str, RawTensor]:
    """The inputs, with ranges of files for those that are in regions.

    Raises:
        ModelhostError: UNSUPPORTED, REGION_NOT_FOUND, REGION_INVALID.
    """
    if not any(isinstance(tensor.data, RegionRange) for tensor in inputs.values()):
        return inputs
    return {name: _found(name, tensor, regions) for name, tensor in inputs.items()}


def check_places(message: PredictRequest, regions: Regions) -> None:
    """Checks that there are the places that the caller has for outputs.

    Raises:
        ModelhostError: UNSUPPORTED, REGION_NOT_FOUND, REGION_INVALID.
    """
    for place in message.output_regions.values():
        regions.range(place.region, place.offset, place.byte_size)


def place_outputs(message: PredictRequest, outputs: Mapping[str, RawTensor], regions: Regions) -> dict[str, bytes]:
    """Puts outputs where the caller wants them; answers where those are that have gone there."""
    placed: dict[str, bytes] = {}
    for name, place in message.output_regions.items():
        output = outputs.get(name)
        if output is None or output.dtype == STRING:
            continue
        data = output_bytes(output)
        if len(data) <= place.byte_size:
            try:
                regions.range(place.region, place.offset, place.byte_size).write_from(data)
            except (OSError, ModelhostError):
                # The region has changed or gone meanwhile; then the output goes into the response.
                continue
            reference = SharedMemoryReference(region=place.region, offset=place.offset, byte_size=len(data))
            placed[name] = reference.SerializeToString()
    return placed


def _found(name: str, tensor: RawTensor, regions: Regions) -> RawTensor:
    place = tensor.data
    if not isinstance(place, RegionRange):
        return tensor
    found = regions.range(*place)
    if tensor.dtype != DATA_TYPE_BOOL:
        return tensor._replace(data=found)
    # Its values are checked, and what is checked must be what is run, whatever the caller writes meanwhile.
    content = bytearray(len(found))
    try:
        found.read_into(memoryview(content))
    except OSError as error:
        field = f"inputs[{brief(name)}]"
        raise ModelhostError(Reason.REGION_INVALID, f"{field}: {error.strerror}", field=field) from error
    return tensor._replace(data=content)
