"""PredictionService's GetModelMetadata: the signatures of a version."""

from __future__ import annotations

from collections.abc import Iterable

from ...compat import serving_prediction_service_pb2 as pb
from ...compat import signature_pb2, tensor_pb2
from ...hosting.host import Host
from ...tensors import SignatureSpec, TensorSpec
from ..call import Call, foreign_name
from .errors import invalid
from .names import model_spec, target_of
from .prediction import acquired

SIGNATURE_DEF = "signature_def"


class Metadata:
    """Tells what models take and give."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def get_model_metadata(self, request: pb.GetModelMetadataRequest, call: Call) -> pb.GetModelMetadataResponse:
        """The signatures of a version; there is no other metadata."""
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != SIGNATURE_DEF:
                raise invalid(f"Metadata field {field} is not supported")
        async with acquired(self._host, target_of(request.model_spec)) as version:
            assert version.loaded is not None, "what it takes is known"
            signatures = signature_def_map(version.loaded.signatures)
            response = pb.GetModelMetadataResponse(model_spec=model_spec(request.model_spec.name, version.number))
        metadata = response.metadata[SIGNATURE_DEF]
        metadata.type_url = f"type.googleapis.com/{foreign_name(signatures.DESCRIPTOR.full_name)}"
        metadata.value = signatures.SerializeToString()
        return response


def signature_def_map(signatures: Iterable[SignatureSpec]) -> pb.SignatureDefMap:
    """Signatures as a message. Those that only loaders use are not among them."""
    return pb.SignatureDefMap(
        signature_def={
            spec.name: signature_pb2.SignatureDef(
                inputs={tensor.name: _tensor_info(tensor) for tensor in spec.inputs},
                outputs={tensor.name: _tensor_info(tensor) for tensor in spec.outputs},
                method_name=spec.method_name,
            )
            for spec in signatures
        }
    )


def _tensor_info(spec: TensorSpec) -> signature_pb2.TensorInfo:
    dims = [tensor_pb2.TensorShapeProto.Dim(size=extent) for extent in spec.shape or ()]
    return signature_pb2.TensorInfo(
        name=spec.tensor or spec.name, dtype=spec.dtype,  # type: ignore[arg-type]
        tensor_shape=tensor_pb2.TensorShapeProto(dim=dims, unknown_rank=spec.shape is None),
    )  # fmt: skip
