"""TensorFlow's C library, called through ctypes: sessions, graphs and tensors without Python TensorFlow.

The C API is stable (tensorflow/c/c_api.h promises compatibility), needs no `import tensorflow` (600 MB, 3 s), and a
call through it costs about 12 µs where a restored Python signature costs 200. ctypes releases the interpreter lock
around every call, so several threads may run sessions side by side.
"""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import os
from collections.abc import Callable, Sequence
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import Code, ModelhostError, Reason
from ..tensors import STRING, RawTensor, element_count


class Buffer(ctypes.Structure):
    """TF_Buffer."""

    _fields_ = [("data", c_void_p), ("length", c_size_t), ("deallocator", c_void_p)]


class Output(ctypes.Structure):
    """TF_Output: one output of one operation."""

    _fields_ = [("operation", c_void_p), ("index", c_int)]


_Deallocator = ctypes.CFUNCTYPE(None, c_void_p, c_size_t, c_void_p)
_TSTRING_SIZE = 24  # sizeof(TF_TString), fixed since TensorFlow 2.4

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "TF_Version": (c_char_p,),
    "TF_NewStatus": (c_void_p,),
    "TF_DeleteStatus": (None, c_void_p),
    "TF_GetCode": (c_int, c_void_p),
    "TF_Message": (c_char_p, c_void_p),
    "TF_NewBuffer": (POINTER(Buffer),),
    "TF_NewBufferFromString": (POINTER(Buffer), c_char_p, c_size_t),
    "TF_DeleteBuffer": (None, POINTER(Buffer)),
    "TF_NewGraph": (c_void_p,),
    "TF_DeleteGraph": (None, c_void_p),
    "TF_NewImportGraphDefOptions": (c_void_p,),
    "TF_DeleteImportGraphDefOptions": (None, c_void_p),
    "TF_GraphImportGraphDef": (None, c_void_p, POINTER(Buffer), c_void_p, c_void_p),
    "TF_GraphOperationByName": (c_void_p, c_void_p, c_char_p),
    "TF_GraphGetOpDef": (None, c_void_p, c_char_p, POINTER(Buffer), c_void_p),
    "TF_OperationNumOutputs": (c_int, c_void_p),
    "TF_NewSessionOptions": (c_void_p,),
    "TF_DeleteSessionOptions": (None, c_void_p),
    "TF_SetConfig": (None, c_void_p, c_char_p, c_size_t, c_void_p),
    "TF_NewSession": (c_void_p, c_void_p, c_void_p, c_void_p),
    "TF_LoadSessionFromSavedModel": (
        c_void_p, c_void_p, c_void_p, c_char_p, POINTER(c_char_p), c_int, c_void_p, c_void_p, c_void_p,
    ),
    "TF_CloseSession": (None, c_void_p, c_void_p),
    "TF_DeleteSession": (None, c_void_p, c_void_p),
    "TF_SessionRun": (
        None, c_void_p, POINTER(Buffer), POINTER(Output), POINTER(c_void_p), c_int,
        POINTER(Output), POINTER(c_void_p), c_int, POINTER(c_void_p), c_int, c_void_p, c_void_p,
    ),
    "TF_NewTensor": (c_void_p, c_int, POINTER(c_int64), c_int, c_void_p, c_size_t, _Deallocator, c_void_p),
    "TF_AllocateTensor": (c_void_p, c_int, POINTER(c_int64), c_int, c_size_t),
    "TF_DeleteTensor": (None, c_void_p),
    "TF_TensorType": (c_int, c_void_p),
    "TF_NumDims": (c_int, c_void_p),
    "TF_Dim": (c_int64, c_void_p, c_int),
    "TF_TensorByteSize": (c_size_t, c_void_p),
    "TF_TensorData": (c_void_p, c_void_p),
    "TF_StringInit": (None, c_void_p),
    "TF_StringCopy": (None, c_void_p, c_char_p, c_size_t),
    "TF_StringGetSize": (c_size_t, c_void_p),
    "TF_StringGetDataPointer": (c_void_p, c_void_p),
    "TF_StringDealloc": (None, c_void_p),
}  # fmt: skip


@cache
def library() -> Any:
    """TensorFlow's C library, opened on first use.

    Raises:
        ModelhostError: UNSUPPORTED when TensorFlow is not installed.
    """
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        raise ModelhostError(
            Reason.UNSUPPORTED, "TensorFlow is not installed on the server: pip install 'modelhost[server]'"
        )
    folder = Path(next(iter(spec.submodule_search_locations)))
    # Or it would keep all memory that any model ever needed; see `keep_freed_memory`.
    os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")
    # Not for all to see: other libraries have symbols of the same names, and die of these.
    ctypes.CDLL(str(folder / "libtensorflow_framework.so.2"))
    lib = ctypes.CDLL(str(folder / "libtensorflow_cc.so.2"))
    for name, (result, *arguments) in _SIGNATURES.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


