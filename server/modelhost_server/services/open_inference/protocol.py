"""The services of the Open Inference Protocol."""

from __future__ import annotations

from ...hosting.host import Host
from ..call import Service


def open_inference_services(host: Host) -> list[Service]:
    """All of them."""
    return []
