"""The services of tensorflow.serving."""

from __future__ import annotations

from ...compat import serving_model_service_pb2
from ...hosting.host import Host
from ...repositories.followers import Followers
from ..call import Service
from .errors import translate
from .model_service import ModelService


def tensorflow_serving_services(host: Host, followers: Followers, labels_may_wait: bool) -> list[Service]:
    """All of them."""
    model_service = ModelService(host, followers, labels_may_wait)
    return [
        Service(serving_model_service_pb2.DESCRIPTOR.services_by_name["ModelService"], [model_service], translate),
    ]
