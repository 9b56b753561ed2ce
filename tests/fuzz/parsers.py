"""What reads bytes from others, fuzzed in a process of its own, guided by the code that is reached (atheris).

`python -m fuzz.parsers NAME RUNS SEED REPORT` fuzzes one of PARSERS and writes what was raised that must not be, a line
each, into REPORT.
"""

from __future__ import annotations

import json
import logging
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from .damage import damaged
from .tally import Tally

# A single input that takes longer hangs.
_SECONDS_A_CASE = 10


class Parser(NamedTuple):
    """What is fuzzed: a function, what it may raise, and input that it takes."""

    parse: Callable[[bytes], Any]
    refusals: tuple[type[BaseException], ...]
    seeds: list[bytes]


def _native() -> Parser:
    from modelhost_server.errors import ModelhostError
    from modelhost_server.services.native import wire

    from .calls import good_requests

    path = "/modelhost.v1.PredictionService/Predict"
    good = good_requests()[path]
    # Large ones are taken apart by hand.
    return Parser(lambda data: wire.read_request(_padded(data, 15)), (ModelhostError,), [good])


def _padded(data: bytes, field: int) -> bytes:
    """A message with an unknown field behind it, which makes it a large one."""
    return data + bytes([field << 3 | 2, 0x80, 0x80, 1]) + bytes(16384)


def _serving() -> Parser:
    from modelhost_server.errors import ForeignError
    from modelhost_server.services.tensorflow_serving import wire

    from .calls import good_requests

    return Parser(
        wire.read_request, (ForeignError,), [good_requests()["/tensorflow.serving.PredictionService/Predict"]]
    )


def _infer() -> Parser:
    from modelhost_server.errors import ForeignError, ModelhostError
    from modelhost_server.services.open_inference import wire

    from .calls import good_requests

    return Parser(
        wire.read_request,
        (ForeignError, ModelhostError),
        [good_requests()["/inference.GRPCInferenceService/ModelInfer"]],
    )


def _grpc() -> Parser:
    from modelhost_server.errors import ModelhostError
    from modelhost_server.transport import wire
    from modelhost_server.transport.status import StatusError

    def parse(data: bytes) -> None:
        try:
            wire.timeout_seconds(data[5:])
        except ModelhostError:
            pass
        if len(data) >= 5:
            wire.message_length(data, 0, 1000)

    return Parser(parse, (StatusError,), [b"\0\0\0\0\x0510S", b"\1\0\0\0\x05n"])


def _frames() -> Parser:
    import struct

    from modelhost_server.ipc import frames
    from modelhost_server.ipc.arena import Arena, create_arena_fd
    from modelhost_server.tensors import LentMemory

    arena = Arena(create_arena_fd())

    def parse(data: bytes) -> None:
        body = memoryview(data[1:])
        match data[:1]:
            case b"a":
                count, _, start = frames.read_result(body)
            case b"b":
                *_, count, start = frames.read_predict(body)
            case b"c":
                head, start = frames.read_many(body)
                count = head["tensors"]
            case _:
                frames.released_offsets(body)
                return
        frames.read_tensors(body, start, count, arena, lambda _, view: LentMemory(view))

    writer = frames.TensorWriter(arena)
    writer.put(0, 1, [2], bytes(8))
    writer.put(1, 7, [2], [b"a", b"bc"])
    bodies = [
        (b"a", frames.result_frame(1, writer, [])), (b"b", frames.predict_frame(1, 2, 0, [0], writer)),
        (b"c", frames.many_frame(frames.Kind.RESULT_MANY, 1, {"answers": [2]}, writer)),
    ]  # fmt: skip
    refusals = (ValueError, LookupError, TypeError, RecursionError, OverflowError, struct.error)
    return Parser(parse, refusals, [kind + b"".join(frame[1:]) for kind, frame in bodies])


def _front_frames() -> Parser:
    import struct

    from modelhost_server.access.identity import Credentials
    from modelhost_server.services.call import Call
    from modelhost_server.transport import frames

    def parse(data: bytes) -> None:
        frames.read_call(memoryview(data), 0.0)
        frames.read_credit(memoryview(data))

    calls = [Call(1.5, "ipv4:1.2.3.4:5"), Call(None, "unix:", Credentials("Bearer x", "y"))]
    seeds = [frames.call_body(3, call, 0.0) + b"request" for call in calls]
    return Parser(parse, (ValueError, struct.error, TypeError, RecursionError), seeds)


