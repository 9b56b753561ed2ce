"""The services of tensorflow.serving."""

from __future__ import annotations

from ...compat import serving_prediction_service_pb2
from ...hosting.host import Host
from ..call import Service
from .errors import translate
from .examples import Examples
from .metadata import Metadata
from .predict import Predict


def tensorflow_serving_services(host: Host) -> list[Service]:
    """All of them."""
    prediction = serving_prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"]
    return [Service(prediction, [Predict(host), Examples(host), Metadata(host)], translate)]
