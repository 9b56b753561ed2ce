"""Runs the converter process: one stage of work a process, with limits of time and memory."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from ..errors import ModelhostError, Reason
from ..sandbox.launch import environment
from ..sandbox.rights import Rights

logger = logging.getLogger(__name__)

_MEMORY_SHARE = 0.5
_LOG_BYTES = 2000
_PIECE_BYTES = 64 << 10
# A model can have its converter say anything, without end: the server has no more of it in memory.
_MAX_ANSWER_BYTES = 16 << 20
_RETRY_SECONDS = 1.0


class ConverterFault(ModelhostError):
    """The converter failed in a way that says nothing about the model."""

    def __init__(self, message: str, reason: Reason = Reason.INTERNAL) -> None:
        super().__init__(reason, message, retry_after=None if reason is Reason.INTERNAL else _RETRY_SECONDS)


class Converting:
    """Converter processes, one at a time of those that somebody waits for, and one of those that nobody does.

    Args:
        rights: what they may do.
        scratch: where each has a directory for as long as it runs.
    """

    def __init__(self, rights: Rights, scratch: Path) -> None:
        self._rights = rights
        self._scratch = scratch
        self._turns = {True: asyncio.Lock(), False: asyncio.Lock()}
        self._memory_bytes = int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * _MEMORY_SHARE)

    async def run(self, stage: str, job: dict[str, Any], seconds: float, urgent: bool) -> dict[str, Any]:
        """What a stage of the converter answers.

        Args:
            stage: see `converter/__main__.py`.
            job: what the stage takes.
            seconds: the process is ended after these.
            urgent: somebody waits for it.

        Raises:
            ModelhostError: the converter's own; SOURCE_UNSUPPORTED with how it ended.
            ConverterFault: see there; WORKER_UNAVAILABLE when the process was killed, STORAGE_FAILED when the disk
                would not take what it made.
        """
        async with self._turns[urgent]:
            self._scratch.mkdir(parents=True, exist_ok=True)
            # Its own, so that nothing stays of a process that is killed.
            scratch = tempfile.mkdtemp(dir=self._scratch)
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "modelhost_server.converter", stage, self._rights.to_json(),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                env=environment(TMPDIR=scratch), start_new_session=True,
            )  # fmt: skip
            request = json.dumps({"memory_bytes": self._memory_bytes, "urgent": urgent, **job}).encode()
            try:
                answer, log = await asyncio.wait_for(_asked(process, request), seconds)
            except TimeoutError:
                raise ModelhostError(
                    Reason.SOURCE_UNSUPPORTED, f"the converter ({stage}) took longer than {seconds:.0f} s"
                ) from None
            finally:
                if process.returncode is None:
                    # With what it has started.
                    os.killpg(process.pid, signal.SIGKILL)
                    await process.wait()
                await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
        if process.returncode == 0 and isinstance(answer.get("result"), dict):
            result: dict[str, Any] = answer["result"]
            return result
        if "error" in answer:
            raise ModelhostError.from_json(answer["error"])
        if "storage" in answer:
            logger.warning("the converter (%s) failed: %s", stage, log)
            raise ConverterFault(
                f"the converter ({stage}) failed, as the server's disk did: {answer['storage']}", Reason.STORAGE_FAILED
            )
        if "fault" in answer:
            logger.error("the converter (%s) failed: %s", stage, log)
            raise ConverterFault(f"the converter ({stage}) failed: {answer['fault']}")
        end = _end(process.returncode or 0)
        logger.warning("the converter (%s) %s: %s", stage, end, log)
        # A model can make it crash; this is done by others, or by a system that is short of memory.
        if process.returncode == -signal.SIGKILL:
            raise ConverterFault(f"the converter ({stage}) {end}", Reason.WORKER_UNAVAILABLE)
        raise ModelhostError(Reason.SOURCE_UNSUPPORTED, f"the converter ({stage}) {end}")


async def _asked(process: asyncio.subprocess.Process, request: bytes) -> tuple[dict[str, Any], str]:
    """What a process answers, nothing if that is not to be read; and the end of what it has logged."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdin.write(request)
    process.stdin.close()
    output, log = await asyncio.gather(_beginning(process.stdout), _last(process.stderr))
    await process.wait()
    try:
        answer = json.loads(output)
    except (ValueError, RecursionError):
        answer = None
    return answer if isinstance(answer, dict) else {}, log.decode("utf-8", "replace")


async def _beginning(stream: asyncio.StreamReader) -> bytearray:
    read = bytearray()
    while piece := await stream.read(_PIECE_BYTES):
        read += piece[: _MAX_ANSWER_BYTES - len(read)]
    return read


async def _last(stream: asyncio.StreamReader) -> bytes:
    read = b""
    while piece := await stream.read(_PIECE_BYTES):
        read = (read + piece)[-_LOG_BYTES:]
    return read


def _end(code: int) -> str:
    if code >= 0:
        return f"ended with status {code}"
    try:
        return f"was killed by signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"was killed by signal {-code}"