def _tokens() -> Parser:
    from modelhost_server.access.access_file import AccessFile
    from modelhost_server.access.authenticator import Authenticator
    from modelhost_server.access.identity import Credentials, Role
    from modelhost_server.errors import ModelhostError

    path = Path(tempfile.mkdtemp(prefix="modelhost-fuzz-")) / "access"
    _, token = AccessFile.made(path).create_token("somebody", {"*": Role.PREDICT}, None)
    authenticator = Authenticator(path)
    good = f"Bearer {token}"

    def parse(data: bytes) -> None:
        authorization, _, subject = data.decode("latin-1").partition("|")
        identity = authenticator.identify(Credentials(authorization, subject))
        scheme, _, sent = authorization.partition(" ")
        # Nobody gets in with a token that is almost right.
        assert (scheme.lower(), sent.strip()) == ("bearer", token), identity

    return Parser(parse, (ModelhostError,), [good.encode(), good.encode()[:-1] + b"|cn", b"|somebody"])


_SPECS = [("x", 1, (-1,)), ("n", 9, (-1, 2)), ("s", 7, None), ("b", 10, (2,)), ("c", 8, ()), ("f", 14, (1, -1))]


def _predict_json() -> Parser:
    from modelhost_server.compat import serving_inference_pb2
    from modelhost_server.errors import ForeignError
    from modelhost_server.rest.examples import fill_input
    from modelhost_server.rest.failures import HttpError
    from modelhost_server.rest.predict_requests import read_object, signature_name, tensors
    from modelhost_server.tensors import SignatureSpec, TensorSpec

    several = SignatureSpec("s", tuple(TensorSpec(*spec) for spec in _SPECS), ())
    ones = [SignatureSpec("s", (TensorSpec(*spec),), ()) for spec in _SPECS]

    def parse(data: bytes) -> None:
        document = read_object(data[1:])
        signature_name(document)
        if data[0] == ord("e"):
            fill_input(document, serving_inference_pb2.ClassificationRequest().input)
            return
        tensors(document, [several, *ones][data[0] % 7])

    texts = [
        '{"instances": [1.0, 2, NaN, 1e400]}', '{"inputs": {"x": [1], "n": [[1, 2]], "s": "a", "b": [true, false]}}',
        '{"instances": [{"b64": "YQ=="}], "signature_name": "s"}', '{"instances": [[[1, -0.0]], [[2, 1e39]]]}',
    ]  # fmt: skip
    seeds = [bytes([kind]) + text.encode() for text in texts for kind in range(7)]
    return Parser(parse, (ForeignError, HttpError), [*seeds, b'e{"examples": [{"x": [1, 2], "s": {"b64": "YQ"}}]}'])


def _infer_json() -> Parser:
    from modelhost_server.errors import ForeignError
    from modelhost_server.rest.failures import HttpError
    from modelhost_server.rest.infer_requests import infer_request

    def parse(data: bytes) -> None:
        length, _, body = data.partition(b"|")
        infer_request("m", "", body, length.decode("latin-1") if length else None)

    inputs = (
        '{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}, '
        '{"name": "b", "datatype": "BYTES", "shape": [1], "data": ["a"]}, '
        '{"name": "i", "datatype": "INT64", "shape": [2, 1], "data": [[1], [2]]}'
    )
    text = f'{{"inputs": [{inputs}], "outputs": [{{"name": "y", "parameters": {{"binary_data": true}}}}]}}'.encode()
    binary = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}]}'
    return Parser(parse, (ForeignError, HttpError), [b"|" + text, b"%d|%s\0\0\0\0" % (len(binary), binary)])


def _triton_config() -> Parser:
    from modelhost_server.errors import ForeignError
    from modelhost_server.repositories import triton_config

    def parse(data: bytes) -> None:
        text = data[1:].decode(errors="replace")
        config = (triton_config.read_json if data[:1] == b"j" else triton_config.read_text)(text)
        triton_config.check_config("m", config)
        triton_config.label_files(config)
        triton_config.load_options(config)
        triton_config.batching_options(config)
        triton_config.description(config, {})

    text = b"""name: "m" platform: "tensorflow_savedmodel" max_batch_size: 8
        input [{ name: "x" data_type: TYPE_FP32 dims: [ -1, 2 ] }] output [{ name: "y" label_filename: "l.txt" }]
        dynamic_batching { preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 100 } version_policy { all {} }"""
    document = b'{"name": "m", "max_batch_size": 8, "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [1]}]}'
    return Parser(parse, (ForeignError,), [b"t" + text, b"j" + document])


def _config_file() -> Parser:
    from modelhost_server.errors import ModelhostError
    from modelhost_server.services.tensorflow_serving.config_file import read_config_file

    file = Path(tempfile.mkdtemp(prefix="modelhost-fuzz-")) / "config"

    def parse(data: bytes) -> None:
        file.write_bytes(data)
        read_config_file(file)

    text = b"""model_config_list { config { name: "a/b" base_path: "/models/m" model_platform: "tensorflow"
        model_version_policy { specific { versions: 1 versions: 2 } } version_labels { key: "l" value: 1 } } }"""
    return Parser(parse, (ModelhostError,), [text])


