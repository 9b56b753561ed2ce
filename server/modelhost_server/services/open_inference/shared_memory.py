"""Shared memory of the Open Inference Protocol, as Triton extends it. There are no GPUs here, so none of CUDA's."""

from __future__ import annotations

from ...compat import open_inference_pb2 as pb
from ...errors import Code, ForeignError
from ...hosting.host import Host
from ...hosting.regions import ByOwner
from ..call import Call
from .errors import quoted
from .regions import SystemRegions, cannot_open


class SharedMemoryHandler:
    """Makes shared memory known and forgets it."""

    def __init__(self, host: Host, regions: ByOwner[SystemRegions]) -> None:
        self._host = host
        self._regions = regions

    async def system_shared_memory_status(
        self, request: pb.SystemSharedMemoryStatusRequest, call: Call
    ) -> pb.SystemSharedMemoryStatusResponse:
        """Lists the regions."""
        response = pb.SystemSharedMemoryStatusResponse()
        for region in self._regions.of(call.owner).list(request.name):
            response.regions[region.name].CopyFrom(
                response.RegionStatus(name=region.name, key=region.key, offset=region.start, byte_size=region.byte_size)
            )
        return response

    async def system_shared_memory_register(
        self, request: pb.SystemSharedMemoryRegisterRequest, call: Call
    ) -> pb.SystemSharedMemoryRegisterResponse:
        """Makes a region known."""
        self._host.draining.check_accepting()
        self._host.regions.of(call.owner).check_enabled()
        own = self._regions.of(call.owner)
        # Objects have names that can be guessed: what is another one's is not to be had by its name.
        if any(registry.has_object(request.key) for registry in self._regions.all() if registry is not own):
            raise cannot_open(request.key)
        own.register(request.name, request.key, request.offset, request.byte_size)
        return pb.SystemSharedMemoryRegisterResponse()

    async def system_shared_memory_unregister(
        self, request: pb.SystemSharedMemoryUnregisterRequest, call: Call
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        """Forgets a region, or all."""
        self._regions.of(call.owner).unregister(request.name)
        return pb.SystemSharedMemoryUnregisterResponse()

    async def cuda_shared_memory_status(
        self, request: pb.CudaSharedMemoryStatusRequest, call: Call
    ) -> pb.CudaSharedMemoryStatusResponse:
        """There is none."""
        if request.name:
            raise ForeignError(Code.NOT_FOUND, f"Unable to find cuda shared memory region: {quoted(request.name)}")
        return pb.CudaSharedMemoryStatusResponse()

    async def cuda_shared_memory_register(
        self, request: pb.CudaSharedMemoryRegisterRequest, call: Call
    ) -> pb.CudaSharedMemoryRegisterResponse:
        """Refuses."""
        raise ForeignError(
            Code.INVALID_ARGUMENT,
            f"failed to register CUDA shared memory region: {quoted(request.name)}, GPUs not supported",
        )

    async def cuda_shared_memory_unregister(
        self, request: pb.CudaSharedMemoryUnregisterRequest, call: Call
    ) -> pb.CudaSharedMemoryUnregisterResponse:
        """There is nothing to forget: clients call this before they begin."""
        return pb.CudaSharedMemoryUnregisterResponse()
