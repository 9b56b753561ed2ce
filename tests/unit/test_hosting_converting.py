"""What a converter that a model has taken over can do to the server."""

from __future__ import annotations

import asyncio
import os
import sys
import tracemalloc
import zipfile
from pathlib import Path

import psutil
import pytest
from modelhost_server.errors import ModelhostError, Reason
from modelhost_server.hosting import converting
from modelhost_server.hosting.converting import ConverterFault, Converting
from modelhost_server.sandbox.rights import Rights, missing


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs a converter that does what a program says."""
    real = asyncio.create_subprocess_exec

    def begin(program: str, seconds: float = 60.0):
        async def start(*command: str, **options: object) -> asyncio.subprocess.Process:
            return await real(sys.executable, "-c", program, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(converting.asyncio, "create_subprocess_exec", start)
        return Converting(Rights(False), tmp_path / "scratch").run("judge", {}, seconds, urgent=True)

    return begin


@pytest.mark.parametrize("answer", ["[1]", "[" * 100_000, '{"result": [1]}', "7", "x" * (32 << 20)])
async def test_an_answer_that_is_none_is_a_failure_whatever_else_is_said(run, answer):
    program = "import sys; sys.stdin.read(); [print('x' * (1 << 20), file=sys.stderr) for _ in range(64)]; "
    say = f"print({answer!r})" if len(answer) < 1000 else f"print({answer[0]!r} * {len(answer)})"
    tracemalloc.start()
    try:
        with pytest.raises(ModelhostError) as caught:
            await run(program + say)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.reason is Reason.SOURCE_UNSUPPORTED
    assert peak < 48 << 20


async def test_a_full_disk_is_told_as_what_passes(run):
    with pytest.raises(ConverterFault) as caught:
        await run("""import sys; sys.stdin.read(); print('{"storage": "No space left on device"}'); sys.exit(1)""")
    assert caught.value.reason is Reason.STORAGE_FAILED
    assert caught.value.retry_after
    assert "No space left" in caught.value.message


async def test_what_a_converter_has_started_ends_with_it(run, tmp_path):
    file = tmp_path / "pid"
    program = (
        "import subprocess, time, pathlib; "
        f"pathlib.Path({str(file)!r}).write_text(str(subprocess.Popen(['sleep', '1000']).pid)); time.sleep(1000)"
    )
    running = asyncio.ensure_future(run(program))
    while not (file.exists() and file.read_text()):  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    child = psutil.Process(int(file.read_text()))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    # Nobody may have taken note of its end.
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


_UNPACKS = """
import sys
from pathlib import Path
from modelhost_server.sources import unpacking
unpacking.unpack = lambda archive, target, limit: exec(sys.argv[3])
unpacking._main(Path(sys.argv[1]), Path(sys.argv[2]), 1000)
"""


@pytest.mark.skipif(bool(missing()), reason="the kernel has no sandbox")
@pytest.mark.parametrize(("attempt", "said"), [
    ("archive.read_bytes(); (target / 'made').touch()", ""),
    ("(target.parent / 'made').touch()", "Permission denied"),
    ("(archive.parent / 'other').read_bytes()", "Permission denied"),
])  # fmt: skip
async def test_who_unpacks_sees_its_archive_and_its_target_only(tmp_path, attempt, said):
    (tmp_path / "target").mkdir()
    (tmp_path / "other").touch()
    with zipfile.ZipFile(tmp_path / "archive.zip", "w"):
        pass
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _UNPACKS, str(tmp_path / "archive.zip"), str(tmp_path / "target"), attempt,
        stdout=asyncio.subprocess.PIPE, env=dict(os.environ),
    )  # fmt: skip
    output, _ = await process.communicate()
    assert said in output.decode()
    assert bool(process.returncode) == bool(said)
