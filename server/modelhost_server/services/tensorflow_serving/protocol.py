"""The services of tensorflow.serving."""

from __future__ import annotations

from ...hosting.host import Host
from ..call import Service


def tensorflow_serving_services(host: Host) -> list[Service]:
    """All of them."""
    return []
