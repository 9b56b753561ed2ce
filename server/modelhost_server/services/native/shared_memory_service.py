"""SharedMemoryService of modelhost.v1."""

from __future__ import annotations

from modelhost.v1 import shared_memory_service_pb2 as pb

from ...hosting.host import Host
from ..call import Call


class SharedMemoryService:
    """Lets callers on this machine give and take tensors in shared memory."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def register_region(self, request: pb.RegisterRegionRequest, call: Call) -> pb.RegisterRegionResponse:
        """Makes a region known."""
        self._host.draining.check_accepting()
        self._host.regions.of(call.owner).register(request.region, request.file_name, request.byte_size)
        return pb.RegisterRegionResponse()

    async def unregister_region(self, request: pb.UnregisterRegionRequest, call: Call) -> pb.UnregisterRegionResponse:
        """Forgets a region."""
        self._host.regions.of(call.owner).unregister(request.region, request.allow_missing)
        return pb.UnregisterRegionResponse()

    async def list_regions(self, request: pb.ListRegionsRequest, call: Call) -> pb.ListRegionsResponse:
        """Lists the regions."""
        regions, token = self._host.regions.of(call.owner).list(request.page_size, request.page_token)
        return pb.ListRegionsResponse(
            regions=[pb.Region(region=region.name, byte_size=region.byte_size) for region in regions],
            next_page_token=token,
        )
