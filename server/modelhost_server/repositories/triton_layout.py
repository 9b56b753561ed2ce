"""Triton's layout of directories: REPOSITORY/MODEL/[config.pbtxt] and REPOSITORY/MODEL/VERSION/model.savedmodel."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..compat.model_config_pb2 import ModelConfig
from ..errors import Code, ForeignError
from .directory import Look, look, version_paths
from .policy import chosen, policy_of
from .triton_config import FILE_NAME, SAVED_MODEL, check_config, label_files, read_text

_MAX_FILE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Content:
    """What a model's directory says is to be hosted.

    Attributes:
        config: its description; empty when it has none.
        paths: of the SavedModels, by the versions' numbers.
        looks: at those.
        labels: of the elements of outputs, by the outputs' names.
    """

    config: ModelConfig
    paths: Mapping[int, str]
    looks: Mapping[int, Look]
    labels: Mapping[str, Sequence[bytes]]


def model_names(repository: Path) -> list[str]:
    """The models of a repository: its directories.

    Raises:
        OSError: it cannot be read.
    """
    with os.scandir(repository) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    # Nobody can ask for a name that is no text, nor be told of it.
    return [name for name in names if name.isprintable()]


def read_directory(name: str, directory: Path, config: ModelConfig | None = None) -> Content:
    """Reads a model's directory. Called on a thread.

    Args:
        name: of the model.
        directory: of the model.
        config: to be used instead of the one in the directory.

    Raises:
        ForeignError: INVALID_ARGUMENT, UNIMPLEMENTED.
        OSError: it cannot be read.
    """
    config = config or _read_config(directory)
    check_config(name, config)
    found = version_paths(str(directory))
    numbers = wanted_versions(name, config, found)
    paths = {number: _saved_model(Path(found[number]), config.default_model_filename) for number in numbers}
    labels = {output: _read_labels(directory / file) for output, file in label_files(config).items()}
    return Content(config, paths, {number: look(path) for number, path in paths.items()}, labels)


def wanted_versions(name: str, config: ModelConfig, found: Collection[int]) -> set[int]:
    """Of the versions found, those that a description says are to be hosted.

    Raises:
        ForeignError: INVALID_ARGUMENT when that is none.
    """
    numbers = chosen(policy_of(config.version_policy), found)
    if not numbers:
        raise ForeignError(
            Code.INVALID_ARGUMENT,
            f"at least one version must be available under the version policy of model '{name}'",
        )
    return numbers


def _read_config(directory: Path) -> ModelConfig:
    file = directory / FILE_NAME
    if not file.is_file():
        return ModelConfig()
    if file.stat().st_size > _MAX_FILE_BYTES:
        raise ForeignError(Code.INVALID_ARGUMENT, f"failed to read text proto from {FILE_NAME}: it is too large")
    try:
        return read_text(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise ForeignError(
            Code.INVALID_ARGUMENT, f"failed to read text proto from {FILE_NAME}: it is not UTF-8"
        ) from None


def _read_labels(file: Path) -> list[bytes]:
    """One a line."""
    if file.stat().st_size > _MAX_FILE_BYTES:
        raise ForeignError(Code.INVALID_ARGUMENT, f"the labels in {file.name} are too many")
    return file.read_bytes().splitlines()


def _saved_model(directory: Path, file_name: str) -> str:
    """The SavedModel of a version; that is the version's directory itself where it lies there."""
    usual = directory / (file_name or SAVED_MODEL)
    return str(directory if not file_name and not usual.exists() else usual)
