"""The server under attack: victims' models, and a bystander's that must go on answering rightly."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from modelhost.v1 import model_service_pb2, scope_service_pb2
from support.calls import half, load
from support.server import OWN_CONNECTION, ServerProcess, Stubs

from .tally import Tally

VICTIMS = ("fuzz-a", "fuzz-b")
# Never among what is sent, so no request can reach it on purpose.
_BYSTANDER = "bystander-2b7e151628aed2a6"
_SECONDS = 20.0
MODELS = {"half": "half_plus_two", "other": "half_plus_three", "dtypes": "dtypes", "shapes": "shapes"}
# But for the one that grpc prints past all logging, when a caller has gone that it would tell of an error.
_TRACEBACK = re.compile(
    r"Traceback \(most recent call last\)(?!:\n.* in \S*_handle_exceptions\n"
    r".* in \S*_send_error_status_from_server\n)"
)
_DEATH = re.compile(r"worker of scope '(.+?)' killed by signal \d+ \((?!SIGKILL)\w+\)|worker template ended")


class Hosted:
    """A server with models.

    Args:
        models: where they are.
        options: of the server.
        may_die: whether the victims' workers may die of what they are told.
    """

    def __init__(self, models: Path, *options: str, may_die: bool = False, **arguments: Any) -> None:
        self.models = models
        self._may_die = may_die
        self.server = ServerProcess(*options, **arguments)
        self.stubs = Stubs(self.server.address, OWN_CONNECTION)
        self._seen = 0
        self.deaths = 0
        self.stubs.scopes.CreateScope(scope_service_pb2.CreateScopeRequest(scope=_BYSTANDER), timeout=_SECONDS)
        load(self.stubs, _BYSTANDER, "half", models / "half_plus_two")
        self.restore()

    def restore(self) -> None:
        """Makes victims as they were at first, and takes away what requests have made."""
        token = ""
        scopes: list[str] = []
        while True:
            page = self.stubs.scopes.ListScopes(
                scope_service_pb2.ListScopesRequest(page_size=1000, page_token=token), timeout=_SECONDS
            )
            scopes += [scope.scope for scope in page.scopes]
            token = page.next_page_token
            if not token:
                break
        for name in scopes:
            if name not in (_BYSTANDER, "default"):
                request = scope_service_pb2.DeleteScopeRequest(scope=name, force=True, allow_missing=True)
                self.stubs.scopes.DeleteScope(request, timeout=3 * _SECONDS)
        for model in self.stubs.models.ListModels(
            model_service_pb2.ListModelsRequest(scope="default", page_size=1000), timeout=_SECONDS
        ).models:
            unload = model_service_pb2.UnloadModelRequest(model=model.model, all_versions=True, allow_missing=True)
            self.stubs.models.UnloadModel(unload, timeout=3 * _SECONDS)
        for scope in VICTIMS:
            self.stubs.scopes.CreateScope(scope_service_pb2.CreateScopeRequest(scope=scope), timeout=_SECONDS)
            for name, source in MODELS.items():
                load(self.stubs, scope, name, self.models / source, labels=["stable"])

    def check(self, tally: Tally, what: str) -> bool:
        """Notes whatever shows that the server has come to harm since the last check; answers whether it lives."""
        try:
            answer = half(self.stubs, _BYSTANDER, x=4.0, timeout=_SECONDS)
            if answer != np.float32(4.0):
                tally.fail(f"{what}: the bystander's model answers {answer}")
            request = scope_service_pb2.GetScopeRequest(scope=_BYSTANDER)
            if self.stubs.scopes.GetScope(request, timeout=_SECONDS).scope.statistics.worker_restarts:
                tally.fail(f"{what}: the bystander's worker died")
        except grpc.RpcError as error:
            tally.fail(f"{what}: the bystander's model: {error.code()}: {error.details()}")  # type: ignore[attr-defined]
            # A process that has just died may not be reaped.
            time.sleep(1)
        if self.server.process.poll() is not None:
            tally.fail(f"{what}: the server ended: {self.server.process.returncode}\n{self.server.log()[-3000:]}")
            return False
        log = self.server.log()
        new, self._seen = log[self._seen :], len(log)
        for found in _TRACEBACK.finditer(new):
            tally.fail(f"{what}: a traceback in the log: …{new[max(0, found.start() - 300) : found.end() + 2500]}")
            break
        for died in _DEATH.finditer(new):
            self.deaths += 1
            if not self._may_die or died[1] not in VICTIMS:
                tally.fail(f"{what}: {died[0]}")
        return True

    def close(self) -> None:
        """Ends the server."""
        self.stubs.close()
        if self.server.process.poll() is None:
            self.server.stop()
        self.server.__exit__(None, None, None)
