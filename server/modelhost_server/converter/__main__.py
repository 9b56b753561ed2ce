"""`python -m modelhost_server.converter STAGE RIGHTS`: does one stage of a conversion, with no more than these rights.

The stage's job comes as JSON on standard input. One line of JSON goes to standard output: {"result": …}, with status 0;
or, with status 1, {"error": …} when the model cannot be served in this way, {"storage": …} when the disk would not take
what was made, {"fault": …} when something else says nothing about the model. A process that ends in another way has
failed at the model, too.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import resource
import signal
import sys
import tempfile
import traceback
from typing import Any

from ..errors import ModelhostError, Reason
from ..sandbox.kernel import PR_SET_PDEATHSIG, prctl
from ..sandbox.rights import Rights, confine, step_down

_LOWEST_NICENESS = 19
_URGENT_NICENESS = 10
# Of the disk that is written to, not of the model that is read.
_DISK_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_PROBE_BYTES = 1 << 20

# A stage's module offers `run(job) -> result`.
_STAGES = {
    "export": "export",
    "freeze": "freeze",
    "litert": "litert",
    "openvino": "openvino",
    "judge": "judge",
    "quantize": "quantize",
    "prune": "prune",
    "compare": "compare",
}


def _step_back(urgent: bool) -> None:
    """Gives way to predictions; not altogether when a caller waits."""
    if urgent:
        os.nice(_URGENT_NICENESS)
        return
    os.nice(_LOWEST_NICENESS)
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def _limit_memory(limit: int | None) -> None:
    if limit:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _settle_environment() -> None:
    """What libraries read when they are imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"


def _describe(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "the conversion needs more memory than it may have"
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:500]


def _is_of_the_disk(error: Exception, folder: str | None) -> bool:
    """Whether something could not be written. Not all libraries say so: then `folder` is tried."""
    if isinstance(error, OSError) and error.errno in _DISK_ERRNOS:
        return True
    if any(os.strerror(number) in str(error) for number in _DISK_ERRNOS):
        return True
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_PROBE_BYTES))
    except OSError:
        return True
    return False


def main() -> int:
    """Does the stage named on the command line, and says how it went."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    rights = Rights.from_json(sys.argv[2])
    # `footprint` starts a program.
    step_down(rights, may_start_programs=True)
    confine(rights)
    stage, job = sys.argv[1], json.load(sys.stdin)
    _step_back(job.get("urgent", False))
    _limit_memory(job.get("memory_bytes"))
    _settle_environment()
    # What libraries print must not get between the server and the answer.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    status, said = 0, dict[str, Any]()
    try:
        # Imported here because a stage has only what it needs: TensorFlow alone takes seconds.
        module = importlib.import_module(f".{_STAGES[stage]}", __package__)
        said["result"] = module.run(job)
    except ModelhostError as error:
        status, said["error"] = 1, error.to_json()
    except Exception as error:
        traceback.print_exc()
        status = 1
        if isinstance(error, ImportError):
            said["fault"] = _describe(error)
        elif _is_of_the_disk(error, job.get("target")):
            said["storage"] = _describe(error)
        else:
            said["error"] = ModelhostError(Reason.SOURCE_UNSUPPORTED, _describe(error)).to_json()
    print(json.dumps(said), file=answer, flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
