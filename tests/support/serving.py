"""Directories of versions, and TensorFlow Serving's ModelService, called by stubs made of our own messages."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
from modelhost_server.compat import serving_model_config_pb2 as config_pb
from modelhost_server.compat import serving_model_service_pb2 as pb

from .calls import eventually

STATE = pb.ModelVersionStatus.State


class ModelServiceStub:
    """The service's methods over a channel."""

    def __init__(self, channel: grpc.Channel) -> None:
        service = "/tensorflow.serving.ModelService/"
        self.GetModelStatus = channel.unary_unary(
            f"{service}GetModelStatus",
            pb.GetModelStatusRequest.SerializeToString,
            pb.GetModelStatusResponse.FromString,
        )
        self.HandleReloadConfigRequest = channel.unary_unary(
            f"{service}HandleReloadConfigRequest",
            pb.ReloadConfigRequest.SerializeToString,
            pb.ReloadConfigResponse.FromString,
        )

    def states(self, name: str, **spec: Any) -> dict[int, str]:
        """The states of a model's versions by number, in the order of the answer; empty where there are none."""
        return {each.version: STATE.Name(each.state) for each in self.statuses(name, **spec)}

    def statuses(self, name: str, **spec: Any) -> Sequence[pb.ModelVersionStatus]:
        """The states, with what is wrong."""
        request = pb.GetModelStatusRequest()
        request.model_spec.name = name
        if "version" in spec:
            request.model_spec.version.value = spec["version"]
        if "label" in spec:
            request.model_spec.version_label = spec["label"]
        try:
            return self.GetModelStatus(request, timeout=10).model_version_status
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND and not spec:
                return []
            raise

    def reload(self, *models: config_pb.ModelConfig, timeout: float = 60) -> pb.ReloadConfigResponse:
        """Has these models hosted, and no others."""
        request = pb.ReloadConfigRequest()
        request.config.model_config_list.config.extend(models)
        # Not to be mistaken for no list at all.
        request.config.model_config_list.SetInParent()
        return self.HandleReloadConfigRequest(request, timeout=timeout)

    def settle(self, name: str, states: dict[int, str]) -> None:
        """Waits for these states, in this order."""
        eventually(lambda: list(self.states(name).items()) == list(states.items()), 20)


def put(models: Path, base: Path, number: int, model: str = "half_plus_two") -> Path:
    """Copies a model to where a version belongs, and has it there at once."""
    shutil.copytree(models / model, base / f".{number}")
    return (base / f".{number}").rename(base / str(number))


def model_config(
    name: str, base_path: Path | str, policy: Mapping[str, Any] | None = None, labels: Mapping[str, int] | None = None,
    platform: str = "tensorflow",
) -> config_pb.ModelConfig:  # fmt: skip
    """A model of a config; `policy` is e.g. {"latest": {"num_versions": 2}}."""
    return config_pb.ModelConfig(
        name=name, base_path=str(base_path), model_platform=platform, model_version_policy=policy or {},
        version_labels=labels or {},
    )  # fmt: skip
