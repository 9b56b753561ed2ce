"""The template process: opens what every worker needs once, and forks workers that have it from their first moment.

What that is depends on the engine it is for: a worker that runs no TensorFlow has none of it in its memory. It runs no
op and has one thread, so that a fork is safe. It is the parent of the workers: it tells
the server how they end, and when the server goes away, however it does, it ends them and itself.

The server speaks to it in JSON datagrams over a SOCK_SEQPACKET socket, with a worker's descriptors attached.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import sys
from typing import Any

from ..engines.base import TENSORFLOW
from ..errors import ModelhostError
from ..memory import keep_objects
from ..sandbox.kernel import PR_SET_NAME, PR_SET_PDEATHSIG, prctl
from ..sandbox.rights import Rights, close_all_but, confine, step_down
from . import worker

_MESSAGE_BYTES = 64 << 10
_FDS_PER_WORKER = 4
# Added to what the kernel's out-of-memory killer weighs, so that it takes a worker before it takes the server.
_WORKER_OOM_SCORE = "500"


def _become_worker(rights: Rights, fds: list[int], config: dict[str, Any], parent: int) -> None:
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    prctl(PR_SET_NAME, b"modelhost-wrk")
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(_WORKER_OOM_SCORE)
    except OSError:
        pass
    sock_fd, inputs_fd, outputs_fd, log_fd = fds
    os.dup2(log_fd, 1)
    os.dup2(log_fd, 2)
    close_all_but((sock_fd, inputs_fd, outputs_fd))
    os.setsid()
    confine(rights)
    worker.main(socket.socket(fileno=sock_fd), inputs_fd, outputs_fd, config)


class Template:
    """Forks workers and reports their ends."""

    def __init__(self, control: socket.socket, rights: Rights) -> None:
        self._control = control
        self._rights = rights
        self._workers: dict[int, int] = {}

    def _send(self, message: dict[str, Any]) -> None:
        self._control.send(json.dumps(message).encode())

    def _spawn(self, request: dict[str, Any], fds: list[int]) -> None:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                _become_worker(self._rights, fds, request["config"], parent)
            finally:
                os._exit(70)
        for fd in fds:
            os.close(fd)
        self._workers[pid] = request["id"]
        self._send({"event": "started", "id": request["id"], "pid": pid})

    def _reap(self) -> None:
        while self._workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            worker_id = self._workers.pop(pid, None)
            if worker_id is not None:
                self._send({"event": "ended", "id": worker_id, "code": os.waitstatus_to_exitcode(status)})

    def _handle_message(self) -> bool:
        data, fds, _, _ = socket.recv_fds(self._control, _MESSAGE_BYTES, _FDS_PER_WORKER)
        if not data:
            return False
        request = json.loads(data)
        match request["command"]:
            case "start":
                self._spawn(request, fds)
            case "kill":
                for pid, worker_id in self._workers.items():
                    if worker_id == request["id"]:
                        os.kill(pid, signal.SIGKILL)
        return True

    def serve(self) -> None:
        """Serves until the server goes away."""
        wakeup_read, wakeup_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        selector = selectors.DefaultSelector()
        selector.register(self._control, selectors.EVENT_READ)
        selector.register(wakeup_read, selectors.EVENT_READ)
        self._send({"event": "ready"})
        while True:
            for key, _ in selector.select():
                if key.fileobj is self._control:
                    if not self._handle_message():
                        return
                else:
                    os.read(wakeup_read, 4096)
                    self._reap()

    def end_workers(self) -> None:
        """Kills and reaps all workers."""
        for pid in self._workers:
            os.kill(pid, signal.SIGKILL)
        for pid in self._workers:
            os.waitpid(pid, 0)


def _open(engine: str) -> None:
    """Opens what workers for an engine need.

    Raises:
        ModelhostError: TensorFlow's library cannot be opened.
    """
    if engine == TENSORFLOW:
        # All of the engine, not its library only, so that no worker has to.
        from ..engines import tensorflow, tensorflow_capi  # noqa: F401

        tensorflow_capi.library()
    else:
        # OpenVINO is left to the workers that need it: to import it is to start a thread.
        from ..engines import litert  # noqa: F401


def main() -> None:
    """Runs the template over the socket whose descriptor is the first argument, for the engine that is the second, with
    the rights that are the third.
    """
    rights = Rights.from_json(sys.argv[3])
    step_down(rights)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    prctl(PR_SET_NAME, b"modelhost-tmpl")
    # A terminal's Ctrl-C reaches the whole process group, a service manager's SIGTERM the whole control group; both are
    # the server's to act on, which needs its workers to drain. Workers inherit this.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    try:
        _open(sys.argv[2])
    except ModelhostError as error:
        print(error.message, file=sys.stderr)
        sys.exit(1)
    keep_objects()
    template = Template(control, rights)
    try:
        template.serve()
    except (ConnectionError, BrokenPipeError):
        pass
    finally:
        template.end_workers()


if __name__ == "__main__":
    main()
