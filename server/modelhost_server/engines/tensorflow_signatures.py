"""Reads saved_model.pb: the MetaGraph asked for, and the signatures that callers can use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from ..compat import saved_model_pb2 as pb
from ..errors import ModelhostError, Reason, brief
from ..tensors import ITEMSIZE, SignatureSpec, TensorSpec

DEFAULT_TAGS = ("serve",)
# Signatures that exporters add for loaders, not for callers.
_INTERNAL_SIGNATURES = frozenset({"__saved_model_init_op", "__saved_model_train_op"})
# DataType numbers from here on are TensorFlow 1's reference types.
REF_DTYPE = 100


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a signature's input or output is in the graph."""

    spec: TensorSpec
    tensor: str
    default: pb.TensorProto | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A signature with its places in the graph."""

    spec: SignatureSpec
    inputs: tuple[Endpoint, ...]
    outputs: tuple[Endpoint, ...]

    @property
    def tensors(self) -> list[str]:
        """The tensors of all inputs and outputs."""
        return [endpoint.tensor for endpoint in (*self.inputs, *self.outputs)]


def read_meta_graph(path: str, tags: Sequence[str]) -> pb.MetaGraphDef:
    """The MetaGraph with these tags, of a SavedModel directory.

    Raises:
        ModelhostError: SOURCE_NOT_FOUND, SOURCE_INVALID or SOURCE_UNSUPPORTED.
    """
    folder = Path(path)
    file = folder / "saved_model.pb"
    if not file.exists():
        if (folder / "saved_model.pbtxt").is_file():
            raise ModelhostError(
                Reason.SOURCE_UNSUPPORTED, "a SavedModel in text form (saved_model.pbtxt); save it as saved_model.pb"
            )
        raise ModelhostError(
            Reason.SOURCE_INVALID,
            "not a SavedModel: the directory has no saved_model.pb, nor a sub-directory named by a version number "
            "that has one",
        )
    if not file.is_file():
        # To read a pipe would be to wait for ever.
        raise ModelhostError(Reason.SOURCE_INVALID, "saved_model.pb cannot be read: it is not a regular file")
    try:
        saved_model = pb.SavedModel.FromString(file.read_bytes())
    except DecodeError:
        raise ModelhostError(Reason.SOURCE_INVALID, "saved_model.pb is truncated or corrupt") from None
    except OSError as error:
        raise ModelhostError(Reason.SOURCE_INVALID, f"saved_model.pb cannot be read: {error.strerror}") from None
    wanted = set(tags or DEFAULT_TAGS)
    for meta_graph in saved_model.meta_graphs:
        if set(meta_graph.meta_info_def.tags) == wanted:
            return meta_graph
    there = ", ".join(str(sorted(m.meta_info_def.tags)) for m in saved_model.meta_graphs) or "none"
    raise ModelhostError(
        Reason.SOURCE_INVALID, f"no MetaGraph with the tags {brief(sorted(wanted))}; the SavedModel has: {there}"
    )


def shape_of(shape: pb.TensorShapeProto) -> tuple[int, ...] | None:
    """A shape as specs have it: None for an unknown rank, -1 for an open extent."""
    return None if shape.unknown_rank else tuple(dim.size for dim in shape.dim)


def read_entries(meta_graph: pb.MetaGraphDef) -> list[Entry]:
    """The signatures a caller can use, in alphabetical order.

    Raises:
        ModelhostError: SOURCE_INVALID when there is none, SOURCE_UNSUPPORTED when none can be served.
    """
    placeholders_with_default = {n.name for n in meta_graph.graph_def.node if n.op == "PlaceholderWithDefault"}
    entries, refused = [], []
    for name, definition in sorted(meta_graph.signature_def.items()):
        if name in _INTERNAL_SIGNATURES or not definition.outputs:
            continue
        try:
            inputs = tuple(
                _endpoint(key, info, definition.defaults, placeholders_with_default)
                for key, info in sorted(definition.inputs.items())
            )
            outputs = tuple(_endpoint(key, info, {}, ()) for key, info in sorted(definition.outputs.items()))
        except ModelhostError as error:
            # One signature that cannot be served is no reason to refuse the others.
            refused.append(ModelhostError(error.reason, f"signature {brief(name)}: {error.message}"))
            continue
        spec = SignatureSpec(
            name, tuple(e.spec for e in inputs), tuple(e.spec for e in outputs), definition.method_name
        )
        entries.append(Entry(spec, inputs, outputs))
    if not entries and refused:
        raise refused[0]
    if not entries:
        raise ModelhostError(
            Reason.SOURCE_INVALID,
            "the SavedModel has no signatures; give tf.saved_model.save a `signatures` argument, "
            "or use model.export of Keras",
        )
    return entries


def _endpoint(
    name: str, info: pb.TensorInfo, defaults: Mapping[str, pb.TensorProto], optional_nodes: Iterable[str]
) -> Endpoint:
    kind = info.WhichOneof("encoding")
    if kind != "name":
        raise ModelhostError(
            Reason.SOURCE_UNSUPPORTED, f"{brief(name)} is a {kind} tensor; only dense tensors can be served"
        )
    dtype = info.dtype % REF_DTYPE
    if dtype not in ITEMSIZE:
        raise ModelhostError(
            Reason.SOURCE_UNSUPPORTED, f"{brief(name)} has TensorFlow's dtype number {dtype}, which cannot be served"
        )
    default = defaults.get(name)
    optional = default is not None or info.name.partition(":")[0] in optional_nodes
    return Endpoint(TensorSpec(name, dtype, shape_of(info.tensor_shape), optional), info.name, default)
