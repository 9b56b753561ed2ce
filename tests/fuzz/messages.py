"""Requests made from the protos: every field of every message, with names that lead deep into the server."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from .hosted import MODELS, VICTIMS

Strategy = st.SearchStrategy[Any]
_DEPTH = 4
_F = FieldDescriptor
_RANGES = {
    **dict.fromkeys((_F.TYPE_INT32, _F.TYPE_SINT32, _F.TYPE_SFIXED32), (-(2**31), 2**31 - 1)),
    **dict.fromkeys((_F.TYPE_INT64, _F.TYPE_SINT64, _F.TYPE_SFIXED64), (-(2**63), 2**63 - 1)),
    **dict.fromkeys((_F.TYPE_UINT32, _F.TYPE_FIXED32), (0, 2**32 - 1)),
    **dict.fromkeys((_F.TYPE_UINT64, _F.TYPE_FIXED64), (0, 2**64 - 1)),
}
_texts = st.one_of(
    st.sampled_from(["", "a", "..", "a/b", "\0", "n" * 300, "ü無", "%s", "-x", "stable", "serving_default"]), st.text()
)
_bytes = st.one_of(st.binary(max_size=64), st.sampled_from([b"", bytes(4), bytes(8), bytes(1 << 16)]))
_floats = st.one_of(st.floats(), st.sampled_from([0.0, 1.0, -1.0, 1e38]))
# Numbers that make the server take so many processes or threads: as few as show what it does with them.
_COSTLY = {"replicas": 2, "intra_op_threads": 2, "inter_op_threads": 2, "max_in_flight": 4, "max_queue": 8}


def strategies(models: list[str]) -> dict[str, Strategy]:
    """What fields of these names are most of the time; `models` are paths that can be loaded."""
    scopes = st.sampled_from([*VICTIMS, "default", "", "nowhere"])
    names = st.sampled_from([*MODELS, "new", "nothing"])
    both = st.builds("{}/{}".format, scopes, names)
    no_models = [
        "", "/", "relative", "/dev/zero", "/dev/stdin", "/proc/self/mem", "/proc/self/fd/1", "upload:abc", "/\0",
        "http://127.0.0.1:1/m.tflite", "file:///nowhere", "/" + "d/" * 3000,
    ]  # fmt: skip
    return {
        "scope": scopes, "model": names, "name": st.one_of(both, names, st.sampled_from(["x", "y"])),
        "model_name": both, "label": st.sampled_from(["stable", "canary", ""]), "version_label": st.just("stable"),
        "signature": st.sampled_from(["", "serving_default", "float32", "unknown"]),
        "signature_name": st.sampled_from(["", "serving_default", "float32", "unknown"]),
        "source": st.sampled_from(models + no_models), "base_path": st.sampled_from([*models, *no_models[:6]]),
        "samples_file": st.sampled_from(no_models), "tags": st.just("serve"),
        "key": st.sampled_from(["x", "y", "/fuzz"]),
        "datatype": st.sampled_from(["FP32", "INT64", "BYTES", "BOOL", "BF16", "FP8"]),
        "model_version": st.sampled_from(["", "1", "0", "-1", "9" * 30, "x"]),
        "model_platform": st.sampled_from(["tensorflow", "caffe"]),
        "file_by_filename": st.sampled_from(["modelhost/v1/model.proto", "nothing.proto"]),
        "file_containing_symbol": st.sampled_from(["modelhost.v1.ModelService", "inference.GRPCInferenceService"]),
    }  # fmt: skip


class Maker:
    """Makes messages.

    Args:
        by_name: what fields of these names are most of the time.
    """

    def __init__(self, by_name: dict[str, Strategy]) -> None:
        self._by_name = by_name
        self.message = cache(self._message)

    def _message(self, descriptor: Descriptor, depth: int = _DEPTH) -> Strategy:
        cls: Callable[[], Message] = GetMessageClass(descriptor)
        if depth == 0:
            return st.builds(cls)
        fields = {field.name: self._field(field, depth) for field in descriptor.fields}

        def build(values: dict[str, Any]) -> Message:
            message = cls()
            for name, value in values.items():
                _set(message, descriptor.fields_by_name[name], value)
            return message

        return st.fixed_dictionaries({}, optional=fields).map(build)

    def _field(self, field: FieldDescriptor, depth: int) -> Strategy:
        if _is_map(field):
            key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
            return st.dictionaries(self._value(key, depth), self._value(value, depth), max_size=3)
        value = self._value(field, depth)
        return st.lists(value, max_size=4) if field.is_repeated else value

    def _value(self, field: FieldDescriptor, depth: int) -> Strategy:
        if field.message_type is not None:
            return self.message(field.message_type, depth - 1)
        if field.type == _F.TYPE_STRING:
            named = self._by_name.get(field.name)
            return st.one_of(named, named, named, _texts) if named is not None else _texts
        if field.type == _F.TYPE_BYTES:
            return _bytes
        if field.type == _F.TYPE_BOOL:
            return st.booleans()
        if field.type in (_F.TYPE_FLOAT, _F.TYPE_DOUBLE):
            return _floats
        if field.type == _F.TYPE_ENUM:
            numbers = st.sampled_from([value.number for value in field.enum_type.values])
            return st.one_of(numbers, numbers, st.sampled_from([-1, 99, 2**31 - 1]))
        least, most = _RANGES[field.type]
        if field.name in _COSTLY:
            return st.sampled_from([0, 1, _COSTLY[field.name], most, least])
        few = [n for n in (0, 1, 2, 3, 8, -1) if least <= n <= most]
        return st.one_of(st.sampled_from(few), st.sampled_from([least, most]), st.integers(least, most))

    def several(self, descriptor: Descriptor, count: int, seed: int) -> list[Message]:
        """So many messages, or fewer where there are no more."""
        made: list[Message] = []

        @seeded(seed)
        @settings(
            max_examples=count, database=None, deadline=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(self.message(descriptor))
        def collect(message: Message) -> None:
            made.append(message)

        collect()
        return made


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _set(message: Message, field: FieldDescriptor, value: Any) -> None:
    if _is_map(field):
        target = getattr(message, field.name)
        for key, each in value.items():
            if isinstance(each, Message):
                target[key].CopyFrom(each)
            else:
                target[key] = each
    elif field.is_repeated:
        getattr(message, field.name).extend(value)
    elif isinstance(value, Message):
        getattr(message, field.name).CopyFrom(value)
    else:
        setattr(message, field.name, value)