def _litert_file() -> Parser:
    from modelhost_server.engines.litert_file import check_file, describe
    from modelhost_server.errors import ModelhostError
    from support.building import built

    path = Path(tempfile.mkdtemp(prefix="modelhost-fuzz-")) / "m.tflite"

    def parse(data: bytes) -> None:
        path.write_bytes(data)
        check_file(path)
        describe(path)

    return Parser(parse, (ModelhostError,), [(built("build_engines") / "scale.tflite").read_bytes()])


def _warmup_records() -> Parser:
    from modelhost_server.engines.warmup import read_warmup_requests
    from modelhost_server.errors import ModelhostError

    model = Path(tempfile.mkdtemp(prefix="modelhost-fuzz-"))
    file = model / "assets.extra" / "tf_serving_warmup_requests"
    file.parent.mkdir()

    def parse(data: bytes) -> None:
        file.write_bytes(data)
        read_warmup_requests(str(model))

    return Parser(parse, (ModelhostError,), [bytes(12), b"\x04" + bytes(7) + b"\1\2\3\4abcd\5\6\7\1"])


def _page_tokens() -> Parser:
    from modelhost_server.errors import ModelhostError
    from modelhost_server.store.pages import page

    items = [("a", "b"), ("c", "d")]
    first = page(items, 1, "", "models/")[1]
    return Parser(
        lambda data: page(items, 1, data.decode(errors="replace"), "models/"), (ModelhostError,),
        [first.encode(), b"WyJtb2RlbHMvIiwgImEiXQ=="],
    )  # fmt: skip


PARSERS: dict[str, Callable[[], Parser]] = {
    "native requests": _native, "TensorFlow Serving requests": _serving, "Open Inference requests": _infer,
    "gRPC heads": _grpc, "worker frames": _frames, "front frames": _front_frames, "JSON of predict": _predict_json,
    "JSON of infer": _infer_json, "Triton configs": _triton_config, "model config files": _config_file,
    ".tflite files": _litert_file, "warm-up records": _warmup_records, "page tokens": _page_tokens,
    "access tokens": _tokens,
}  # fmt: skip


def _check(parser: Parser, data: bytes, report: Any, known: set[str]) -> None:
    try:
        parser.parse(data)
    except parser.refusals:
        return
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{type(error).__name__} at {frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}"
        if place not in known:
            known.add(place)
            text = "".join(traceback.format_exception(error))[-1500:]
            report.write(json.dumps(f"{data[:500]!r}: {place}\n{text}") + "\n")
            report.flush()


def main(name: str, runs: str, seed: str, file: str) -> None:
    """Fuzzes one parser, in this process, which that ends."""
    import atheris

    with atheris.instrument_imports(include=["modelhost_server"]):
        parser = PARSERS[name]()
    logging.disable()
    noise, known = random.Random(seed), set[str]()
    with tempfile.TemporaryDirectory() as corpus, open(file, "w") as report:
        for number, good in enumerate(parser.seeds):
            for each in range(4):
                (Path(corpus) / f"{number}-{each}").write_bytes(damaged(noise, good) if each else good)
        atheris.Setup(
            ["fuzz", f"-runs={runs}", f"-seed={seed}", f"-timeout={_SECONDS_A_CASE}", "-rss_limit_mb=4096",
             "-verbosity=0", "-max_len=4096", "-print_final_stats=0", corpus],
            lambda data: _check(parser, data or b"\0", report, known),
        )  # fmt: skip
        atheris.Fuzz()


def fuzz_parsers(seed: int, cases: int) -> list[Tally]:
    """So many inputs of each parser's share."""
    tallies = []
    with tempfile.TemporaryDirectory() as directory:
        for name in PARSERS:
            tally = Tally(name, cases // len(PARSERS))
            report = Path(directory) / "report"
            report.touch()
            started = time.monotonic()
            done = subprocess.run(
                [sys.executable, "-m", "fuzz.parsers", name, str(tally.cases), str(seed), str(report)],
                capture_output=True, text=True, cwd=directory,
            )  # fmt: skip
            tally.seconds = time.monotonic() - started
            for line in report.read_text().splitlines():
                tally.fail(json.loads(line))
            if done.returncode:
                tally.fail(f"status {done.returncode}: {done.stderr[-1500:]}")
            tallies.append(tally)
    return tallies


def check_parsers(seed: int, cases: int) -> Tally:
    """The same without guidance, in this process: for where there is no atheris."""
    tally = Tally("parsers, unguided")
    noise, known = random.Random(seed), set[str]()
    with tempfile.TemporaryDirectory() as directory, open(Path(directory) / "report", "w+") as report, tally.timed():
        for make in PARSERS.values():
            parser = make()
            for _ in range(cases // len(PARSERS)):
                _check(parser, damaged(noise, noise.choice(parser.seeds)) or b"\0", report, known)
                tally.cases += 1
        report.seek(0)
        for line in report:
            tally.fail(json.loads(line))
    return tally


if __name__ == "__main__":
    main(*sys.argv[1:])
