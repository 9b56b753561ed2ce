"""Bytes that are no message, and damage to messages that are."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from .server import Stubs

GARBAGE: dict[str, Callable[[Descriptor], bytes]] = {
    "a field that ends too early": lambda message: b"\x0a\x7f\x00",
    "a length beyond all bytes": lambda message: b"\x0a\xff\xff\xff\xff\x07",
    "half a varint": lambda message: b"\x08\xff",
    "an endless varint": lambda message: b"\x08" + b"\xff" * 20,
    "field number 0": lambda message: b"\x02\x00",
    "an end of no group": lambda message: b"\x0c",
    "text": lambda message: b'{"scope": "default"}',
    "text that is no Unicode": lambda message: _text_field(message, b"\xff\xfe") or b"\x0a\x7f",
}


def _text_field(message: Descriptor, value: bytes) -> bytes:
    """A message whose first text field, in itself or in the messages it holds, has this value; b"" if none has."""
    for field in message.fields:
        if field.type == FieldDescriptor.TYPE_STRING:
            return bytes([field.number << 3 | 2, len(value)]) + value
    for field in message.fields:
        if field.message_type is not None and (inner := _text_field(field.message_type, value)):
            return bytes([field.number << 3 | 2, len(inner)]) + inner
    return b""


def methods_of(package: ModuleType) -> dict[str, MethodDescriptor]:
    """Every RPC of what protoc generated in a package, by its path, so that a new one is tested by itself."""
    names = [module.name for module in pkgutil.iter_modules(package.__path__) if module.name.endswith("_pb2")]
    files = [importlib.import_module(f"{package.__name__}.{name}").DESCRIPTOR for name in names]
    services = [service for file in files for service in file.services_by_name.values()]
    return {f"/{service.full_name}/{method.name}": method for service in services for method in service.methods}


def caller(stubs: Stubs, path: str, method: MethodDescriptor) -> Callable[[bytes], Any]:
    """Calls a method with bytes as they are."""
    kinds = {
        (False, False): stubs.channel.unary_unary,
        (False, True): stubs.channel.unary_stream,
        (True, False): stubs.channel.stream_unary,
        (True, True): stubs.channel.stream_stream,
    }
    call = kinds[method.client_streaming, method.server_streaming](path)
    return lambda data: call(iter([data]) if method.client_streaming else data, timeout=30)


def damaged(data: bytes) -> Iterator[bytes]:
    """A message cut off, with changed bytes and without some, at each place."""
    for i in range(len(data)):
        yield data[:i]
        yield data[:i] + bytes([data[i] ^ 0x80]) + data[i + 1 :]
        yield data[:i] + bytes([data[i] ^ 0x07]) + data[i + 1 :]
        yield data[:i] + data[i + 1 :]


def errors(stubs: Stubs, path: str, messages: Iterator[bytes]) -> list[grpc.RpcError]:
    """How those of the calls failed that did."""
    call = stubs.channel.unary_unary(path)
    futures = [call.future(message, timeout=30) for message in messages]
    return [error for future in futures if (error := future.exception()) is not None]
