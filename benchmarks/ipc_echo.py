"""The far end of a hop between two processes: sends back what it gets (see `ipc`).

Usage: python -m benchmarks.ipc_echo frames SOCKET INPUTS OUTPUTS LARGE_BYTES   the worker's own code, without an engine
       python -m benchmarks.ipc_echo grpc PATH                                 a grpc.aio server
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Sequence

import grpc.aio
from modelhost_server.engines.base import OutputSink
from modelhost_server.ipc import frames
from modelhost_server.ipc.arena import Arena
from modelhost_server.runtime import worker as runtime
from modelhost_server.tensors import LentMemory, RawTensor

_CONFIG = {"max_in_flight": 2, "intra_op_threads": 1, "inter_op_threads": 1}
_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Echo:
    """A model whose outputs are its inputs."""

    def run(
        self, signature: int, inputs: Sequence[tuple[int, RawTensor]], outputs: Sequence[int], sink: OutputSink
    ) -> None:
        """See LoadedModel."""
        for _, (dtype, shape, data) in inputs:
            sink.put(dtype, shape, data.view if isinstance(data, LentMemory) else data)


def serve_frames(sock: int, inputs: int, outputs: int, large_bytes: int) -> None:
    """Serves until the socket is closed."""
    frames.LARGE_BYTES = runtime.LARGE_BYTES = large_bytes
    sys.setswitchinterval(0.0005)
    worker = runtime.Worker(socket.socket(fileno=sock), Arena(inputs), Arena(outputs), _CONFIG)
    worker._models[0] = Echo()
    worker.serve()


async def serve_grpc(path: str) -> None:
    """Serves until it is terminated."""

    async def echo(request: bytes, context: object) -> bytes:
        return request

    server = grpc.aio.server(options=_UNLIMITED)
    handlers = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("hop", handlers)])
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    if sys.argv[1] == "frames":
        serve_frames(*map(int, sys.argv[2:]))
    else:
        asyncio.run(serve_grpc(sys.argv[2]))
