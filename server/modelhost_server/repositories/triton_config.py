"""Triton's description of a model, in config.pbtxt or as JSON: what it says, and what of it takes effect here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf import json_format, text_format

from ..compat.model_config_pb2 import ModelConfig, ModelDynamicBatching, ModelInput, ModelQueuePolicy
from ..errors import Code, ForeignError, brief
from ..store.records import BatchingOptions, Description, LoadOptions

FILE_NAME = "config.pbtxt"
SAVED_MODEL = "model.savedmodel"
_PLATFORM, _BACKEND = "tensorflow_savedmodel", "tensorflow"
_MAX_BATCH = 1 << 20
_MAX_SECONDS = 3600.0


def read_text(text: str) -> ModelConfig:
    """The description in a config.pbtxt. What a newer Triton has besides is passed over.

    Raises:
        ForeignError: INVALID_ARGUMENT.
    """
    try:
        return text_format.Parse(text, ModelConfig(), allow_unknown_field=True)
    except (text_format.ParseError, ValueError, RecursionError) as error:
        raise _invalid(f"failed to read text proto from {FILE_NAME}: {brief(str(error), 200)}") from None


def read_json(text: str) -> ModelConfig:
    """The description in a request.

    Raises:
        ForeignError: INVALID_ARGUMENT.
    """
    if not text.lstrip().startswith("{"):
        raise _invalid(f"Invalid config override: expected an object; got {brief(text)}")
    try:
        return json_format.Parse(text, ModelConfig(), ignore_unknown_fields=True)
    except (json_format.ParseError, ValueError, RecursionError) as error:
        raise _invalid(f"Invalid config override: {brief(str(error), 200)}") from None


def check_config(name: str, config: ModelConfig) -> None:
    """Checks that a description is one of this model, and of one that can be served.

    Raises:
        ForeignError: INVALID_ARGUMENT, UNIMPLEMENTED.
    """
    if config.name not in ("", name):
        raise _invalid(
            f"unexpected directory name '{name}' for model {brief(config.name)}, directory name must equal model name"
        )
    if config.platform not in ("", _PLATFORM) or config.backend not in ("", _BACKEND):
        raise _unsupported(
            f"model '{name}': this server runs SavedModels, platform '{_PLATFORM}' or backend '{_BACKEND}'; "
            f"got platform {brief(config.platform)}, backend {brief(config.backend)}"
        )
    scheduling = config.WhichOneof("scheduling_choice")
    if scheduling not in (None, "dynamic_batching"):
        raise _unsupported(f"model '{name}': {scheduling} is not supported; models here have no state between requests")
    if config.model_transaction_policy.decoupled:
        raise _unsupported(f"model '{name}': a request has one response here; decoupled models are not supported")
    signature = config.parameters["TF_SIGNATURE_DEF"].string_value if "TF_SIGNATURE_DEF" in config.parameters else ""
    if signature not in ("", "serving_default"):
        raise _unsupported(
            f"model '{name}': the signature 'serving_default' is served; got TF_SIGNATURE_DEF {brief(signature)}"
        )
    _check_plain(name, "default_model_filename", config.default_model_filename)
    for label_file in label_files(config).values():
        _check_plain(name, "label_filename", label_file)
    for tensor in config.input:
        if tensor.format not in ModelInput.Format.values():
            raise _invalid(f"model '{name}': input {brief(tensor.name)}: there is no format {tensor.format}")
    if not 0 <= config.max_batch_size <= _MAX_BATCH:
        raise _invalid(f"'max_batch_size' must be non-negative value for {name}, at most {_MAX_BATCH}")
    for size in config.dynamic_batching.preferred_batch_size:
        if size <= 0:
            raise _invalid(f"dynamic batching preferred size must be positive for {name}")
        if size > config.max_batch_size:
            raise _invalid(f"dynamic batching preferred size must be <= max batch size for {name}")


def _check_plain(name: str, field: str, file_name: str) -> None:
    if file_name in (".", "..") or "/" in file_name or "\0" in file_name or len(file_name) > 255:
        raise _invalid(f"model '{name}': {field}: expected a plain name; got {brief(file_name)}")


def description(config: ModelConfig, labels: Mapping[str, Sequence[bytes]]) -> Description:
    """What it says of tensors; `labels` are what is in the files that it names."""
    formats = {tensor.name: ModelInput.Format.Name(tensor.format) for tensor in config.input if tensor.format}
    return Description(formats, label_files(config), labels)


def label_files(config: ModelConfig) -> dict[str, str]:
    """Where the labels of outputs are, by the outputs' names."""
    return {tensor.name: tensor.label_filename for tensor in config.output if tensor.label_filename}


def load_options(config: ModelConfig) -> LoadOptions:
    """How versions are to be loaded."""
    tag = config.parameters["TF_GRAPH_TAG"].string_value if "TF_GRAPH_TAG" in config.parameters else ""
    return LoadOptions(tags=(tag,) if tag else (), batching=batching_options(config))


def batching_options(config: ModelConfig) -> BatchingOptions:
    """How requests are to run together. Preferred sizes are not in it: how many pays is learnt."""
    if not config.HasField("dynamic_batching") or config.max_batch_size <= 1:
        return BatchingOptions(max_batch_size=config.max_batch_size)
    batching: ModelDynamicBatching = config.dynamic_batching
    queue = batching.default_queue_policy
    rejects = queue.timeout_action == ModelQueuePolicy.REJECT
    return BatchingOptions(
        mode="ON",
        max_batch_size=config.max_batch_size,
        max_delay=_seconds(batching.max_queue_delay_microseconds),
        max_queue=queue.max_queue_size,
        queue_timeout=_seconds(queue.default_timeout_microseconds) if rejects else 0.0,
    )


def _seconds(microseconds: int) -> float:
    return min(microseconds / 1e6, _MAX_SECONDS)


def _invalid(message: str) -> ForeignError:
    return ForeignError(Code.INVALID_ARGUMENT, message)


def _unsupported(message: str) -> ForeignError:
    return ForeignError(Code.UNIMPLEMENTED, message)
