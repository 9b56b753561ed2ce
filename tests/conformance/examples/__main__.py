"""Runs the programs and says which pass."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..conftest import Server
from ..environments import python_of
from .programs import GRPC, HOPELESS, PICTURE, PROGRAMS, REFUSED, Program

_TESTS = Path(__file__).parents[2]
_SECONDS = 120.0
_POLL_SECONDS = 0.2
# A repository of fewer models has the first of these; the programs call the first five.
_MODELS = (
    "simple", "simple_int8", "simple_string", "simple_identity", "densenet_onnx", "identity_int32", "identity_float32",
    "identity_string",
)  # fmt: skip
# What a program says of how many models there are.
_COUNTED = re.compile(r"repository_index\(.*\) != (\d+)")
_CONFIG = """
max_batch_size: 8
input { name: "input" data_type: TYPE_FP32 format: FORMAT_NHWC dims: [299, 299, 3] }
output { name: "InceptionV3/Predictions/Softmax" data_type: TYPE_FP32 dims: [10] label_filename: "labels.txt" }
"""


def main(arguments: list[str]) -> int:
    """Runs all programs of a directory; returns how many have failed."""
    if len(arguments) != 1:
        sys.exit("usage: python -m tests.conformance.examples DIRECTORY")
    directory = Path(arguments[0])
    os.environ["MODELHOST_PYTHON"] = sys.executable
    python = python_of("examples")
    models = _built()
    failed: list[str] = []
    with ExitStack() as stack:
        server = stack.enter_context(_serving(models, len(_MODELS)))
        picture = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "picture.png"
        _draw(python, picture)
        for program in PROGRAMS:
            file = directory / program.file
            if not file.exists():
                print(f"absent   {program.file}")
                continue
            counted = _COUNTED.search(file.read_text())
            own = _serving(models, int(counted[1]) if counted else len(_MODELS)) if program.has_own_server else None
            with ExitStack() as of_program:
                trouble = _trouble(python, file, program, of_program.enter_context(own) if own else server, picture)
            called = " ".join((program.file, *program.arguments))
            expected, reason = HOPELESS.get(program.file, ("", ""))
            if not trouble:
                print(f"passed   {called}", flush=True)
            elif expected and expected in trouble:
                print(f"cannot   {called}: {reason}", flush=True)
            else:
                print(f"FAILED   {called}\n{trouble}", flush=True)
                failed.append(called)
    for name, reason in REFUSED.items():
        print(f"cannot   {name}: {reason}")
    known = {program.file for program in PROGRAMS} | REFUSED.keys()
    for unknown in sorted({file.name for file in directory.glob("*.py")} - known):
        print(f"unknown  {unknown}")
    print(f"{len(failed)} failed")
    return len(failed)


def _trouble(python: str, file: Path, program: Program, server: Server, picture: Path) -> str:
    """What a program printed that did not pass; "" when it passed."""
    address = server.address if program.door == GRPC else server.addresses[-1].removeprefix("http://")
    arguments = [str(picture) if argument == PICTURE else argument for argument in program.arguments]
    try:
        done = subprocess.run(
            [python, str(file), "-u", address, *arguments], capture_output=True, text=True, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"no end within {_SECONDS} s"
    # Some exit with 0 whatever happens, and say PASS when it was right.
    is_right = done.returncode == 0 and ("PASS" in done.stdout or "PASS" not in file.read_text())
    return "" if is_right else (done.stdout + done.stderr)[-2000:]


def _built() -> Path:
    code = "from support.building import built; print(built('build_foreign'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=_TESTS, capture_output=True, text=True, check=True)
    return Path(done.stdout.strip())


@contextmanager
def _serving(models: Path, count: int) -> Iterator[Server]:
    """A server with a repository of so many models, all of them loaded."""
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder)
        for name in _MODELS[:count]:
            (repository / name / "1").mkdir(parents=True)
            (repository / name / "1" / "model.savedmodel").symlink_to(models / name)
        classifier = repository / "densenet_onnx"
        (classifier / "config.pbtxt").write_text(_CONFIG)
        (classifier / "labels.txt").write_text("".join(f"colour {number}\n" for number in range(10)))
        server = Server(
            "--model-repository", folder, "--model-control-mode", "explicit", "--load-model", "*",
            "--server-name", "triton", "--rest", "127.0.0.1:0",
        )  # fmt: skip
        try:
            _await_models(server, count)
            yield server
        finally:
            server.stop()


def _await_models(server: Server, count: int) -> None:
    """Waits until all serve: unlike Triton, our server takes calls before its models do."""
    deadline = time.monotonic() + _SECONDS
    while server.modelhost("ls").count("AVAILABLE") < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the models were not loaded: {server.log()}")
        time.sleep(_POLL_SECONDS)


def _draw(python: str, picture: Path) -> None:
    code = "import sys; from PIL import Image; Image.new('RGB', (320, 240), (200, 30, 30)).save(sys.argv[1])"
    subprocess.run([python, "-c", code, str(picture)], check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
