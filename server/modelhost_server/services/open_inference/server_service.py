"""What GRPCInferenceService tells of the server and its models."""

from __future__ import annotations

from ...compat import open_inference_pb2 as pb
from ...hosting.host import Host
from ..call import Call
from .configuration import model_config
from .metadata import EXTENSIONS, TensorMetadata, model_metadata, server_version
from .models import is_ready
from .statistics import ModelStatistics, model_statistics


class ServerHandler:
    """Tells of the server and its models.

    Args:
        host: has the models.
        name: the server's, as some clients insist on one.
    """

    def __init__(self, host: Host, name: str) -> None:
        self._host = host
        self._name = name

    async def server_live(self, request: pb.ServerLiveRequest, call: Call) -> pb.ServerLiveResponse:
        """Whether the server answers at all."""
        return pb.ServerLiveResponse(live=True)

    async def server_ready(self, request: pb.ServerReadyRequest, call: Call) -> pb.ServerReadyResponse:
        """Whether the server takes requests."""
        return pb.ServerReadyResponse(ready=not self._host.draining.has_begun)

    async def server_metadata(self, request: pb.ServerMetadataRequest, call: Call) -> pb.ServerMetadataResponse:
        """What the server is."""
        return pb.ServerMetadataResponse(name=self._name, version=server_version(), extensions=EXTENSIONS)

    async def model_ready(self, request: pb.ModelReadyRequest, call: Call) -> pb.ModelReadyResponse:
        """Whether a model takes requests; one that is unknown does not."""
        return pb.ModelReadyResponse(ready=is_ready(self._host, request.name, request.version))

    async def model_metadata(self, request: pb.ModelMetadataRequest, call: Call) -> pb.ModelMetadataResponse:
        """What a model takes and gives."""
        found = await model_metadata(self._host, request.name, request.version)
        return pb.ModelMetadataResponse(
            name=found.name, versions=found.versions, platform=found.platform,
            inputs=map(_tensor_message, found.inputs), outputs=map(_tensor_message, found.outputs),
        )  # fmt: skip

    async def model_config(self, request: pb.ModelConfigRequest, call: Call) -> pb.ModelConfigResponse:
        """A model's configuration."""
        return pb.ModelConfigResponse(config=await model_config(self._host, request.name, request.version))

    async def model_statistics(self, request: pb.ModelStatisticsRequest, call: Call) -> pb.ModelStatisticsResponse:
        """What has been asked of models."""
        found = model_statistics(self._host, request.name, request.version, call.sees)
        return pb.ModelStatisticsResponse(model_stats=map(_statistics_message, found))


def _tensor_message(tensor: TensorMetadata) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)


def _statistics_message(statistics: ModelStatistics) -> pb.ModelStatistics:
    durations = {
        name: pb.StatisticDuration(count=duration.count, ns=duration.ns)
        for name, duration in statistics.durations.items()
    }
    return pb.ModelStatistics(
        name=statistics.name,
        version=statistics.version,
        last_inference=statistics.last_inference,
        inference_count=statistics.inference_count,
        execution_count=statistics.execution_count,
        inference_stats=pb.InferStatistics(**durations),
        memory_usage=[pb.MemoryUsage(type="CPU", byte_size=statistics.byte_size)],
    )
