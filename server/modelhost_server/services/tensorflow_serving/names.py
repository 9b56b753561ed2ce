"""What requests name: a ModelSpec, without protobuf."""

from __future__ import annotations

from typing import NamedTuple

from ...compat import serving_predict_pb2 as pb
from ...hosting.checks import DEFAULT_SIGNATURE
from ..names import scope_and_model


class Target(NamedTuple):
    """A version of a model, and a signature of it.

    Attributes:
        name: "model" or "scope/model".
        version: its number; None when it is not named.
        label: its label; None when it is not named. Both None: the newest available one.
        signature: its name; "" for the default.
    """

    name: str
    version: int | None = None
    label: str | None = None
    signature: str = ""

    @property
    def place(self) -> tuple[str, str]:
        """Scope and model."""
        return scope_and_model(self.name)

    @property
    def signature_name(self) -> str:
        """The signature's name."""
        return self.signature or DEFAULT_SIGNATURE


def target_of(spec: pb.ModelSpec) -> Target:
    """What a ModelSpec names."""
    choice = spec.WhichOneof("version_choice")
    return Target(
        spec.name,
        spec.version.value if choice == "version" else None,
        spec.version_label if choice == "version_label" else None,
        spec.signature_name,
    )


def model_spec(name: str, version: int, signature: str = "") -> pb.ModelSpec:
    """What answered, as responses tell it."""
    spec = pb.ModelSpec(name=name, signature_name=signature)
    spec.version.value = version
    return spec
