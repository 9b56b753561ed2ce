"""The services of tensorflow.serving."""

from __future__ import annotations

from ...compat import serving_model_service_pb2, serving_prediction_service_pb2
from ...hosting.host import Host
from ...repositories.followers import Followers
from ..call import Service
from .errors import translate
from .examples import Examples
from .kept_config import KeptConfig
from .metadata import Metadata
from .model_service import ModelService
from .predict import Predict
from .rules import MODEL_RULES, PREDICTION_RULES


def tensorflow_serving_services(
    host: Host, followers: Followers, kept_config: KeptConfig, labels_may_wait: bool
) -> list[Service]:
    """All of them."""
    prediction = serving_prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"]
    models = serving_model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]
    return [
        Service(prediction, [Predict(host), Examples(host), Metadata(host)], PREDICTION_RULES, translate),
        Service(models, [ModelService(host, followers, kept_config, labels_may_wait)], MODEL_RULES, translate),
    ]
