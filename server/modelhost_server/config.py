"""The server's configuration: command line over environment (MODELHOST_*) over a TOML file over defaults."""

from __future__ import annotations

import os
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from .hosting.cleaning import FILES
from .sandbox.rights import Rights, missing
from .sources.remotes import check_prefix
from .sources.sources import UPLOADS
from .store.records import ScopeConfig
from .transport.base import TransportName, TransportOptions
from .transport.tls import TlsFiles

_DEFAULTS = ScopeConfig()


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


# A variable of the environment has them with commas between them.
_Texts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
_Paths = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_split)]
_Prefixes = Annotated[tuple[Annotated[str, AfterValidator(check_prefix)], ...], NoDecode, BeforeValidator(_split)]


class ServerConfig(BaseSettings):
    """What the server can be told."""

    model_config = SettingsConfigDict(env_prefix="MODELHOST_", extra="forbid", frozen=True)

    listen: _Texts = Field(
        ("127.0.0.1:8500",), min_length=1, description="addresses to listen on: HOST:PORT, or unix:PATH"
    )
    rest: str | None = Field(None, description="address of the REST APIs: HOST:PORT, or unix:PATH")
    server_name: str = Field("modelhost", description="what Open Inference clients are told of the server's name")
    transport: TransportName = Field("grpcio", description="what speaks HTTP/2 and gRPC")
    server_processes: int = Field(1, ge=1, le=64, description="processes that speak gRPC, on the same ports")
    insecure: bool = Field(False, description="be reached from other machines without TLS, or without authentication")
    tls_certificate: Path | None = Field(None, description="PEM certificate chain of the TCP listeners")
    tls_key: Path | None = Field(None, description="PEM key of that certificate")
    tls_client_ca: Path | None = Field(None, description="PEM authorities; only clients they vouch for are let in")
    access: Path | None = Field(None, description="access file; only callers that it knows are answered")
    max_receive_bytes: int = Field(64 << 20, ge=1 << 10, le=(1 << 31) - 1, description="largest request, in bytes")
    max_send_bytes: int = Field(-1, ge=-1, description="largest response, in bytes; -1 for no limit")
    max_metadata_bytes: int = Field(16 << 10, ge=4 << 10, le=1 << 20, description="largest headers of a call, in bytes")
    max_streams: int = Field(1000, ge=1, le=1_000_000, description="calls under way on one connection; more wait")
    max_connections: int = Field(4096, ge=1, le=1_000_000, description="connections at the same time, a process")
    caller_rate_limit: float = Field(
        0.0, ge=0, le=1e6, description="predictions a second of one caller in a scope; 0 for no limit"
    )
    max_calls_per_caller: int = Field(0, ge=0, description="calls under way of one caller; 0 for no limit")
    slow_reader_seconds: float = Field(
        60.0, gt=0, le=86_400, description="a stream whose reader takes nothing for so long ends, in seconds"
    )
    drain_seconds: float = Field(30.0, ge=0, le=3600, description="time for calls under way at shutdown, in seconds")
    data_dir: Path | None = Field(
        None, description="where is kept what callers were told; without it, nothing outlives the server"
    )
    accept_lost_journal: str = Field("", description="name of a corrupt journal in `data_dir` to go on without")
    cache_dir: Path = Field(
        default_factory=lambda: Path("~/.cache/modelhost").expanduser(),
        description="where converted models and weights are kept",
    )
    cache_limit_bytes: int = Field(
        20 << 30, ge=0, description="what the cache may grow to; the least recently used goes first"
    )
    upload_limit_bytes: int = Field(
        20 << 30, ge=1, description="what an upload may have, unpacked, and those together that no version uses"
    )
    remote_sources: _Prefixes = Field(
        (), description="what URIs of remote sources must begin with; `none` for no remote sources"
    )
    intra_op_threads: int = Field(_DEFAULTS.intra_op_threads, ge=1, le=1024)
    inter_op_threads: int = Field(_DEFAULTS.inter_op_threads, ge=1, le=1024)
    max_in_flight: int = Field(_DEFAULTS.max_in_flight, ge=1, le=1024)
    max_queue: int = Field(_DEFAULTS.max_queue, ge=1, le=1_000_000)
    memory_limit_bytes: int = Field(0, ge=0, description="private memory of all workers together; 0 for no limit")
    tuning: bool = Field(True, description="look for a faster engine for each version, in idle time")
    shared_memory: Literal["auto", "on", "off"] = Field(
        "auto", description="tensors in memory shared with callers; auto: when `listen` and `rest` are local"
    )
    sandbox: Literal["auto", "on", "off"] = Field(
        "auto", description="what processes that run models may do; on: the server does not start without a sandbox"
    )
    model_root: _Paths = Field((), description="directories below which callers' local paths must be")
    model_name: str = Field("default", description="name of the model in `model_base_path`: MODEL or SCOPE/MODEL")
    model_base_path: Path | None = Field(None, description="directory of the versions of one model to host")
    model_config_file: Path | None = Field(None, description="ModelServerConfig of the models to host, as text")
    model_config_file_poll_wait_seconds: float = Field(
        0, ge=0, description="time between two readings of `model_config_file`, in seconds; 0 to read it once"
    )
    file_system_poll_wait_seconds: float = Field(
        1, description="time between two looks at a model's directory; 0 to look once, less to never look"
    )
    allow_version_labels_for_unavailable_models: bool = Field(
        False, description="in a reload, let labels wait for versions that are not available yet"
    )
    model_repository: Path | None = Field(None, description="directory of models in Triton's layout, to host")
    model_control_mode: Literal["none", "poll", "explicit"] = Field(
        "none",
        description="what of `model_repository` is hosted: what is there at the start, what is there at any time, or "
        "`load_model` and what callers load",
    )
    load_model: _Texts = Field((), description="in explicit mode, models to load at the start; a single * for all")
    repository_poll_secs: float = Field(
        15, gt=0, le=86_400, description="in poll mode, time between two looks at `model_repository`, in seconds"
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_json: bool = False

    @model_validator(mode="after")
    def _whole_tls(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key: expected both or neither")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca: expected with tls_certificate and tls_key; got it alone")
        return self

    @model_validator(mode="after")
    def _secure(self) -> Self:
        if self.insecure:
            return self
        lacks = [] if self.tls_certificate is not None else ["without TLS"]
        if self.access is None and self.tls_client_ca is None:
            lacks.append("without authentication")
        for address in (*self.listen, *([self.rest] if self.rest else [])):
            if lacks and not _is_local(address):
                raise ValueError(
                    f"{address} can be reached from other machines, {' and '.join(lacks)}: give tls_certificate and "
                    "tls_key, and access (or tls_client_ca); or listen on 127.0.0.1 or unix:PATH; or say insecure, "
                    "where the network keeps strangers out"
                )
        return self

    @model_validator(mode="after")
    def _whole_sandbox(self) -> Self:
        if self.sandbox == "on" and (lacks := missing()):
            raise ValueError(f"sandbox: this machine has no {' and no '.join(lacks)}")
        return self

    @model_validator(mode="after")
    def _ports_to_share(self) -> Self:
        if self.server_processes > 1 and all(address.startswith("unix:") for address in self.listen):
            raise ValueError("server_processes: expected a HOST:PORT that processes can share; got Unix sockets only")
        return self

    @model_validator(mode="after")
    def _whole_model(self) -> Self:
        if "model_name" in self.model_fields_set and self.model_base_path is None and self.model_config_file is None:
            raise ValueError("model_name: expected model_base_path, too; got it alone")
        return self

    @model_validator(mode="after")
    def _whole_repository(self) -> Self:
        given = self.model_fields_set & {"model_control_mode", "load_model", "repository_poll_secs"}
        if given and self.model_repository is None:
            raise ValueError(f"{min(given)}: expected model_repository, too; got it alone")
        if self.load_model and self.model_control_mode != "explicit":
            raise ValueError("load_model: expected model_control_mode explicit")
        if "*" in self.load_model and len(self.load_model) > 1:
            raise ValueError("load_model: expected * alone, or names of models; got both")
        return self

    @property
    def transport_options(self) -> TransportOptions:
        """What the transport is told."""
        tls = None
        if self.tls_certificate is not None and self.tls_key is not None:
            tls = TlsFiles(self.tls_certificate, self.tls_key, self.tls_client_ca)
        return TransportOptions(
            self.max_receive_bytes,
            self.max_send_bytes,
            tls,
            reuse_port=self.server_processes > 1,
            max_metadata_bytes=self.max_metadata_bytes,
            max_streams=self.max_streams,
            max_connections=self.max_connections,
            slow_reader_seconds=self.slow_reader_seconds,
            authenticates=self.access is not None,
        )

    @property
    def shares_memory(self) -> bool:
        """Whether callers may share memory with the server."""
        if self.shared_memory == "auto":
            return all(map(_is_local, (*self.listen, *([self.rest] if self.rest else []))))
        return self.shared_memory == "on"

    @property
    def rights(self) -> Rights:
        """What processes that run models may do."""
        # A model config file may name directories at any time.
        is_bounded = bool(self.model_root) or (self.access is not None and self.model_config_file is None)
        named = (self.model_base_path, self.model_repository)
        readable = [*self.model_root, *(path for path in named if path is not None)]
        if self.data_dir is not None:
            # Not the journal, which says what there is in other scopes.
            readable += [self.data_dir / name for name in (*FILES, UPLOADS)]
        return Rights(
            self.sandbox != "off",
            tuple(os.path.realpath(path) for path in readable) if is_bounded else None,
            (os.path.realpath(self.cache_dir),),
        )

    @property
    def scope_defaults(self) -> ScopeConfig:
        """What a scope has where its creator said nothing."""
        return ScopeConfig(
            intra_op_threads=self.intra_op_threads,
            has_chosen_threads="intra_op_threads" in self.model_fields_set,
            inter_op_threads=self.inter_op_threads,
            max_in_flight=self.max_in_flight,
            max_queue=self.max_queue,
            caller_rate_limit=self.caller_rate_limit,
        )


def _is_local(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return address.startswith("unix:") or host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def read_config(file: Path | None, **options: Any) -> ServerConfig:
    """The configuration from a TOML file, the environment, and the options that are not None.

    Raises:
        pydantic.ValidationError: names each setting at fault, what was expected and what came.
        OSError, tomllib.TOMLDecodeError: the file cannot be read.
    """

    class FromFile(ServerConfig):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (init_settings, env_settings, *([TomlConfigSettingsSource(settings_cls, file)] if file else []))

    return FromFile(**{name: value for name, value in options.items() if value is not None})
