"""How each program is called, and why some cannot pass."""

from __future__ import annotations

from typing import NamedTuple

GRPC, HTTP = "grpc", "http"
# Stands for a picture's file.
PICTURE = "PICTURE"
_CLASSIFIER = "densenet_onnx"


class Program(NamedTuple):
    """A call of a program.

    Attributes:
        door: whose address it is told.
        has_own_server: it unloads models, and counts them.
    """

    file: str
    arguments: tuple[str, ...] = ()
    door: str = GRPC
    has_own_server: bool = False


def _image_calls(file: str, *arguments: str, door: str = GRPC) -> list[Program]:
    base = (*arguments, "-m", _CLASSIFIER, "-c", "3", "-s", "INCEPTION")
    ways: tuple[tuple[str, ...], ...] = ((), ("-a",), ("-b", "2"))
    if door == GRPC:
        ways = (*ways, ("--streaming",))
    return [Program(file, (*base, *way, PICTURE), door) for way in ways]


PROGRAMS = [
    *(
        Program(f"simple_grpc_{name}.py")
        for name in (
            "infer_client", "async_infer_client", "string_infer_client", "health_metadata", "keepalive_client",
            "custom_args_client", "shm_client", "shm_string_client", "aio_infer_client", "aio_string_infer_client",
            "aio_health_metadata", "aio_keepalive_client", "aio_custom_args_client", "aio_shm_client",
            "aio_shm_string_client",
        )
    ),
    Program("simple_grpc_infer_client.py", ("-C", "gzip")),
    Program("simple_grpc_aio_infer_client.py", ("-C", "deflate")),
    Program("simple_grpc_model_control.py", has_own_server=True),
    Program("simple_grpc_aio_model_control.py", has_own_server=True),
    Program("grpc_client.py"),
    *(Program(f"grpc_explicit_{dtype}_content_client.py") for dtype in ("int", "int8", "byte")),
    Program("reuse_infer_objects_client.py", ("-i", "grpc")),
    *_image_calls("grpc_image_client.py"),
    *_image_calls("image_client.py", "-i", "grpc"),
    *(
        Program(f"simple_http_{name}.py", door=HTTP)
        for name in (
            "infer_client", "async_infer_client", "string_infer_client", "health_metadata", "shm_client",
            "shm_string_client", "aio_infer_client", "aio_string_infer_client", "aio_health_metadata",
            "aio_shm_client", "aio_shm_string_client",
        )
    ),
    Program("simple_http_infer_client.py", ("--request-compression-algorithm", "gzip"), HTTP),
    Program("simple_http_infer_client.py", ("--response-compression-algorithm", "gzip"), HTTP),
    Program("simple_http_model_control.py", door=HTTP, has_own_server=True),
    Program("simple_http_aio_model_control.py", door=HTTP, has_own_server=True),
    Program("reuse_infer_objects_client.py", ("-i", "http"), HTTP),
    *_image_calls("image_client.py", "-i", "http", door=HTTP),
]  # fmt: skip

# What a program says in the end where no server could have it say anything else, and why.
HOPELESS = {
    "simple_grpc_model_control.py": (
        "FAILED: expected 'Invalid file path' for oversized file path; got 'StatusCode.",
        "it looks for words in the name of the status code",
    )
}

_STATE = "its models keep a state from one request of a sequence to the next, which no SavedModel can"
_GPU = "it shares the memory of a GPU"
REFUSED = {
    **{
        f"simple_{name}.py": _STATE
        for name in (
            "grpc_sequence_sync_infer_client", "grpc_sequence_stream_infer_client",
            "grpc_aio_sequence_sync_infer_client", "grpc_aio_sequence_stream_infer_client",
            "http_sequence_sync_infer_client", "http_aio_sequence_sync_infer_client",
        )
    },
    **{
        f"simple_{name}_cudashm_client.py": _GPU for name in ("grpc", "grpc_aio", "http", "http_aio")
    },
    "simple_grpc_custom_repeat.py": "its model answers a request several times",
    "ensemble_image_client.py": "its model is a pipeline of several",
    "memory_growth_test.py": "it calls localhost:8001 and nothing else",
    "vllm_client.py": "its model is a language model on vLLM",
}  # fmt: skip
