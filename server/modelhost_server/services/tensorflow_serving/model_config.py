"""What a server is to host, as TensorFlow Serving's ModelServerConfig says it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from ...compat import serving_model_config_pb2 as pb
from ...errors import Code, ModelhostError
from ...repositories.model_directory import ModelDirectory
from ...repositories.policy import policy_of
from ...sources.local import local_path
from ...store.names import check_label, check_name
from ...store.phases import SERVED
from ...store.store import Store
from ..names import model_name, scope_and_model
from .errors import error, invalid

_PLATFORM = "tensorflow"


def directories(config: pb.ModelConfigList) -> list[ModelDirectory]:
    """The directories to follow; all are checked before any is answered.

    Raises:
        ForeignError, ModelhostError: the config is not right.
    """
    places = set()
    for model in config.config:
        # "default/m" is "m".
        place = scope_and_model(model.name)
        if place in places:
            raise invalid(f"Illegal to list model {model.name} multiple times in config list")
        places.add(place)
    base_paths = [_base_path(model) for model in config.config]
    return [_directory(model, base_path) for model, base_path in zip(config.config, base_paths, strict=True)]


def one_model(name: str, base_path: Path) -> ModelDirectory:
    """The directory of a single model.

    Raises:
        ModelhostError: INVALID_NAME.
    """
    scope, model = scope_and_model(name)
    return ModelDirectory(check_name("scope", scope), check_name("model", model), str(base_path.absolute()))


def _directory(model: pb.ModelConfig, base_path: str) -> ModelDirectory:
    scope, name = scope_and_model(model.name)
    check_name("scope", scope)
    check_name("model", name)
    for label in model.version_labels:
        check_label(label)
    _check_platform(model)
    return ModelDirectory(scope, name, base_path, policy_of(model.model_version_policy), dict(model.version_labels))


def _base_path(model: pb.ModelConfig) -> str:
    if not model.base_path.startswith(("/", "file:")) and "://" not in model.base_path:
        raise invalid(f"Expected model {model.name} to have an absolute path or URI; got base_path()={model.base_path}")
    try:
        return str(local_path(model.base_path))
    except ModelhostError as ours:
        raise invalid(f"Model {model.name}: base_path: {ours.message}") from None


def _check_platform(model: pb.ModelConfig) -> None:
    # The type is how it was said before there were platforms.
    if model.model_type and model.model_platform:
        raise invalid(
            "Illegal setting both ModelServerConfig::model_type (deprecated) and ModelServerConfig::model_platform."
        )
    if model.model_type not in (pb.MODEL_TYPE_UNSPECIFIED, pb.TENSORFLOW):
        raise invalid(f"ModelServerConfig::model_type choice {model.model_type} not supported.")
    if not model.model_type and not model.model_platform:
        raise invalid(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform."
        )
    if not model.model_type and model.model_platform != _PLATFORM:
        raise invalid(f"Model {model.name} requests unsupported platform {model.model_platform}")


def check_labels(wanted: Iterable[ModelDirectory], store: Store, allow_unavailable: bool) -> None:
    """Checks that labels are to be on versions that serve.

    Args:
        wanted: what is to be hosted.
        store: what is hosted.
        allow_unavailable: a label that is on no other version may wait for its version.

    Raises:
        ForeignError: a label is to be on another version.
    """
    for directory in wanted:
        try:
            model = store.model(*directory.key)
        except ModelhostError:
            labels: Mapping[str, int] = {}
            available = set()
        else:
            labels = model.labels
            available = {n for n, version in model.versions.items() if version.phase in SERVED}
        for label, number in directory.labels.items():
            may_wait = allow_unavailable and labels.get(label, number) == number
            if number not in available and not may_wait:
                raise error(
                    Code.FAILED_PRECONDITION,
                    f"Request to assign label to version {number} of model {model_name(*directory.key)}, which is not "
                    "currently available for inference",
                )