class StatusError(Exception):
    """A status of TensorFlow's other than OK; `code` is numbered as google.rpc.Code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Status:
    """TF_Status, raised as StatusError by `check`. Not to be shared between threads."""

    def __init__(self) -> None:
        self._lib = library()
        self.pointer: int = self._lib.TF_NewStatus()

    def check(self) -> None:
        """Raises StatusError unless the last call that was given this status went well."""
        code = self._lib.TF_GetCode(self.pointer)
        if code:
            raise StatusError(code, self._lib.TF_Message(self.pointer).decode("utf-8", "replace"))

    def __del__(self) -> None:
        self._lib.TF_DeleteStatus(self.pointer)


def buffer(data: bytes) -> Any:
    """A TF_Buffer with a copy of `data`; the caller deletes it."""
    return library().TF_NewBufferFromString(data, len(data))


def op_definition(op: str) -> bytes | None:
    """The serialized OpDef of an op; None when TensorFlow has no such op."""
    lib, status = library(), Status()
    graph, definition = lib.TF_NewGraph(), lib.TF_NewBuffer()
    try:
        lib.TF_GraphGetOpDef(graph, op.encode(), definition, status.pointer)
        status.check()
        return ctypes.string_at(definition.contents.data, definition.contents.length)
    except StatusError:
        return None
    finally:
        lib.TF_DeleteBuffer(definition)
        lib.TF_DeleteGraph(graph)


def _dims(shape: Sequence[int]) -> Any:
    return (c_int64 * len(shape))(*shape)


# What to do when TensorFlow no longer uses memory that it borrowed. One callback serves all, because a ctypes callback
# must not be freed while it runs.
_on_release: dict[int, Callable[[], None]] = {}
_next_key = itertools.count(1)


def _release(data: int, length: int, key: int) -> None:
    _on_release.pop(key)()


_released = _Deallocator(_release)


def borrowing_tensor(tensor: RawTensor, on_release: Callable[[], None]) -> int:
    """A TF_Tensor over the memory of `tensor`, which is 64-byte aligned; the caller deletes it.

    TensorFlow may go on using the memory after that (a model that assigns its input to a variable does), so
    `on_release` is called, on any thread, once it no longer does.
    """
    data: Any = tensor.data
    return _new_tensor(tensor.dtype, tensor.shape, ctypes.c_char.from_buffer(data), len(data), on_release)


def _new_tensor(dtype: int, shape: Sequence[int], memory: Any, size: int, on_release: Callable[[], None]) -> int:
    key = next(_next_key)
    _on_release[key] = on_release
    address = ctypes.addressof(memory)
    pointer: int = library().TF_NewTensor(dtype, _dims(shape), len(shape), address, size, _released, key)
    return pointer


def copied_tensor(tensor: RawTensor) -> int:
    """A TF_Tensor that holds a copy of `tensor`; the caller deletes it."""
    if tensor.dtype == STRING:
        return _string_tensor(tensor.shape, tensor.data)  # type: ignore[arg-type]
    lib = library()
    data: Any = tensor.data
    size = len(data)
    pointer: int = lib.TF_AllocateTensor(tensor.dtype, _dims(tensor.shape), len(tensor.shape), size)
    if size:
        source = data if isinstance(data, bytes) else ctypes.addressof(ctypes.c_char.from_buffer(data))
        # Without memory it makes a tensor all the same.
        if not (target := lib.TF_TensorData(pointer)):
            delete_tensor(pointer)
            raise MemoryError
        ctypes.memmove(target, source, size)
    return pointer


def _string_tensor(shape: Sequence[int], values: Sequence[bytes]) -> int:
    # TensorFlow runs no destructors for strings in memory it allocated through the C API, so the memory is ours.
    lib, size = library(), len(values) * _TSTRING_SIZE
    memory = ctypes.create_string_buffer(max(size, 1))
    base = ctypes.addressof(memory)
    for i, value in enumerate(values):
        element = base + i * _TSTRING_SIZE
        lib.TF_StringInit(element)
        lib.TF_StringCopy(element, value, len(value))

    def free() -> None:
        for element in range(ctypes.addressof(memory), ctypes.addressof(memory) + size, _TSTRING_SIZE):
            lib.TF_StringDealloc(element)

    return _new_tensor(STRING, shape, memory, size, free)


def read_tensor(pointer: int) -> tuple[int, tuple[int, ...], memoryview | list[bytes]]:
    """dtype, shape and elements of a TF_Tensor; the view is valid until the tensor is deleted."""
    lib = library()
    dtype = lib.TF_TensorType(pointer)
    shape = tuple(lib.TF_Dim(pointer, i) for i in range(lib.TF_NumDims(pointer)))
    data, size = lib.TF_TensorData(pointer), lib.TF_TensorByteSize(pointer)
    if dtype != STRING:
        view = memoryview((ctypes.c_char * size).from_address(data)).cast("B") if size else memoryview(b"")
        return dtype, shape, view
    values = []
    for i in range(element_count(shape)):
        element = data + i * _TSTRING_SIZE
        values.append(ctypes.string_at(lib.TF_StringGetDataPointer(element), lib.TF_StringGetSize(element)))
    return dtype, shape, values


def delete_tensor(pointer: int) -> None:
    """Deletes a TF_Tensor."""
    library().TF_DeleteTensor(pointer)


class Session:
    """A graph and a session over it, with devices and resources of its own: nothing is shared between two sessions."""

    def __init__(self, config: bytes) -> None:
        self._lib = library()
        self._graph: int = self._lib.TF_NewGraph()
        self._session: int | None = None
        self._options: int = self._lib.TF_NewSessionOptions()
        status = Status()
        self._lib.TF_SetConfig(self._options, config, len(config), status.pointer)
        status.check()

    def import_graph(self, graph_def: bytes) -> None:
        """Starts the session over a serialized GraphDef.

        Raises:
            StatusError: the graph is not valid here.
        """
        status, definition = Status(), buffer(graph_def)
        options = self._lib.TF_NewImportGraphDefOptions()
        try:
            self._lib.TF_GraphImportGraphDef(self._graph, definition, options, status.pointer)
            status.check()
        finally:
            self._lib.TF_DeleteImportGraphDefOptions(options)
            self._lib.TF_DeleteBuffer(definition)
        self._session = self._lib.TF_NewSession(self._graph, self._options, status.pointer)
        status.check()

    def load_saved_model(self, path: str, tags: Sequence[str]) -> None:
        """Starts the session as TensorFlow's own loader does, with every variable restored and initialisers run.

        Raises:
            StatusError: TensorFlow refuses the SavedModel.
        """
        status = Status()
        names = (c_char_p * len(tags))(*[tag.encode() for tag in tags])
        self._session = self._lib.TF_LoadSessionFromSavedModel(
            self._options, None, path.encode(), names, len(tags), self._graph, None, status.pointer
        )
        status.check()

    def output(self, name: str) -> Output:
        """The output called `operation:index` (or `operation`, for its first).

        Raises:
            KeyError: there is none.
        """
        operation, _, index = name.partition(":")
        pointer = self.operation(operation)
        if not (index or "0").isdecimal() or int(index or 0) >= self._lib.TF_OperationNumOutputs(pointer):
            raise KeyError(name)
        return Output(pointer, int(index or 0))

    def operation(self, name: str) -> int:
        """The operation of this name.

        Raises:
            KeyError: there is none.
        """
        pointer: int | None = self._lib.TF_GraphOperationByName(self._graph, name.encode())
        if pointer is None:
            raise KeyError(name)
        return pointer

    def run(
        self,
        status: Status,
        feeds: Any,
        values: Any,
        fetches: Any,
        results: Any,
        targets: Any = None,
    ) -> None:
        """Runs the graph: ctypes arrays of outputs fed, their tensors, outputs fetched, room for their tensors.

        Raises:
            StatusError: TensorFlow's own status.
        """
        self._lib.TF_SessionRun(
            self._session, None, feeds, values, len(values), fetches, results, len(results),
            targets, len(targets) if targets is not None else 0, None, status.pointer,
        )  # fmt: skip
        status.check()

    def close(self) -> None:
        """Frees session and graph."""
        status = Status()
        if self._session is not None:
            self._lib.TF_CloseSession(self._session, status.pointer)
            self._lib.TF_DeleteSession(self._session, status.pointer)
            self._session = None
        self._lib.TF_DeleteSessionOptions(self._options)
        self._lib.TF_DeleteGraph(self._graph)


def is_lack_of_memory(error: StatusError) -> bool:
    """Whether TensorFlow's allocator found no memory. Other things run out, too, such as descriptors."""
    return error.code == Code.RESOURCE_EXHAUSTED and "OOM when allocating" in error.message


def status_error_reason(error: StatusError) -> Reason:
    """What a failed run means to the caller of the model."""
    match error.code:
        case Code.INVALID_ARGUMENT | Code.OUT_OF_RANGE:
            return Reason.MODEL_REJECTED_INPUT
        case _:
            return Reason.MODEL_EXECUTION_FAILED
