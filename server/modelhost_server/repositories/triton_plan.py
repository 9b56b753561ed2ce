"""What is to be hosted of a model, in Triton's terms; and Triton's words for why it is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..compat.model_config_pb2 import ModelConfig
from ..errors import Code, ForeignError, ModelhostError
from ..store.records import Description, Loaded, LoadOptions
from .directory import Fingerprint
from .triton_config import batching_options, check_config, description, load_options
from .triton_layout import Content, wanted_versions
from .triton_signature import check_signature

# Scope and model.
Key = tuple[str, str]

# How Triton begins the words for a status.
_STATUS = {
    Code.INVALID_ARGUMENT: "Invalid argument",
    Code.NOT_FOUND: "Not found",
    Code.UNAVAILABLE: "Unavailable",
    Code.UNIMPLEMENTED: "Unsupported",
    Code.ALREADY_EXISTS: "Already exists",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A version that is to be hosted. `fingerprint` is of its files, where they are looked at."""

    source: str
    options: LoadOptions
    description: Description = field(default_factory=Description)
    labels: tuple[str, ...] = field(default=(), compare=False)
    fingerprint: Fingerprint = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be hosted of a model, by version, and what its description is."""

    model: str
    config: ModelConfig
    versions: Mapping[int, Wanted]

    def check(self, loaded: Loaded) -> None:
        """Checks what a worker has loaded.

        Raises:
            ModelhostError: SOURCE_INVALID when it is not what the description says.
        """
        check_signature(self.model, self.config, loaded)


def directory_plan(model: str, found: Content) -> Plan:
    """What a model's directory says."""
    options, said = load_options(found.config), description(found.config, found.labels)
    versions = {
        n: Wanted(path, options, said, fingerprint=found.looks[n].fingerprint) for n, path in found.paths.items()
    }
    return Plan(model, found.config, versions)


def changed_plan(model: str, base: Mapping[int, Wanted], config: ModelConfig | None) -> Plan:
    """Versions from where they were, with another description, if there is one.

    Raises:
        ForeignError: INVALID_ARGUMENT, UNIMPLEMENTED.
    """
    if config is None:
        return Plan(model, ModelConfig(), base)
    check_config(model, config)
    numbers = wanted_versions(model, config, base) if config.HasField("version_policy") else base
    batching, said = batching_options(config), description(config, {})
    return Plan(
        model,
        config,
        {n: replace(base[n], options=replace(base[n].options, batching=batching), description=said) for n in numbers},
    )


def not_polled(name: str, error: ForeignError | OSError | None = None) -> ForeignError:
    """There is no such model, or something is wrong with its directory or description; Triton's log alone says what."""
    message = f"failed to load '{name}', failed to poll from model repository"
    why = error.message if isinstance(error, ForeignError) else (error.strerror or "") if error else ""
    return ForeignError(Code.INTERNAL, f"{message}: {why}" if why else message)


def load_failed(name: str, failures: Mapping[int, ModelhostError]) -> ForeignError:
    """Why the versions of a model could not be loaded."""
    reasons = (f"version {n} is at UNAVAILABLE state: {status_text(failures[n])};" for n in sorted(failures))
    return ForeignError(Code.INVALID_ARGUMENT, f"load failed for model '{name}': {''.join(reasons)}\n")


def status_text(error: ModelhostError) -> str:
    """A failure as Triton writes one into a text."""
    return f"{_STATUS.get(error.reason.code, 'Internal')}: {error.message}"
