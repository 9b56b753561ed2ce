"""Unpacks archives in a process of its own, which may read the archive, write to its target, and nothing else.

What parses bytes that anybody may have made is not the server.
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from ..errors import ModelhostError
from ..sandbox.kernel import PR_SET_PDEATHSIG, prctl
from ..sandbox.launch import environment
from ..sandbox.rights import Rights, confine, step_down
from .archives import unpack
from .disk import storing
from .manifest import invalid

_CHECK_SECONDS = 0.2
_MEMORY_BYTES = 1 << 30


def unpack_apart(archive: Path, target: Path, limit: int, check: Callable[[], None]) -> None:
    """Unpacks an archive into an empty directory. Blocking.

    Args:
        archive: see `unpack`.
        target: where to.
        limit: bytes that the files may have together.
        check: called while it is unpacked; raises when that is not wanted any more.

    Raises:
        ModelhostError: UPLOAD_INVALID, UPLOAD_LIMIT, STORAGE_FAILED.
    """
    command = [sys.executable, "-P", "-m", __name__, str(archive), str(target), str(limit)]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment(), start_new_session=True, text=True
    ) as process:
        assert process.stdout is not None
        try:
            while True:
                check()
                try:
                    code = process.wait(_CHECK_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    continue
        except BaseException:
            process.kill()
            raise
        told = process.stdout.read()
    if code == 0:
        return
    try:
        error = ModelhostError.from_json(json.loads(told))
    except (ValueError, KeyError):
        error = invalid(f"the archive cannot be unpacked: the process that tried has ended with {code}")
    raise error


def _main(archive: Path, target: Path, limit: int) -> None:
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    rights = Rights(sandboxed=True, readable=(str(archive),), writable=(str(target),))
    step_down(rights)
    confine(rights)
    try:
        with storing("what is in the archive"):
            unpack(archive, target, limit)
    except ModelhostError as error:
        print(json.dumps(error.to_json()))
        sys.exit(1)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
