"""Reads values from a checkpoint, one at a time.

TensorFlow's own restore reads several at once on eight threads of its own, which made the p99 of other scopes' small
models five times what it was; one at a time is read by the thread that loads, in idle time.
"""

from __future__ import annotations

import ctypes

from google.protobuf.message import DecodeError

from ..compat import saved_model_pb2 as pb
from ..tensors import STRING, RawTensor
from . import tensorflow_build as build
from . import tensorflow_capi as capi

_OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"


class CheckpointReader:
    """Reads from any checkpoint; several threads may."""

    def __init__(self, config: bytes) -> None:
        self._session = capi.Session(config)
        self._session.import_graph(build.checkpoint_graph())
        self._feeds = (capi.Output * 2)(self._session.output(build.PREFIX), self._session.output(build.KEY))

    def read(self, prefix: str, key: str, dtype: int) -> int:
        """A TF_Tensor with the value; the caller deletes it.

        Raises:
            StatusError: there is no such value, it has another dtype, or the file is damaged.
        """
        fed = [capi.copied_tensor(RawTensor(STRING, (), [prefix.encode()]))]
        fed.append(capi.copied_tensor(RawTensor(STRING, (1,), [key.encode()])))
        result = (ctypes.c_void_p * 1)()
        try:
            self._session.run(
                capi.Status(),
                self._feeds,
                (ctypes.c_void_p * 2)(*fed),
                (capi.Output * 1)(self._session.output(build.read_operation(dtype))),
                result,
            )
        finally:
            for pointer in fed:
                capi.delete_tensor(pointer)
        return result[0] or 0


class Checkpoint:
    """A checkpoint, by the prefix of its files."""

    def __init__(self, reader: CheckpointReader, prefix: str) -> None:
        self._reader = reader
        self._prefix = prefix

    def read(self, key: str, dtype: int) -> int:
        """See CheckpointReader."""
        return self._reader.read(self._prefix, key, dtype)

    def object_graph(self) -> pb.TrackableObjectGraph | None:
        """The graph of the objects whose values it holds; None when it tells of none."""
        try:
            tensor = self.read(_OBJECT_GRAPH_KEY, STRING)
        except capi.StatusError:
            return None
        try:
            (value,) = capi.read_tensor(tensor)[2]
            return pb.TrackableObjectGraph.FromString(bytes(value))
        except DecodeError:
            return None
        finally:
            capi.delete_tensor(tensor)
